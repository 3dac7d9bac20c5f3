"""What evaluate reads beside tables, without the imports of the stage."""

from __future__ import annotations

from learn_spark.core.settings.schema import Settings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.trained import newest_model


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The newest model."""
    return {"model": newest_model(workspace).model_id}
