"""The rank_ads stage: train ads rankers with and without released features, or score with saved ones; judge them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import torch

from learn_spark.ads.rankers.cohorts import cohorts_of
from learn_spark.ads.rankers.exposures import OWN_FIELDS, Exposures, Split, read_exposures, split_by_time
from learn_spark.ads.rankers.features import Features, features_of
from learn_spark.ads.rankers.fit import best_epoch, shape_of, train_network
from learn_spark.ads.rankers.inputs import Inputs, inputs_of
from learn_spark.ads.rankers.judge import COMPARED, METRICS, WHOLE, Figure, Outcomes, judge
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
from learn_spark.core.settings import Settings
from learn_spark.core.settings.ads import RankingSettings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows, append_table, check_columns
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.times import as_micros, from_micros

TREES = "trees"
WRITTEN_ROWS = 1 << 18


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """In mode score the saved rankers that it scores with."""
    if settings.ranking.mode == "train":
        return {}
    run_id, digest = saved_by(workspace, settings.ranking.ranker)
    return {f"{FOLDER}/{run_id}": digest}


def run(context: StageContext) -> StageResult:
    """Rank the exposures: scores go to ``ad_scores``, figures to ``ad_metrics`` and rankings/<run_id>/metrics.json.

    Mode train: every variant with every seed learns on the earlier exposures, is stopped by the next, scores the last,
    and is saved. Mode score: saved rankers score the exposures from where their test began, or from ranking.since on.
    """
    for table in ("ad_scores", "ad_metrics"):
        check_columns(context.path(table), contract(table))  # now, not after the work
    if (threads := context.settings.ranking.threads) is not None:
        torch.set_num_threads(threads)
    return _train(context) if context.settings.ranking.mode == "train" else _score(context)


def _train(context: StageContext) -> StageResult:
    settings, snapshot = context.settings.ranking, context.snapshot("exposures")
    exposures, left = read_exposures(snapshot, settings.context)
    split = split_by_time(exposures.time, settings)
    masks = split.masks(exposures.time)
    features = features_of(context.workspace, exposures, settings.clock, needed=_needed(settings.variants))
    train = exposures.take(masks["train"])
    vocabularies = {name: _vocabulary(train, name, settings) for name in (*OWN_FIELDS, *settings.context)}
    inputs = inputs_of(exposures, features, vocabularies)
    parts = {name: inputs.take(mask) for name, mask in masks.items()}
    rankers = [
        _fit(context, variant, seed, parts["train"], parts["validation"], vocabularies)
        for variant in settings.variants
        for seed in settings.seeds
    ]
    models = {row["model_id"] for row in features.releases} if _needed(settings.variants) else {None}
    buckets = settings.buckets if settings.ids == "hashed" else None
    found = Rankings(rankers, vocabularies, settings.context, buckets, split, *models)
    digest = save_rankings(context.workspace, context.run_id, found, context.settings)
    counts = {name: int(mask.sum()) for name, mask in masks.items()} | {"not_ranked": left}
    note = (
        f"{counts['train']:,} exposures to train on, {counts['validation']:,} to stop by, {counts['test']:,} to test "
        f"(from {from_micros(split.test_from):%Y-%m-%d %H:%M:%S} on); {left:,} rows were not shown (weight 0)"
    )
    test = masks["test"]
    return _judged(context, snapshot.rows, rankers, parts["test"], exposures, features, test, counts, digest, note)


def _score(context: StageContext) -> StageResult:
    settings, snapshot = context.settings.ranking, context.snapshot("exposures")
    run_id, _ = saved_by(context.workspace, settings.ranker)
    found = load_rankings(context.workspace, run_id, settings.variants, settings.seeds)
    since = _since(settings, found.split)
    exposures, left = read_exposures(snapshot, found.context, since)
    needed = any(ranker.reads_features for ranker in found.rankers)
    features = features_of(context.workspace, exposures, settings.clock, needed=needed)
    if needed and (others := {row["model_id"] for row in features.releases} - {found.model_id}):
        raise RankerError(
            f"rank_ads: the rankers of {run_id} read vectors of the tower {found.model_id}, the exposures have those "
            f"of {', '.join(sorted(others))}, which are in another space: train rankers on these (ranking.mode: train)"
        )
    inputs = inputs_of(exposures, features, found.vocabularies)
    counts = {"train": 0, "validation": 0, "test": len(exposures), "not_ranked": left}
    note = (
        f"the {len(found.rankers)} rankers of {run_id} scored {len(exposures):,} exposures from "
        f"{from_micros(since):%Y-%m-%d %H:%M:%S} on; {left:,} rows are earlier or were not shown (weight 0)"
    )
    every = np.ones(len(exposures), dtype=bool)
    return _judged(context, snapshot.rows, found.rankers, inputs, exposures, features, every, counts, None, note)


def _since(settings: RankingSettings, split: Split) -> int:
    since = split.test_from if settings.since is None else as_micros(settings.since)
    if since < split.test_from:
        raise RankerError(
            f"rank_ads: ranking.since {settings.since} is before {from_micros(split.test_from):%Y-%m-%d %H:%M:%S} UTC, "
            "where the rankers' test began: they were trained on exposures from before it"
        )
    return since


def _needed(variants: Sequence[str]) -> bool:
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
    vocabularies: dict[str, Vocabulary],
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
        network, points = train_network(shape, train, validation, settings, seed, bar)
    best = best_epoch(points)
    context.console.say(
        f"{label}: epoch {best} of {len(points)}, log loss {points[best - 1].validation:.5f} on validation"
    )
    told = {"best_epoch": best, "epochs": [asdict(point) for point in points]}
    return Ranker(variant, shape.model, seed, told, network=network)


def _judged(
    context: StageContext,
    rows_in: int,
    rankers: Sequence[Ranker],
    inputs: Inputs,
    exposures: Exposures,
    features: Features,
    mask: np.ndarray,
    counts: dict[str, int],
    digest: str | None,
    note: str,
) -> StageResult:
    """Score and judge the exposures in ``mask`` [n], whose ``inputs`` are given; write everything, and say it."""
    if (accounted := sum(counts.values())) != rows_in:
        raise LearnSparkError(f"rank_ads: exposures has {rows_in:,} rows, {accounted:,} are accounted for ({counts})")
    settings = context.settings.ranking
    test = exposures.take(mask)
    own = Features(
        features.vectors, features.user[mask], features.item[mask], features.release[mask], features.releases
    )
    cohorts = cohorts_of(context.snapshot("interactions"), test, own, settings.cohorts)
    users, items = (test.fields[name].codes for name in ("user_id", "item_id"))
    outcomes = Outcomes(test.label, test.weight, users, items, cohorts)
    scores = {}
    for ranker in rankers:
        scores[ranker.variant, ranker.seed] = ranker.score(inputs)
        for part in _score_rows(context.run_id, ranker, test, own, scores[ranker.variant, ranker.seed]):
            append_table(context.path("ad_scores"), contract("ad_scores"), part)
    figures = judge(
        scores, outcomes, bins=settings.calibration_bins, samples=settings.bootstrap_samples, seed=settings.seeds[0]
    )
    models = {ranker.variant: ranker.model for ranker in rankers}
    rows = [_metric_row(context.run_id, models[figure.variant], figure) for figure in figures]
    folder = context.folder(FOLDER, context.run_id)
    (folder / "metrics.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    # Last: rows of ad_scores without these are what a killed run left.
    append_rows(context.path("ad_metrics"), contract("ad_metrics"), rows)
    _show(context, figures)
    counts |= {
        "without_release": int((own.release < 0).sum()),
        "users_known": int((own.user > 0).sum()),
        "items_known": int((own.item > 0).sum()),
    }
    known = (
        f"of {len(test):,} test exposures {counts['without_release']:,} are from before every release; "
        f"{counts['users_known']:,} have a user vector, {counts['items_known']:,} an item vector"
    )
    return StageResult(
        rows_in=rows_in,
        rows_out=len(rankers) * len(test),
        counts=counts,
        outputs={} if digest is None else {f"{FOLDER}/{context.run_id}": digest},
        notes=(note, known) if _needed([ranker.variant for ranker in rankers]) else (note,),
    )


def _score_rows(
    run_id: str, ranker: Ranker, test: Exposures, features: Features, scores: np.ndarray
) -> Iterator[pa.Table]:
    releases = [*(row["release_id"] for row in features.releases), None]
    as_of = [*(row["as_of"] for row in features.releases), None]
    schema = contract("ad_scores").arrow_schema()
    for start in range(0, len(test), WRITTEN_ROWS):
        at = slice(start, start + WRITTEN_ROWS)
        count = len(scores[at])
        place = pa.array(features.release[at] % len(releases))  # -1 looks at the last, which is none
        told = {
            "run_id": run_id,
            "ranker_id": ranker.ranker_id,
            "variant": ranker.variant,
            "model": ranker.model,
            "seed": ranker.seed,
        }
        columns = {name: pa.array([value] * count) for name, value in told.items()}
        columns |= {
            "event_id": test.event_id[at.start : at.start + count],
            **{
                name: pa.array(test.fields[name].values.tolist(), pa.string()).take(
                    pa.array(test.fields[name].codes[at])
                )
                for name in ("user_id", "item_id")
            },
            "event_time": pa.array(test.time[at], pa.int64()).cast(pa.timestamp("us", "UTC")),
            "release_id": pa.array(releases, pa.string()).take(place),
            "as_of": pa.array(as_of, pa.timestamp("us", "UTC")).take(place),
            "score": pa.array(scores[at]),
            "label": pa.array(test.label[at]),
            "weight": pa.array(test.weight[at]),
        }
        yield pa.table([columns[name] for name in schema.names], names=schema.names).cast(schema)


def _metric_row(run_id: str, model: str, figure: Figure) -> dict[str, object]:
    row = asdict(figure)
    row |= row.pop("size")
    for name in ("value", "low", "high", "p"):
        if row[name] is not None and not math.isfinite(row[name]):
            row[name] = None
    return {"run_id": run_id, "model": model, **row}


def _show(context: StageContext, figures: Sequence[Figure]) -> None:
    whole = [f for f in figures if f.dimension == WHOLE]
    size = whole[0].size
    title = (
        f"Ads ranker on {size['exposures']:,.0f} later exposures ({size['conversions']:,.0f} conversions in "
        f"{size['weight']:,.0f}, {size['users']:,.0f} users); means over seeds"
    )
    means = {(f.variant, f.metric): f for f in whole if f.seed is None and f.against is None}
    variants = list(dict.fromkeys(f.variant for f in whole))
    lines = [[variant, *(_told(means[variant, metric]) for metric in METRICS)] for variant in variants]
    context.console.table(title, ["variant", *METRICS], lines)
    gaps = [f for f in figures if f.against is not None and f.metric in COMPARED[:2]]
    lines = []
    for f in [f for f in gaps if f.metric == COMPARED[0]]:
        same = next(g for g in gaps if g.metric == COMPARED[1] and _place(g) == _place(f))
        name = f"{f.variant} - {f.against}, {f.cohort if f.dimension == WHOLE else f'{f.dimension} {f.cohort}'}"
        lines.append([name, f"{f.size['exposures']:,.0f}", f"{f.size['conversions']:,.0f}", _gap(f), _gap(same)])
    if lines:
        context.console.table(
            "What the features change (95 % interval, bootstrap over users)",
            ["difference, cohort", "exposures", "conversions", *COMPARED[:2]],
            lines,
        )


def _place(figure: Figure) -> tuple[str, str | None, str, str]:
    return figure.variant, figure.against, figure.dimension, figure.cohort


def _told(figure: Figure) -> str:
    if not math.isfinite(figure.value):
        return "none"
    reach = "" if figure.high is None else f" ±{figure.high - figure.value:.4f}"
    return f"{figure.value:.4f}{reach}"


def _gap(figure: Figure) -> str:
    told = (figure.value, figure.low, figure.high)
    value, low, high = (math.nan if number is None else number for number in told)
    if not math.isfinite(value):
        return "none"
    return f"{value:+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if math.isfinite(low) else "")
