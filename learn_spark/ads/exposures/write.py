"""The exposures stage: who was shown what and with which outcome, in the table that ads rankers are trained on.

The table is a function of its inputs and settings: a run rewrites the whole table if either changed.
"""

from __future__ import annotations

from learn_spark.ads.exposures import from_interactions, from_journey, from_logs
from learn_spark.ads.exposures.journey import journey_files
from learn_spark.ads.exposures.result import ExposuresResult
from learn_spark.core.settings.ads import (
    JourneyExposuresSettings,
    LogExposuresSettings,
    exposures_path,
)
from learn_spark.core.settings.schema import Settings
from learn_spark.core.stages.context import StageContext, session_of
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.corrupt_files import naming_corrupt_files
from learn_spark.data.sources.deliveries import fingerprint
from learn_spark.data.sources.delta_tables import Session
from learn_spark.data.sources.exposure_log import log_files
from learn_spark.data.sources.location import source_folder
from learn_spark.data.sources.source import RawFile


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """A hash of the files' names and states; empty for exposures from interactions."""
    files = _files(settings, lambda: session_of(settings, workspace))
    return {f"files:{_location(settings)}": fingerprint(files)} if files else {}


def run(context: StageContext) -> StageResult:
    """Write the exposures that ``exposures.from`` names; every row read is accounted for in the counts.

    Raises UnreadableFileError if a file cannot be read to its end; nothing is written then. Logs with
    ``unreadable: skip`` are read without it.
    """
    scratch = context.staging
    try:
        with naming_corrupt_files(_files(context.settings, lambda: context.spark)):
            result = _make(context, scratch)
    finally:
        scratch.remove()
    result.check()
    others = {name: getattr(result, name) for name in ("duplicates", "outside", "not_sampled", "erased")}
    others_text = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in others.items() if count)
    return StageResult(
        rows_in=result.read,
        rows_out=result.written,
        refused=result.refused,
        counts={**others, "fields_nulled": result.nulled, "files_skipped": result.files_skipped, **result.of_written},
        measures=result.measures,
        notes=(
            f"{result.written:,} of {result.read:,} rows{f' ({others_text})' if others_text else ''}",
            *result.notes,
        ),
    )


def _make(context: StageContext, scratch: StoragePath) -> ExposuresResult:
    folder = _folder(context.settings)
    match context.settings.exposures:
        case LogExposuresSettings() as settings:
            return from_logs.make_exposures(context, settings, folder, scratch)
        case JourneyExposuresSettings() as settings:
            return from_journey.make_exposures(context, settings, folder, scratch)
        case settings:
            return from_interactions.make_exposures(context, settings, scratch)


def _files(settings: Settings, session: Session) -> list[RawFile]:
    match settings.exposures:
        case LogExposuresSettings(logs=logs):
            return [file for files in log_files(_folder(settings), logs, session) for file in files]
        case JourneyExposuresSettings():
            return journey_files(_folder(settings))
        case _:
            return []


def _folder(settings: Settings) -> StoragePath:
    return source_folder(_location(settings), settings.storage.s3())


def _location(settings: Settings) -> str:
    """The folder of the exposures' files, as the settings name it."""
    return exposures_path(settings.exposures) or settings.source.path
