"""The exposures stage: who was shown what and with which outcome, in the table that ads rankers are trained on.

The table is a function of its inputs and settings: a run rewrites the whole table if either changed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from learn_spark.ads.exposures import from_interactions, from_journey, from_logs
from learn_spark.ads.exposures.journey import journey_files
from learn_spark.ads.exposures.result import ExposuresResult
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.schema import Settings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.corrupt_files import first_corrupt_file
from learn_spark.data.sources.deliveries import fingerprint
from learn_spark.data.sources.exposure_log import log_files
from learn_spark.data.sources.location import resolve
from learn_spark.data.sources.source import RawFile


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """A hash of the files' names, sizes and times of change; empty for exposures from interactions."""
    files = _files(settings)
    return {f"files:{_location(settings)}": fingerprint(files)} if files else {}


def run(context: StageContext) -> StageResult:
    """Write the exposures that ``exposures.from`` names; every row read is accounted for in the counts.

    Raises UnreadableFile if a file cannot be read to its end; nothing is written then.
    """
    scratch = context.folder("cache", "exposures", context.run_id)
    try:
        result = _make(context, scratch)
    except LearnSparkError:
        raise
    except Exception as error:
        if broken := first_corrupt_file(_files(context.settings)):
            raise broken from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    result.check()
    others = {name: getattr(result, name) for name in ("duplicates", "outside", "not_sampled")}
    others_text = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in others.items() if count)
    return StageResult(
        rows_in=result.read,
        rows_out=result.written,
        refused=result.refused,
        counts=others,
        measures=result.measures,
        notes=(
            f"{result.written:,} of {result.read:,} rows{f' ({others_text})' if others_text else ''}",
            *result.notes,
        ),
    )


def _make(context: StageContext, scratch: Path) -> ExposuresResult:
    match context.settings.exposures.origin:
        case "interactions":
            return from_interactions.make_exposures(context)
        case "logs":
            return from_logs.make_exposures(context, resolve(_location(context.settings)), scratch)
        case "complete-journey":
            return from_journey.make_exposures(context, resolve(_location(context.settings)), scratch)


def _files(settings: Settings) -> list[RawFile]:
    exposures = settings.exposures
    if exposures.origin == "interactions":
        return []
    folder = resolve(_location(settings))
    if exposures.origin == "complete-journey":
        return journey_files(folder)
    return [file for files in log_files(folder, exposures.logs) for file in files]


def _location(settings: Settings) -> str:
    return settings.exposures.path or settings.source.path
