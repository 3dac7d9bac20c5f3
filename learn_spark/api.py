"""The public Python interface: open a workspace, run stages, recommend, read features, encode texts.

>>> import learn_spark as ls
>>> ws = ls.open("shop.yaml")  # doctest: +SKIP
>>> ws.run(["ingest", "item_text"])  # doctest: +SKIP
>>> ws.recommend("customer-17", k=10)  # doctest: +SKIP

The import loads no heavy library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_spark.core.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from learn_spark.core.settings import Settings
    from learn_spark.core.storage.path import StoragePath
    from learn_spark.core.tables.workspace import Workspace
    from learn_spark.features.export.served import ExportedTower
    from learn_spark.features.new_items import NewItems
    from learn_spark.features.online_store.reader import OnlineFeatures
    from learn_spark.features.point_in_time import Clock
    from learn_spark.features.read import FeatureTable
    from learn_spark.pipeline.models import TrainedModel
    from learn_spark.pipeline.runner import Outcome
    from learn_spark.report.explain import Recommendation


@dataclass(frozen=True)
class OpenWorkspace:
    """An open workspace: its folder and the settings of its stages."""

    workspace: Workspace
    config: Path
    overrides: tuple[str, ...] = ()

    @property
    def settings(self) -> Settings:
        """The settings of the file, with the overrides."""
        from learn_spark.core.settings import load_settings

        return load_settings(self.config, [*self.overrides, f"workspace={self.workspace.place}"])

    def run(self, stages: Sequence[str] | None = None, *, force: bool = False, quiet: bool = False) -> list[Outcome]:
        """Run stages, by default all of ``pipeline.stages``; returns one outcome per stage, with its counts.

        A stage that is up to date is skipped unless ``force``. Raises GateError if a quality gate fails, and
        LearnSparkError as the stages do.
        """
        from learn_spark.core.console import Reporter
        from learn_spark.pipeline.runner import run_stages

        settings = self.settings
        chosen = settings.pipeline.stages if stages is None else list(stages)
        return run_stages(chosen, settings, console=Reporter(quiet=quiet), force=force)

    def recommend(self, user: str, k: int = 10, *, as_of: datetime | None = None) -> list[Recommendation]:
        """The ``k`` unseen items with the highest scores for a user, best first: item_id, title, score, and the most
        similar items of the user's history. From the release in force, or the newest one as of ``as_of``.

        Raises NoReleaseError, and LearnSparkError if the release has no such user.
        """
        from learn_spark.report.explain import explain

        return list(explain(self.workspace, user, k=k, as_of=as_of).recommendations)

    def features(
        self, table: FeatureTable = "user_features", release: str = "latest", *, as_of: datetime | None = None
    ) -> pa.Table:
        """The rows of ``user_features`` or ``item_features`` in the release in force, in a named release, or as of a
        time. Raises NoReleaseError if there is none.
        """
        from learn_spark.features.read import released_arrow

        return released_arrow(self.workspace, table, release, as_of=as_of)

    def features_at(self, events: pa.Table, *, clock: Clock = "published") -> pa.Table:
        """``events`` (columns user_id, item_id, event_time and any others), each with the release_id, user_embedding
        and item_embedding that were served at its time; null where there were none.

        With the clock ``as_of``, the release with the latest as-of time at or before it: for logs of a time without
        releases. Raises LearnSparkError for a missing column, and for events whose release is deleted.
        """
        from learn_spark.features.point_in_time_arrow import features_at_arrow

        return features_at_arrow(self.workspace, events, clock=clock)

    def changes(self, table: FeatureTable, since: str, *, until: str = "latest") -> pa.Table:
        """What a store that has loaded the release ``since`` must change to have ``until``: rows of the table with a
        column ``change`` (insert, update, delete). Raises NoReleaseError, and LearnSparkError for a release that
        expired.
        """
        from learn_spark.features.change_feed_arrow import changes_arrow

        return changes_arrow(self.workspace, table, since, until=until)

    def online(self, store: str | None = None) -> OnlineFeatures:
        """The online store at a URL, by default ``online.store`` of the settings, in their namespace: its ``vectors``
        of users and items are those of one release, in one round trip.

        Raises SettingsError if there is no address, or an unknown one; MissingPartError for Redis without the extra
        ``online``.
        """
        from learn_spark.features.online_store.address import chosen_store
        from learn_spark.features.online_store.reader import OnlineFeatures

        return OnlineFeatures(chosen_store(self.settings.online, store))

    def vector_of_text(self, text: str | Mapping[str, str | None], *, release: str = "latest") -> np.ndarray:
        """The item vector [D] float32 of an item that is newer than the release, by its text: the prompt, or a mapping
        of item columns (title, category, ...) to texts. For many texts, ``new_items`` loads the LLM once.

        Raises NoReleaseError, EncoderError, and LearnSparkError if the released model knows items by IDs alone.
        """
        vector: np.ndarray = self.new_items(release=release).vectors([text])[0]
        return vector

    def new_items(self, *, release: str = "latest") -> NewItems:
        """The LLM and the item side of a release's model, loaded: ``vectors(texts)``, and ``content(texts)`` for an
        exported user tower. Errors as of ``vector_of_text``.
        """
        from learn_spark.features.new_items import NewItems

        return NewItems(self.workspace, self.settings, release)

    def models(self) -> list[TrainedModel]:
        """The trained models, newest first."""
        from learn_spark.pipeline.models import list_models

        return list_models(self.workspace)


def open(where: str | Path, overrides: Sequence[str] = (), *, spark: SparkSession | None = None) -> OpenWorkspace:
    """Open a workspace by its settings file (a path, or a name in conf/), by its folder or address, or by name.

    A folder or address (s3://bucket/shop) is opened with the settings of its newest run. ``overrides``: ``key=value``
    settings that override the file; storage.endpoint among them is used to reach the address. ``spark``: a session
    whose catalog has the tables; ``where`` is their schema then (spark_catalog.learn).

    Raises SettingsError for wrong settings, and for a folder in which no stage has run; CatalogError for a schema
    without tables of a workspace.
    """
    from learn_spark.core.settings import load_settings
    from learn_spark.core.settings.load import find_config
    from learn_spark.core.settings.platform import StorageSettings
    from learn_spark.core.storage.path import StoragePath
    from learn_spark.core.tables.runs import run_order
    from learn_spark.core.tables.workspace import Workspace

    if spark is not None:
        from learn_spark.core.tables.catalog import workspace_named

        workspace, _ = workspace_named(spark, f"{where}.runs")
    elif (place := StoragePath(str(where))).is_local and not Path(where).expanduser().is_dir():
        config = find_config(str(where))
        settings = load_settings(config, overrides)
        return OpenWorkspace(Workspace.open(settings.place, settings.scratch), config, tuple(overrides))
    else:
        given = [one.removeprefix("storage.").split("=", 1) for one in overrides if one.startswith("storage.")]
        storage = StorageSettings.model_validate(dict(given), strict=False)
        workspace = Workspace.existing(StoragePath(place, storage.s3()))
    saved = {path.parent.name: path for path in _settings_of_runs(workspace)}
    if not saved:
        raise SettingsError(
            f"{workspace.place} has no settings of a run, because no stage has run in it; open a settings file instead"
        )
    places = run_order(workspace)
    newest = max(saved, key=lambda run: (places.get(run, -1), run))
    if workspace.place.is_local:
        return OpenWorkspace(workspace, saved[newest].local, tuple(overrides))
    # Settings are read from a file of this machine.
    copy = workspace.folder("cache", "settings") / f"{newest}.yaml"
    copy.write_text(saved[newest].read_text(), encoding="utf-8")
    return OpenWorkspace(workspace, copy, tuple(overrides))


def _settings_of_runs(workspace: Workspace) -> list[StoragePath]:
    """The saved settings of all runs of a workspace."""
    if not workspace.place.is_local:
        # One request, and not one a run.
        return [one.path for one in (workspace.place / "runs").files() if one.path.name == "settings.yaml"]
    return [run / "settings.yaml" for run in (workspace.place / "runs").children() if (run / "settings.yaml").is_file()]


def user_tower(folder: str | Path, *, threads: int = 1) -> ExportedTower:
    """The user tower that ``learn-spark export --format onnx`` wrote into ``folder``: ``vectors(histories)`` of item
    ids. It needs onnxruntime, and neither a workspace nor torch. Raises ExportError for a damaged folder.
    """
    from learn_spark.features.export.served import ExportedTower

    return ExportedTower(folder, threads=threads)


def encode(texts: Sequence[str], model: str, **settings: Any) -> np.ndarray:
    """Vectors [n, hidden] float32 of ``texts`` by a frozen LLM: a folder with safetensors, a GGUF file or a hub name.

    ``settings``: those of the section ``encoder`` (pooling, max_tokens, precision, ...). The row of a text without a
    usable vector is NaN. Raises EncoderError if the model cannot be loaded.
    """
    from learn_spark.core.settings.encoder import EncoderSettings
    from learn_spark.encoder.api import encode as encode_texts

    return encode_texts(texts, EncoderSettings(model=model, **settings))
