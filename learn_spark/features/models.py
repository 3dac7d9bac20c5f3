"""The model that computes features: the one that the settings name, or the newest one of the settings."""

from __future__ import annotations

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.times import as_micros
from learn_spark.encoder.identity import identify
from learn_spark.model.manifest import ModelManifest
from learn_spark.model.trained import trained_models


def usable_model(settings: Settings, workspace: Workspace, first: str | None = None) -> str:
    """Id of ``release.model``, or of ``first`` or else the newest trained model of the settings' tower and encoder.

    With ``histories.as_of`` the model must be trained as of that time or earlier, so that no later event is in the
    features; without it, on all events. Raises LearnSparkError if no model fits, or if ``release.model`` is unknown or
    does not fit.
    """
    trained = {model.model_id: model.manifest for model in trained_models(workspace)}
    if not trained:
        raise LearnSparkError("there is no trained model yet; learn-spark train makes one")
    if settings.release.model is not None:
        if settings.release.model not in trained:
            raise LearnSparkError(
                f"release.model: there is no trained model {settings.release.model!r}; the newest are "
                f"{', '.join(list(trained)[:3])} (learn-spark models lists all)"
            )
        trained = {settings.release.model: trained[settings.release.model]}
    elif first in trained:
        trained = {first: trained[first], **trained}
    fitting = {model: manifest for model, manifest in trained.items() if _is_of(manifest, settings)}
    if not fitting and settings.release.model is not None:
        raise LearnSparkError(
            f"release.model: the {trained[settings.release.model].method} model {settings.release.model} does not fit "
            f"these settings, which name a {settings.tower.kind} tower over {settings.encoder.model}"
        )
    if not fitting:
        others = ", ".join(dict.fromkeys(manifest.method for manifest in trained.values()))
        raise LearnSparkError(
            f"this workspace has no {settings.tower.kind} model over {settings.encoder.model} (methods of its models: "
            f"{others}); learn-spark train with these settings makes one"
        )
    as_of = settings.histories.as_of_micros()
    for model, manifest in fitting.items():
        trained_as_of = None if manifest.as_of is None else as_micros(manifest.as_of)
        if as_of is None and trained_as_of is None:
            return model
        if as_of is not None and trained_as_of is not None and trained_as_of <= as_of:
            return model
    if as_of is None:
        raise LearnSparkError("no model was trained on all events: learn-spark train without histories.as_of makes one")
    time = settings.histories.as_of
    raise LearnSparkError(
        f"no model was trained as of {time} or earlier: learn-spark train --set histories.as_of={time} makes one"
    )


def _is_of(manifest: ModelManifest, settings: Settings) -> bool:
    """Whether the model has the settings' kind of tower and, if it reads content, their encoder."""
    if manifest.method != settings.tower.kind:
        return False
    return not settings.tower.reads_content or manifest.encoder_key == identify(settings.encoder).key
