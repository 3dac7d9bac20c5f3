"""The rank_ads stage: train ads rankers with and without released features, or score with saved ones, and evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from learn_spark.ads.rankers.cohorts import cohorts_of
from learn_spark.ads.rankers.evaluation import Outcomes, evaluate_rankers
from learn_spark.ads.rankers.exposures import COLUMN_FIELDS, Exposures, Split, read_exposures, split_by_time
from learn_spark.ads.rankers.features import Features, features_of
from learn_spark.ads.rankers.fit import best_epoch, shape_of, train_network
from learn_spark.ads.rankers.inputs import Inputs, inputs_of
from learn_spark.ads.rankers.outputs import show_metrics, write_metrics, write_scores
from learn_spark.ads.rankers.store import (
    FOLDER,
    WITH_FEATURES,
    Ranker,
    RankerError,
    Rankings,
    load_rankings,
    save_rankings,
    saved_by,
)
from learn_spark.ads.rankers.trees import train_trees
from learn_spark.ads.rankers.vocabulary import Hashed, Lookup, Vocabulary
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.ads import RankingSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import check_columns
from learn_spark.core.times import as_micros, from_micros

TREES = "trees"


@dataclass(frozen=True)
class ScoringTask:
    """Which ``rankers`` score which ``exposures`` [n], with their ``features`` and ``inputs``.

    ``counts`` divide all ``table_rows`` rows of the table into train, validation, test and not_ranked; ``note`` is a
    sentence with them. ``digest`` is the hash of the rankings saved by this run; None in mode score.
    """

    rankers: Sequence[Ranker]
    exposures: Exposures
    features: Features
    inputs: Inputs
    table_rows: int
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
    task = _train(context) if context.settings.ranking.mode == "train" else _load(context)
    return _score(context, task)


def _train(context: StageContext) -> ScoringTask:
    settings, snapshot = context.settings.ranking, context.snapshot("exposures")
    exposures, not_ranked = read_exposures(snapshot, settings.context)
    split = split_by_time(exposures.time, settings)
    masks = split.masks(exposures.time)
    with_features = _any_reads_features(settings.variants)
    features = features_of(context.workspace, exposures, settings.clock, needed=with_features)
    train = exposures.take(masks["train"])
    vocabularies = {name: _vocabulary(train, name, settings) for name in (*COLUMN_FIELDS, *settings.context)}
    inputs = inputs_of(exposures, features, vocabularies)
    parts = {name: inputs.take(mask) for name, mask in masks.items()}
    rankers = [
        _fit(context, variant, seed, parts["train"], parts["validation"], vocabularies)
        for variant in settings.variants
        for seed in settings.seeds
    ]
    # features_of refuses releases of more than one tower.
    model_id = features.model_ids[0] if with_features else None
    buckets = settings.buckets if settings.ids == "hashed" else None
    rankings = Rankings(rankers, vocabularies, settings.context, buckets, split, model_id)
    digest = save_rankings(context.workspace, context.run_id, rankings, context.settings)
    counts = {name: int(mask.sum()) for name, mask in masks.items()} | {"not_ranked": not_ranked}
    note = (
        f"{counts['train']:,} exposures to train on, {counts['validation']:,} to stop by, {counts['test']:,} to test "
        f"(from {from_micros(split.test_from):%Y-%m-%d %H:%M:%S} on); {not_ranked:,} rows were not shown (weight 0)"
    )
    test = masks["test"]
    return ScoringTask(
        rankers, exposures.take(test), features.take(test), parts["test"], snapshot.rows, counts, digest, note
    )


def _load(context: StageContext) -> ScoringTask:
    settings, snapshot = context.settings.ranking, context.snapshot("exposures")
    run_id, _ = saved_by(context.workspace, settings.ranker)
    rankings = load_rankings(context.workspace, run_id, settings.variants, settings.seeds)
    since = _since(settings, rankings.split)
    exposures, not_ranked = read_exposures(snapshot, rankings.context, since)
    with_features = any(ranker.reads_features for ranker in rankings.rankers)
    features = features_of(context.workspace, exposures, settings.clock, needed=with_features)
    if with_features and (others := set(features.model_ids) - {rankings.model_id}):
        raise RankerError(
            f"rank_ads: the rankers of {run_id} read vectors of the tower {rankings.model_id}, but the exposures have "
            f"vectors of {', '.join(sorted(others))}, which are in another space: train rankers on these "
            "(ranking.mode: train)"
        )
    counts = {"train": 0, "validation": 0, "test": len(exposures), "not_ranked": not_ranked}
    note = (
        f"the {len(rankings.rankers)} rankers of {run_id} scored {len(exposures):,} exposures from "
        f"{from_micros(since):%Y-%m-%d %H:%M:%S} on; {not_ranked:,} rows are earlier or were not shown (weight 0)"
    )
    inputs = inputs_of(exposures, features, rankings.vocabularies)
    return ScoringTask(rankings.rankers, exposures, features, inputs, snapshot.rows, counts, None, note)


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


def _vocabulary(train: Exposures, name: str, settings: RankingSettings) -> Vocabulary:
    if settings.ids == "hashed":
        return Hashed(settings.buckets)
    return Lookup.of(train.fields[name], settings.min_count)


def _fit(
    context: StageContext,
    variant: str,
    seed: int,
    train: Inputs,
    validation: Inputs,
    vocabularies: Mapping[str, Vocabulary],
) -> Ranker:
    settings = context.settings.ranking
    label = f"{variant}, seed {seed}"
    if variant.startswith("gbdt"):
        with context.console.bar(label, settings.trees.rounds, "rounds") as bar:
            text, rounds = train_trees(variant, train, validation, settings, seed, bar)
        context.console.say(f"{label}: {rounds} rounds chosen by validation")
        return Ranker(variant, TREES, seed, {"rounds": rounds}, trees=text)
    shape = shape_of(variant, [v.size for v in vocabularies.values()], train.vectors.shape[1], settings)
    with context.console.bar(label, settings.epochs * len(train), "exposures") as bar:
        network, epochs = train_network(shape, train, validation, settings, seed, bar)
    best = best_epoch(epochs)
    context.console.say(
        f"{label}: epoch {best} of {len(epochs)}, log loss {epochs[best - 1].validation:.5f} on validation"
    )
    training = {"best_epoch": best, "epochs": [asdict(epoch) for epoch in epochs]}
    return Ranker(variant, shape.model, seed, training, network=network)


def _score(context: StageContext, task: ScoringTask) -> StageResult:
    """Score the task's exposures, evaluate the scores, and write both."""
    if (accounted := sum(task.counts.values())) != task.table_rows:
        raise LearnSparkError(
            f"rank_ads: exposures has {task.table_rows:,} rows, {accounted:,} are accounted for ({dict(task.counts)})"
        )
    settings, test, features = context.settings.ranking, task.exposures, task.features
    cohorts = cohorts_of(context.snapshot("interactions"), test, features, settings.cohorts)
    scores: dict[tuple[str, int], np.ndarray] = {}
    for ranker in task.rankers:
        scores[ranker.variant, ranker.seed] = ranker.score(task.inputs)
        write_scores(context, ranker, test, features, scores[ranker.variant, ranker.seed])
    users, items = (test.fields[name].codes for name in ("user_id", "item_id"))
    values = evaluate_rankers(
        scores,
        Outcomes(test.label, test.weight, users, items, cohorts),
        bins=settings.calibration_bins,
        samples=settings.bootstrap_samples,
        seed=settings.seeds[0],
    )
    # Last: rows of ad_scores without rows here are those of a killed run.
    write_metrics(context, {ranker.variant: ranker.model for ranker in task.rankers}, values)
    show_metrics(context.console, values)
    counts = {
        **task.counts,
        "without_release": int((features.release < 0).sum()),
        "users_known": int((features.user > 0).sum()),
        "items_known": int((features.item > 0).sum()),
    }
    coverage = (
        f"of {len(test):,} test exposures {counts['without_release']:,} are from before every release; "
        f"{counts['users_known']:,} have a user vector, {counts['items_known']:,} an item vector"
    )
    with_features = any(ranker.reads_features for ranker in task.rankers)
    return StageResult(
        rows_in=task.table_rows,
        rows_out=len(task.rankers) * len(test),
        counts=counts,
        outputs={} if task.digest is None else {f"{FOLDER}/{context.run_id}": task.digest},
        notes=(task.note, coverage) if with_features else (task.note,),
    )
