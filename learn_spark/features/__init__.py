"""Publishing features (staged, audited, released), reading them, and the FAISS index.

learn_spark.features.read(spark, "user_features", release="latest", as_of=None)   the rows of a release
learn_spark.features.features_at(spark, events)                                   point-in-time training data
learn_spark.features.changes(spark, "user_features", since=release_id)            changes for an online store
learn_spark.features.online("redis://host:6379/0").vectors(users, items)          vectors from an online store

Without Spark: read.released_arrow, point_in_time_arrow.features_at_arrow and change_feed_arrow.changes_arrow, which
learn_spark.api's features, features_at and changes call.

Tables of a catalog: read and changes take names (learn.user_features), features_at the schema (schema="learn").
"""

from learn_spark.features.change_feed import changes
from learn_spark.features.online_store.reader import online
from learn_spark.features.point_in_time import features_at
from learn_spark.features.read import read

__all__ = ["changes", "features_at", "online", "read"]
