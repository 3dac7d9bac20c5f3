"""Scoring the test exposures a batch at a time: rows of ``ad_scores``, and the files that metrics are computed from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from learn_spark.ads.inputs.numbering import batches
from learn_spark.ads.inputs.rows import NUMBERS, OF_TEST, RowFiles
from learn_spark.ads.inputs.vectors import MASKED
from learn_spark.ads.rankers.evaluation import ArrayScores, MetricValue, ScoreSource, evaluate_rankers
from learn_spark.ads.rankers.input_files import input_file
from learn_spark.ads.rankers.score_files import OUTCOME, ScoreFiles
from learn_spark.ads.rankers.store import Ranker
from learn_spark.ads.rankers.streamed import StreamedScores
from learn_spark.core.settings.ads import RankingSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_parts
from learn_spark.features.ledger import LedgerRow

SCORED_ROWS = 1 << 16  # in memory at once
ARRAY_ROWS = 1 << 20  # of more, metrics are computed by passes over files


def write_scores(
    context: StageContext, rankers: Sequence[Ranker], files: RowFiles, vectors: np.ndarray, folder: Path
) -> tuple[ScoreFiles, dict[str, int]]:
    """Append the scores of the test rows of ``files`` to ``ad_scores`` in one commit, each with the release that it was
    made from.

    Returns (the scores in ``folder``, counts: without_release, users_known, items_known).
    """
    names = [(each.variant, each.seed) for each in rankers]
    scored = ScoreFiles(folder, names, files.test_users, files.test_items, files.test_requests > 0)
    counts = Counter({"without_release": 0, "users_known": 0, "items_known": 0})
    parts = _score_tables(context.run_id, rankers, files, vectors, scored, counts)
    append_parts(context.path("ad_scores"), contract("ad_scores"), parts)
    return scored, dict(counts)


def evaluate_files(scored: ScoreFiles, settings: RankingSettings) -> list[MetricValue]:
    """All metrics of the scores; of more than ARRAY_ROWS exposures by passes over files."""
    source: ScoreSource = ArrayScores(*scored.arrays()) if scored.rows <= ARRAY_ROWS else StreamedScores(scored)
    return evaluate_rankers(
        source, bins=settings.calibration_bins, samples=settings.bootstrap_samples, seed=settings.seeds[0]
    )


def _score_tables(
    run_id: str,
    rankers: Sequence[Ranker],
    files: RowFiles,
    vectors: np.ndarray,
    scored: ScoreFiles,
    counts: Counter[str],
) -> Iterator[pa.Table]:
    """The rows of ``ad_scores``, SCORED_ROWS at most at once."""
    ids = [ranker.ranker_id for ranker in rankers]
    test, start = input_file("test", files, vectors, scored.folder / "test"), 0
    for batch in batches(files.parts["test"], [*NUMBERS, *OF_TEST], SCORED_ROWS):
        inputs, shared = test.read(start, start + batch.num_rows), _shared_columns(batch, files.releases)
        start += batch.num_rows
        outcomes = np.empty(batch.num_rows, OUTCOME)
        for name in OUTCOME.names or ():
            outcomes[name] = batch[name]
        scored.append(outcomes)
        counts["without_release"] += int((np.asarray(batch["release"]) < 0).sum())
        counts["users_known"] += int((inputs.user != MASKED).sum())
        counts["items_known"] += int((inputs.item != MASKED).sum())
        for ranker, ranker_id in zip(rankers, ids, strict=True):
            scores = ranker.score(inputs)
            scored.append_scores((ranker.variant, ranker.seed), scores)
            yield _table(run_id, ranker, ranker_id, shared, scores)


def _shared_columns(batch: pa.RecordBatch, releases: Sequence[LedgerRow]) -> dict[str, pa.Array]:
    """The columns that do not depend on the ranker."""
    # An exposure before every release has the place -1, the null at the end.
    names = pa.array([*(row.release_id for row in releases), None], pa.string())
    as_of = pa.array([*(row.as_of for row in releases), None], pa.timestamp("us", "UTC"))
    place = pa.array(np.asarray(batch["release"]) % len(names))
    return {
        **{name: batch[name] for name in ("event_id", "user_id", "item_id", "label", "weight")},
        "event_time": batch["time"].cast(pa.timestamp("us", "UTC")),
        "release_id": names.take(place),
        "as_of": as_of.take(place),
    }


def _table(run_id: str, ranker: Ranker, ranker_id: str, shared: Mapping[str, pa.Array], scores: np.ndarray) -> pa.Table:
    schema = contract("ad_scores").arrow_schema()
    constants = {
        "run_id": run_id,
        "ranker_id": ranker_id,
        "variant": ranker.variant,
        "model": ranker.model,
        "seed": ranker.seed,
    }
    columns = {
        **{name: pa.repeat(value, len(scores)) for name, value in constants.items()},
        **shared,
        "score": pa.array(scores),
    }
    return pa.table([columns[name] for name in schema.names], names=schema.names).cast(schema)
