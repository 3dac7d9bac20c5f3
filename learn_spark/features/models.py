"""The model that computes features: one that the settings name, or their newest, trained on no event after as_of."""

from __future__ import annotations

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.times import as_micros
from learn_spark.encoder.identity import identify
from learn_spark.model.manifest import ModelManifest
from learn_spark.model.trained import trained_models


def usable_model(settings: Settings, workspace: Workspace) -> str:
    """Id of ``release.model``, or of the newest trained model of the settings' tower and encoder.

    With ``histories.as_of`` the model must have been trained as of that time or before, so that no later event is in
    the features; without it, on all events. Models of other towers or encoders in the workspace do not count. Raises
    LearnSparkError where no model fits, and where ``release.model`` is unknown or does not fit.
    """
    trained = {one.model_id: one.manifest for one in trained_models(workspace)}
    if not trained:
        raise LearnSparkError("there is no trained model yet; run the train stage first")
    if settings.release.model is not None:
        if settings.release.model not in trained:
            raise LearnSparkError(
                f"release.model: there is no trained model {settings.release.model!r}; the newest are "
                f"{', '.join(list(trained)[:3])} (learn-spark models lists all)"
            )
        trained = {settings.release.model: trained[settings.release.model]}
    fitting = {model: manifest for model, manifest in trained.items() if _is_of(manifest, settings)}
    if not fitting:
        others = ", ".join(dict.fromkeys(manifest.method for manifest in trained.values()))
        raise LearnSparkError(
            f"no {settings.tower.kind} model over {settings.encoder.model} was trained in this workspace, only others "
            f"({others}); run train with these settings"
        )
    wanted = settings.histories.as_of_micros()
    for model, manifest in fitting.items():
        knows = None if manifest.as_of is None else as_micros(manifest.as_of)
        if (wanted is None and knows is None) or (wanted is not None and knows is not None and knows <= wanted):
            return model
    if wanted is None:
        raise LearnSparkError("no model was trained on all that is known: run train without histories.as_of")
    as_of = settings.histories.as_of
    raise LearnSparkError(f"no model knows only what was before {as_of}: run train with histories.as_of={as_of}")


def _is_of(manifest: ModelManifest, settings: Settings) -> bool:
    """Whether it is a model of the settings' kind of tower, and of their encoder where it reads content."""
    if manifest.method != settings.tower.kind:
        return False
    return not settings.tower.reads_content or manifest.encoder_key == identify(settings.encoder).key
