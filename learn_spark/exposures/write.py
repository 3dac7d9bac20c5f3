"""The exposures stage: what was shown to whom and what came of it, in the table that ads rankers learn from.

The table is a function of its inputs and settings: a run that finds either changed writes it anew as a whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from learn_spark.exposures import from_interactions, from_journey, own_logs
from learn_spark.exposures.gathered import Gathered
from learn_spark.exposures.journey import journey_files
from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.settings.schema import Settings
from learn_spark.sources.deliveries import fingerprint
from learn_spark.sources.exposure_log import log_files
from learn_spark.sources.location import resolve
from learn_spark.tables.workspace import Workspace


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The files that exposures are made from, by names, sizes and times of change; none where interactions are."""
    chosen, where = settings.exposures, _where(settings)
    if chosen.origin == "interactions":
        return {}
    folder = resolve(where)
    if chosen.origin == "logs":
        files = [file for found in log_files(folder, chosen.logs) for file in found]
    else:
        files = journey_files(folder)
    return {f"files:{where}": fingerprint(files)}


def run(context: StageContext) -> StageResult:
    """Write the exposures that ``exposures.from`` names, and count where every row went."""
    place = context.folder("cache", "exposures", context.run_id)
    try:
        gathered = _gather(context, place)
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


def _where(settings: Settings) -> str:
    return settings.exposures.path or settings.source.path
