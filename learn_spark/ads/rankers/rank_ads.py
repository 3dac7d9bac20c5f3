"""The rank_ads stage: train ads rankers with and without released features, or score with saved ones, and evaluate.

Spark codes the exposures; this process reads them a window at a time, so that its memory does not grow with them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from learn_spark.ads.cohorts import COHORTS
from learn_spark.ads.inputs.counts import KEYS
from learn_spark.ads.inputs.rows import RowFiles, write_rows
from learn_spark.ads.inputs.shown import shown_exposures
from learn_spark.ads.inputs.split import Split, sizes_of, split_by_time
from learn_spark.ads.inputs.vocabulary import Hashed, Vocabulary, lookups_of, write_vocabularies
from learn_spark.ads.rankers.calibration import calibration_on
from learn_spark.ads.rankers.fit import best_check, shape_of, thresholds_of, train_network
from learn_spark.ads.rankers.input_files import input_file, vector_file
from learn_spark.ads.rankers.inputs import InputSource
from learn_spark.ads.rankers.outputs import show_metrics, write_metrics
from learn_spark.ads.rankers.score import evaluate_files, write_scores
from learn_spark.ads.rankers.store import (
    FOLDER,
    VOCABULARIES,
    WITH_FEATURES,
    Ranker,
    RankerError,
    Rankings,
    load_rankings,
    save_rankings,
    saved_by,
)
from learn_spark.ads.rankers.trees import train_trees
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.ads import RankingSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import check_columns
from learn_spark.core.times import as_micros, from_micros

TREES = "trees"
FEATURE_SETTINGS = ("inputs", "nearest_events", "outcome_lag_hours")


@dataclass(frozen=True)
class ScoringTask:
    """Which ``rankers`` score the test rows of ``files``, with their ``vectors``.

    ``counts`` divide all rows of the table into train, validation, test and not_ranked; ``note`` is a sentence with
    them. ``digest`` is the hash of the rankings saved by this run; None in mode score.
    """

    rankers: Sequence[Ranker]
    files: RowFiles
    vectors: np.ndarray
    counts: Mapping[str, int]
    digest: str | None
    note: str


def run(context: StageContext) -> StageResult:
    """Score the exposures: scores go to ``ad_scores``, metrics to ``ad_metrics`` and rankings/<run_id>/metrics.json.

    Mode train: every variant is trained with every seed on the earliest exposures, stopped early by the next ones,
    scores the last, and is saved. Mode score: saved rankers score the exposures from where their test began, or from
    ranking.since on.

    Raises LearnSparkError if the rows of ``exposures`` are not all accounted for, and RankerError if saved rankers do
    not fit the exposures.
    """
    for table in ("ad_scores", "ad_metrics"):
        check_columns(context.path(table), contract(table))  # before the work, not after it
    if (threads := context.settings.ranking.threads) is not None:
        torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory(dir=context.folder("cache", "rank_ads")) as name:
            folder = Path(name)
            task = _train(context, folder) if context.settings.ranking.mode == "train" else _load(context, folder)
            return _score(context, task, folder)
    finally:
        context.staging.remove()


def _train(context: StageContext, folder: Path) -> ScoringTask:
    settings, small = context.settings.ranking, context.snapshot("exposures").is_small
    lag_hours = settings.outcome_lag_hours if settings.counts else None
    shown = shown_exposures(context.read("exposures"), _name(context), settings.context, lag_hours=lag_hours)
    split = split_by_time(shown.frame, shown.rows, shown.first, shown.last, settings)
    sizes = sizes_of(shown.frame, shown.rows, split)
    parts = split.conditions()
    vocabularies: dict[str, Vocabulary]
    if settings.ids == "hashed":
        vocabularies = {name: Hashed(settings.buckets) for name in shown.fields}
    else:
        path = context.staging / "values"
        vocabularies = {**lookups_of(shown, parts["train"], settings.min_count, path, small=small)}
    vocabulary_file = context.staging / VOCABULARIES
    write_vocabularies(vocabularies, vocabulary_file)
    with_features = _any_reads_features(settings.variants)
    context.console.at("joining the inputs of the exposures")
    files = write_rows(
        shown,
        parts,
        vocabularies,
        vocabulary_file,
        context.read("interactions"),
        context.workspace,
        context.staging,
        settings,
        with_features=with_features,
        small=small,
    )
    vectors = vector_file(files.vectors, folder / "vectors")
    train, validation = (input_file(part, files, vectors, folder / part) for part in ("train", "validation"))
    rankers = [
        _calibrated(context, _fit(context, variant, seed, train, validation, vocabularies), validation)
        for variant in settings.variants
        for seed in settings.seeds
    ]
    # check_releases refuses releases of more than one tower.
    model_id = files.model_ids[0] if with_features else None
    buckets = settings.buckets if settings.ids == "hashed" else None
    features = {name: getattr(settings, name) for name in FEATURE_SETTINGS}
    rankings = Rankings(rankers, vocabularies, settings.context, buckets, split, model_id, lag_hours, features)
    digest = save_rankings(context.workspace, context.run_id, rankings, context.settings)
    counts = {**sizes, "not_ranked": shown.others}
    note = (
        f"{counts['train']:,} exposures to train on, {counts['validation']:,} to stop by, {counts['test']:,} to test "
        f"(from {from_micros(split.test_from):%Y-%m-%d %H:%M:%S} on); {shown.others:,} rows were not shown (weight 0)"
    )
    return ScoringTask(rankers, files, vectors, counts, digest, note)


def _load(context: StageContext, folder: Path) -> ScoringTask:
    settings, small = context.settings.ranking, context.snapshot("exposures").is_small
    run_id, _ = saved_by(context.workspace, settings.ranker)
    rankings = load_rankings(context.workspace, run_id, settings.variants, settings.seeds)
    since = _since(settings, rankings.split)
    shown = shown_exposures(context.read("exposures"), _name(context), rankings.context, since, rankings.lag_hours)
    with_features = any(ranker.reads_features for ranker in rankings.rankers)
    context.console.at("joining the inputs of the exposures")
    files = write_rows(
        shown,
        {"test": Split(since, since).conditions()["test"]},
        rankings.vocabularies,
        context.workspace.place / FOLDER / run_id / VOCABULARIES,
        context.read("interactions"),
        context.workspace,
        context.staging,
        settings.model_copy(update=dict(rankings.features)),
        with_features=with_features,
        small=small,
    )
    if with_features and (others := set(files.model_ids) - {rankings.model_id}):
        raise RankerError(
            f"rank_ads: the rankers of {run_id} read vectors of the tower {rankings.model_id}, but the exposures have "
            f"vectors of {', '.join(sorted(others))}, which are in another space: train rankers on these "
            "(ranking.mode: train)"
        )
    counts = {"train": 0, "validation": 0, "test": shown.rows, "not_ranked": shown.others}
    note = (
        f"the {len(rankings.rankers)} rankers of {run_id} scored {shown.rows:,} exposures from "
        f"{from_micros(since):%Y-%m-%d %H:%M:%S} on; {shown.others:,} rows are earlier or were not shown (weight 0)"
    )
    return ScoringTask(rankings.rankers, files, vector_file(files.vectors, folder / "vectors"), counts, None, note)


def _name(context: StageContext) -> str:
    return f"{context.path('exposures')} @ {context.inputs['exposures']}"


def _since(settings: RankingSettings, split: Split) -> int:
    since = split.test_from if settings.since is None else as_micros(settings.since)
    if since < split.test_from:
        raise RankerError(
            f"rank_ads: ranking.since {settings.since} is before {from_micros(split.test_from):%Y-%m-%d %H:%M:%S} UTC, "
            "where the rankers' test began: they were trained on exposures from before it"
        )
    return since


def _any_reads_features(variants: Sequence[str]) -> bool:
    return not WITH_FEATURES.isdisjoint(variants)


def _fit(
    context: StageContext,
    variant: str,
    seed: int,
    train: InputSource,
    validation: InputSource,
    vocabularies: Mapping[str, Vocabulary],
) -> Ranker:
    settings = context.settings.ranking
    label = f"{variant}, seed {seed}"
    if variant.startswith("gbdt"):
        with context.console.bar(label, settings.trees.rounds, "rounds") as bar:
            trees, rounds = train_trees(variant, train, validation, settings, seed, bar)
        context.console.say(f"{label}: {rounds} rounds chosen by validation")
        return Ranker(variant, TREES, seed, {"rounds": rounds}, trees=trees)
    shape = shape_of(variant, [v.size for v in vocabularies.values()], train.vectors.shape[1], settings)
    with context.console.bar(label, settings.epochs * len(train), "exposures") as bar:
        network, checks = train_network(shape, train, validation, settings, seed, bar)
    best = best_check(checks)
    context.console.say(
        f"{label}: step {best.step:,} of {checks[-1].step:,}, log loss {best.calibrated:.5f} on validation"
    )
    training = {"best_step": best.step, "checks": [asdict(check) for check in checks]}
    return Ranker(variant, shape.model, seed, training, network=network)


def _calibrated(context: StageContext, ranker: Ranker, validation: InputSource) -> Ranker:
    if not context.settings.ranking.calibrate:
        return ranker
    calibration = calibration_on(ranker.logits, validation, thresholds_of(context.settings.ranking))
    context.console.say(
        f"{ranker.variant}, seed {ranker.seed}: calibrated by the slope {calibration.slope:.3f} and the bias "
        f"{calibration.bias:+.3f}"
        + "".join(
            f"; {kind}s " + ", ".join(f"{name} {offset:+.3f}" for name, offset in zip(COHORTS, offsets, strict=True))
            for kind, offsets in zip(KEYS, calibration.offsets, strict=False)
        )
    )
    return replace(ranker, calibration=calibration)


def _score(context: StageContext, task: ScoringTask, folder: Path) -> StageResult:
    """Score the task's exposures, evaluate the scores, and write both."""
    table_rows, settings = context.snapshot("exposures").rows, context.settings.ranking
    if (accounted := sum(task.counts.values())) != table_rows:
        raise LearnSparkError(
            f"rank_ads: exposures has {table_rows:,} rows, {accounted:,} are accounted for ({dict(task.counts)})"
        )
    scored, known = write_scores(context, task.rankers, task.files, task.vectors, folder)
    if scored.rows != task.counts["test"]:
        raise LearnSparkError(f"rank_ads: {scored.rows:,} exposures were scored, the test has {task.counts['test']:,}")
    context.console.at("computing metrics and their intervals")
    values = evaluate_files(scored, settings)
    # Last: rows of ad_scores without rows here are those of a killed run.
    write_metrics(context, {ranker.variant: ranker.model for ranker in task.rankers}, values)
    show_metrics(context.console, values)
    counts = {**task.counts, **known}
    coverage = (
        f"of {scored.rows:,} test exposures {counts['without_release']:,} are from before every release; "
        f"{counts['users_known']:,} have a user vector, {counts['items_known']:,} an item vector"
    )
    with_features = any(ranker.reads_features for ranker in task.rankers)
    return StageResult(
        rows_in=table_rows,
        rows_out=len(task.rankers) * scored.rows,
        counts=counts,
        outputs={} if task.digest is None else {f"{FOLDER}/{context.run_id}": task.digest},
        notes=(task.note, coverage) if with_features else (task.note,),
    )
