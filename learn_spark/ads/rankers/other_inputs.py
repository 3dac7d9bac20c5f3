"""What rank_ads reads beside tables, without the imports of the stage."""

from __future__ import annotations

from learn_spark.core.settings.schema import Settings
from learn_spark.core.tables.workspace import Workspace


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """In mode score the saved rankers that it scores with."""
    if settings.ranking.mode == "train":
        return {}
    from learn_spark.ads.rankers.store import FOLDER, saved_by

    run_id, digest = saved_by(workspace, settings.ranking.ranker)
    return {f"{FOLDER}/{run_id}": digest}
