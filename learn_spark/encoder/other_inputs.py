"""What embed_items reads beside tables, without the imports of the stage."""

from __future__ import annotations

from learn_spark.core.settings.schema import Settings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.identity import identify


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The encoder, by its key."""
    return {f"encoder:{settings.encoder.model}": identify(settings.encoder).key}
