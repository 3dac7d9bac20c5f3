"""Fitting blending and a reranker on the validation targets, for the tower that validation chose.

Each is kept where it improves NDCG@10 on validation. No user is scored by weights that were fitted on them. Vectors are
made narrower where the settings want it, whatever it costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings
from learn_spark.core.settings.tower import BlendingSettings, blending_of
from learn_spark.core.times import DAY
from learn_spark.data.splits.folds import FOLDS
from learn_spark.data.splits.split import Split, training_events
from learn_spark.data.splits.training_view import TrainingView, Until
from learn_spark.model.blending.candidates import Candidates, Likeness
from learn_spark.model.blending.co_visits import DECAY, co_visit_vectors
from learn_spark.model.blending.fit import fit_frequency_weights
from learn_spark.model.blending.folded import FoldedVectors
from learn_spark.model.blending.tower import profile_of, recency_weights, temperature_of
from learn_spark.model.narrowing.projections import Projections
from learn_spark.model.parts import ModelBlending, wide_vectors
from learn_spark.model.reranking.co_visitation import Transitions
from learn_spark.model.reranking.fit import fit_heads, passes
from learn_spark.model.reranking.head import CrossFittedHeads
from learn_spark.model.reranking.refinement_fit import fit_refinement
from learn_spark.model.reranking.reranker import Reranker, ranks_of_users
from learn_spark.model.scoring.catalogue import sampled_positions
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.scoring.queries import query_batch
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import item_vectors, mean_vectors, unit_rows, user_vectors, windows
from learn_spark.model.training.narrowing import narrow_by_fold, narrowing_of

Metrics = dict[str, float]


@dataclass(frozen=True)
class Calibration:
    """The fitted parts of a model besides its tower.

    ``validation`` are the metrics of all parts together; ``validation_of_vectors`` those without the reranker, None
    where there is no reranker. ``narrowing`` are the projections of each fold, ``validation_of_wide`` the metrics of
    the wide vectors; both None where vectors are not made narrower.
    """

    validation: Metrics
    blending: ModelBlending | None = None
    heads: CrossFittedHeads | None = None
    validation_of_vectors: Metrics | None = None
    narrowing: tuple[Projections, ...] | None = None
    validation_of_wide: Metrics | None = None


@dataclass(frozen=True)
class HeldOut:
    """What the parts are fitted on: the validation ``split`` of a sample of users, the ``events`` [N] of each item in
    training, and the ``histories``, whose training events co-visits are counted in.
    """

    histories: TrainingView
    split: Split
    events: np.ndarray


def is_calibrated(settings: Settings) -> bool:
    """Whether something is fitted upon the trained tower."""
    tower = settings.tower
    return blending_of(tower) is not None or tower.narrowing is not None or tower.reranker is not None


def calibrate(
    tower: Tower, temperature: float, held_out: HeldOut, validation: Metrics, settings: Settings, console: Reporter
) -> Calibration:
    """Fit blending, narrowing and reranker as the settings define them; blending and reranker are kept where they
    improve validation NDCG@10.

    ``tower`` is the one that validation chose, with its ``validation`` metrics and its content bound; it must not be
    trained on the validation events.
    """
    calibration = Calibration(validation)
    if (blending_settings := blending_of(settings.tower)) is not None:
        assert isinstance(tower, BoundTower)
        blending, metrics = fit_blending(tower, temperature, held_out, blending_settings, settings, console)
        if _is_better("blending", metrics, calibration.validation, console):
            calibration = Calibration(metrics, blending)
    if (narrowing := narrowing_of(tower, calibration.blending, settings)) is not None:
        folds, ranks = narrow_by_fold(
            tower, temperature, calibration.blending, held_out.split, narrowing, settings, console
        )
        wide, metrics = calibration.validation, summarise(ranks, _ks(settings), held_out.split.every_target.offsets)
        console.say(
            f"vectors of {narrowing.width} numbers: NDCG@10 on validation is {metrics['NDCG@10']:.4f}, of the wide "
            f"ones {wide['NDCG@10']:.4f}"
        )
        calibration = replace(calibration, validation=metrics, narrowing=folds, validation_of_wide=wide)
    if settings.tower.reranker is not None:
        heads, metrics = fit_reranker(tower, calibration.blending, temperature, held_out, settings, console)
        if _is_better("reranker", metrics, calibration.validation, console):
            calibration = replace(
                calibration, validation=metrics, heads=heads, validation_of_vectors=calibration.validation
            )
    return calibration


def _is_better(name: str, with_it: Metrics, without: Metrics, console: Reporter, kept: str = "the model") -> bool:
    """Whether NDCG@10 is better ``with_it``; both figures are printed."""
    better = with_it["NDCG@10"] > without["NDCG@10"]
    line = f"{name}: NDCG@10 on validation is {with_it['NDCG@10']:.4f} with it, {without['NDCG@10']:.4f} without"
    console.say(line if better else f"{line}; {kept} goes without it")
    return better


def fit_blending(
    tower: BoundTower,
    temperature: float,
    held_out: HeldOut,
    blending_settings: BlendingSettings,
    settings: Settings,
    console: Reporter,
) -> tuple[ModelBlending, Metrics]:
    """(weights by item frequency for ``tower``, metrics on validation); no user is ranked by weights fitted on them.

    ``tower`` must have its content bound and must not be trained on the validation events.
    """
    window, split = settings.objective.history, held_out.split
    hidden = split.hidden(settings.evaluation.mask_history)
    users = user_vectors(tower, split.items, split.lengths, window, times=split.times)
    ranked, stands_for = sampled_positions(tower.n_items, blending_settings.items, split.every_target.positions)
    reach, decay = blending_settings.reach, blending_settings.decay
    co_visits = co_visits_of(held_out.histories, tower.n_items, blending_settings)
    recent = recent_of(held_out.histories, tower.n_items, blending_settings, settings)
    content = unit_rows(tower.bound[ranked + 1].astype(np.float32))
    likenesses = [Likeness(_mean_content(tower, split, reach, decay), content)]
    if co_visits is not None:
        padded = np.concatenate([np.zeros_like(co_visits[:1]), co_visits])
        means = mean_vectors(padded, split.items, split.lengths, reach, decay=decay)
        likenesses.append(Likeness(means, co_visits[ranked]))
    candidates = Candidates(
        query_batch(split, users, hidden, reach).within(ranked),
        tuple(likenesses),
        item_vectors(tower, positions=ranked),
        held_out.events[ranked],
        temperature,
        stands_for,
        None if recent is None else np.log1p(recent[ranked]).astype(np.float32),
        _profiles(split, held_out.events, window, blending_settings) if blending_settings.profile else None,
    )
    console.say("fitting the blending weights")
    frequency_weights, folds = fit_frequency_weights(
        candidates, split.user_ids, blending_settings, seed=settings.training.seed
    )
    blending = ModelBlending(
        frequency_weights,
        folds,
        held_out.events,
        reach,
        temperature,
        co_visits,
        decay,
        recent,
        blending_settings.profile,
    )
    towers = [blending.upon(tower, fold) for fold in range(FOLDS)]
    ranks = FoldedVectors(split, towers, window).ranks(hidden, lambda count: None)
    return blending, summarise(ranks, _ks(settings), split.every_target.offsets)


def co_visits_of(
    histories: TrainingView, n_items: int, settings: BlendingSettings, *, until: Until = "train_length"
) -> np.ndarray | None:
    """The vectors [n_items, S] of co-visits in the events before ``until``; None where the settings want none."""
    if not settings.co_visits:
        return None
    parts = map(training_events, histories.user_parts(settings.pair_users, until=until))
    transitions = Transitions.of_parts(parts, n_items, reach=settings.reach, decay=DECAY)
    return co_visit_vectors(transitions, settings.co_visits)


def recent_of(
    histories: TrainingView,
    n_items: int,
    blending_settings: BlendingSettings,
    settings: Settings,
    *,
    until: Until = "train_length",
) -> np.ndarray | None:
    """Each item's training events [n_items] in the last trend_days before the split time; None without a trend."""
    if not blending_settings.trend_days:
        return None
    split = settings.histories.split_micros()
    assert split is not None  # the settings are checked
    recent = np.zeros(n_items, np.int64)
    for part in histories.parts(until=until):
        np.add.at(recent, training_events(part, since=split - blending_settings.trend_days * DAY)[0], 1)
    return recent


