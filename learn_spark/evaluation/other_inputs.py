"""What evaluate reads beside tables, without the imports of the stage."""

from __future__ import annotations

from learn_spark.core.settings.schema import Settings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.trained import newest_model, require_model


def other_inputs(settings: Settings, workspace: Workspace, model_id: str | None) -> dict[str, str]:
    """The model: ``model_id``, or the newest. LearnSparkError where there is no such model."""
    if model_id is None:
        return {"model": newest_model(workspace).model_id}
    require_model(workspace, model_id)
    return {"model": model_id}
