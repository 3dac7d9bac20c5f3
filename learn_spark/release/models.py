"""Which model may compute features: the newest that knows nothing of what the features may not know."""

from __future__ import annotations

import json

from learn_spark.errors import LearnSparkError
from learn_spark.settings import Settings
from learn_spark.settings.schema import Histories
from learn_spark.tables.lineage import trained_models
from learn_spark.tables.workspace import Workspace


def usable_model(settings: Settings, workspace: Workspace) -> str:
    """Id of the newest trained model as of ``histories.as_of`` or before; without that setting, of the newest that
    was trained without it.

    A model of a later past than the features would carry what came then into them; one of an earlier past, into
    features of today, would be a forgotten experiment's. LearnSparkError where there is none.
    """
    trained = trained_models(workspace)
    if not trained:
        raise LearnSparkError("there is no trained model yet; run the train stage first")
    wanted = settings.histories.as_of_micros()
    for model in trained:
        manifest = workspace.root / "models" / model / "manifest.json"
        as_of = json.loads(manifest.read_text(encoding="utf-8")).get("as_of")
        knows = Histories(as_of=as_of).as_of_micros()
        if (wanted is None and knows is None) or (wanted is not None and knows is not None and knows <= wanted):
            return model
    if wanted is None:
        raise LearnSparkError("no model was trained on all that is known: run train without histories.as_of")
    as_of = settings.histories.as_of
    raise LearnSparkError(f"no model knows only what was before {as_of}: run train with histories.as_of={as_of}")
