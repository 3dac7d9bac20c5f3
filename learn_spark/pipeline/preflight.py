"""What can be checked before the first stage runs: templates, models, files and columns, without Spark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learn_spark.core.settings import Settings
from learn_spark.core.stages.context import session_of
from learn_spark.core.stages.stage import Stage
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.deliveries import new_files, reader_version
from learn_spark.data.sources.formats import source_of
from learn_spark.data.sources.headers import Incoming, check_columns, incoming
from learn_spark.data.sources.ingest import TABLES
from learn_spark.data.sources.location import source_folder
from learn_spark.data.text.templates import template
from learn_spark.encoder.identity import check_model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Delivery:
    """What ingest would read: new files of items and of events, and what is wrong with files that can be skipped."""

    items: Incoming
    events: Incoming
    notes: tuple[str, ...]


def check_settings(stages: Sequence[Stage], settings: Settings) -> None:
    """Raise SettingsError or EncoderError for a template or a model that a later stage would refuse."""
    if any("text" in stage.sections for stage in stages):
        template(settings.text.template)
    if any(stage.name == "embed_items" for stage in stages):
        check_model(settings.encoder)


def delivery(settings: Settings, workspace: Workspace, *, force: bool) -> Delivery:
    """Look at the files that ingest would read. Raises LocationError for missing files, and for a file that lacks a
    column or cannot be read, unless ``source.unreadable`` is skip."""
    source, folder = settings.source, source_folder(settings.source.path, settings.storage.s3())

    def session() -> SparkSession:
        return session_of(settings, workspace)

    notes = check_columns(source, folder, session)
    files = source_of(source, session).files(folder)
    if not force and all(current_version(workspace.table(table)) is not None for table in TABLES):
        files = new_files(files, workspace, reader_version(source), skipped_too=source.unreadable == "stop")
    return Delivery(incoming(files, "items", source), incoming(files, "events", source), tuple(notes))
