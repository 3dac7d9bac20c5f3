"""The exposures stage: what was shown to whom and what came of it, in the table that ads rankers learn from.

The table is a function of its inputs and settings: a run that finds either changed writes it anew as a whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from learn_spark.ads.exposures import from_interactions, from_journey, own_logs
from learn_spark.ads.exposures.gathered import Gathered
from learn_spark.ads.exposures.journey import journey_files
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
    """The files that exposures are made from, by names, sizes and times of change; none where interactions are."""
    files = _files(settings)
    return {f"files:{_where(settings)}": fingerprint(files)} if files else {}


def run(context: StageContext) -> StageResult:
    """Write the exposures that ``exposures.from`` names, and count where every row went.

    Raises UnreadableFileError where a file cannot be read to its end; then nothing was written.
    """
    place = context.folder("cache", "exposures", context.run_id)
    try:
        gathered = _gather(context, place)
    except LearnSparkError:
        raise
    except Exception as error:
        if broken := first_corrupt_file(_files(context.settings)):
            raise broken from error
        raise
    finally:
        shutil.rmtree(place, ignore_errors=True)
    gathered.check()
    others = {name: getattr(gathered, name) for name in ("duplicates", "outside", "not_sampled")}
    told = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in others.items() if count)
    return StageResult(
        rows_in=gathered.read,
        rows_out=gathered.written,
        refused=gathered.refused,
        counts=others,
        measures=gathered.measures,
        notes=(f"{gathered.written:,} of {gathered.read:,} rows{f' ({told})' if told else ''}", *gathered.notes),
    )


def _gather(context: StageContext, place: Path) -> Gathered:
    match context.settings.exposures.origin:
        case "interactions":
            return from_interactions.gather(context)
        case "logs":
            return own_logs.gather(context, resolve(_where(context.settings)), place)
        case "complete-journey":
            return from_journey.gather(context, resolve(_where(context.settings)), place)


def _files(settings: Settings) -> list[RawFile]:
    chosen = settings.exposures
    if chosen.origin == "interactions":
        return []
    folder = resolve(_where(settings))
    if chosen.origin == "complete-journey":
        return journey_files(folder)
    return [file for found in log_files(folder, chosen.logs) for file in found]


def _where(settings: Settings) -> str:
    return settings.exposures.path or settings.source.path