def _profiles(split: Split, events: np.ndarray, window: int, settings: BlendingSettings) -> np.ndarray:
    """The users' profiles [B, 2] float32 (``profile_of``), by the ``events`` [N] of each item in training."""
    lengths, items = windows(split.lengths, window, split.items)
    log_counts = torch.from_numpy(np.log1p(np.append(0, events)).astype(np.float32))
    weights = recency_weights(torch.from_numpy(lengths), items.shape[1], settings.reach, settings.decay)
    return profile_of(log_counts[torch.from_numpy(items.astype(np.int64))], weights, torch.from_numpy(lengths)).numpy()


def _mean_content(tower: BoundTower, split: Split, reach: int, decay: float) -> np.ndarray:
    """Unit mean content [B, C] of each user's last ``reach`` events, weighed by ``decay``; only theirs is read."""
    counts, recent = windows(split.lengths, reach, split.items)
    distinct, place = np.unique(recent, return_inverse=True)
    unit = unit_rows(tower.bound[distinct].astype(np.float32))
    return mean_vectors(unit, place.reshape(recent.shape), counts, reach, decay=decay)


def fit_reranker(
    tower: Tower,
    blending: ModelBlending | None,
    temperature: float,
    held_out: HeldOut,
    settings: Settings,
    console: Reporter,
) -> tuple[CrossFittedHeads, Metrics]:
    """(heads upon the vectors of ``tower``, blended where there is ``blending``; metrics on validation). No user is
    ranked by a head that was fitted on them.

    The users of a fold are scored by weights of ``blending`` that were not fitted on them. (A head of fold f learns
    from other users' scores, by weights that were fitted on the users of f: their targets reach it through these few
    numbers alone.) Neither the training of ``tower`` nor the counted co-visits may include the validation events.
    """
    reranker_settings, split = settings.tower.reranker, held_out.split
    assert reranker_settings is not None
    parts = held_out.histories.user_parts(reranker_settings.pair_users)
    transitions = Transitions.of_parts(
        map(training_events, parts), tower.n_items, reach=reranker_settings.reach, decay=reranker_settings.decay
    )
    vectors = [wide_vectors(tower, blending, fold) for fold in (range(FOLDS) if blending is not None else (None,))]
    # The weights of blending are the items': a user's vector is the same for every fold.
    users = user_vectors(vectors[0], split.items, split.lengths, settings.objective.history, times=split.times)
    queries = query_batch(split, users, split.hidden(settings.evaluation.mask_history), reranker_settings.reach)
    rerankers = [Reranker.of(tower, one, temperature_of(one, temperature), transitions) for one in vectors]
    if blending is None:
        rerankers *= FOLDS  # a head of each fold upon the same vectors
    with console.bar("fitting the reranker", passes(len(users), reranker_settings) * len(users), "users") as bar:
        heads = fit_heads(
            rerankers, queries, split.user_ids, reranker_settings, seed=settings.training.seed, advance=bar.advance
        )

    def metrics_of(fitted: CrossFittedHeads) -> Metrics:
        ranks = ranks_of_users(rerankers, fitted.heads_of_users(split.user_ids, folded=True), queries)
        return summarise(ranks, _ks(settings), split.every_target.offsets)

    metrics = metrics_of(heads)
    if reranker_settings.refinement is not None:
        with console.bar("fitting the second head", FOLDS * len(users), "users") as bar:
            refined = fit_refinement(
                rerankers,
                heads,
                queries,
                split.user_ids,
                reranker_settings,
                seed=settings.training.seed,
                advance=bar.advance,
            )
        with_it = metrics_of(refined)
        if _is_better("second head of the reranker", with_it, metrics, console, kept="the reranker"):
            return refined, with_it
    return heads, metrics


def _ks(settings: Settings) -> list[int]:
    return sorted({10, *settings.evaluation.ks})
