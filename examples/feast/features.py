"""What Feast knows of the features: two entities, a view of the file of each, and a service of both."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)


def view(entity: Entity) -> FeatureView:
    """The vectors of users or of items. One holds until the next row of its id, however long that takes."""
    return FeatureView(
        name=f"{entity.name}_features",
        entities=[entity],
        ttl=timedelta(0),
        schema=[Field(name="embedding", dtype=Array(Float32))],
        source=FileSource(path=f"data/{entity.name}_features.parquet", timestamp_field="served_from"),
    )


user_features, item_features = view(user), view(item)
vectors = FeatureService(name="vectors", features=[user_features, item_features])
