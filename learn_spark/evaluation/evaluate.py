"""The evaluate stage: a model beside popularity, Markov and untrained embeddings, over the whole catalogue, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.lineage import newest_model
from learn_spark.core.tables.log import append_rows, append_table, check_columns
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.splits.split import (
    Split,
    SplitName,
    split_histories,
    trained_counts,
    training_events,
    with_validation,
)
from learn_spark.evaluation.baselines.markov import markov
from learn_spark.evaluation.baselines.popularity import popularity
from learn_spark.evaluation.contenders import Contender, counted, evident, frozen, trained
from learn_spark.evaluation.lists import list_metrics
from learn_spark.evaluation.results import ResultKey, protocol_of, user_rows, written_by
from learn_spark.evaluation.slices import slice_metrics, target_labels
from learn_spark.model.content import bind_content, fit_content
from learn_spark.model.feed.item_matrix import item_matrix
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.store import Model, load_model
from learn_spark.model.towers.vectors import unit_rows

SPLITS: tuple[SplitName, ...] = ("validation", "test")
LIST_USERS = 50_000  # whose lists are looked at; a search for the best few hundred costs more than ranks do


@dataclass(frozen=True)
class _Field:
    """Who is judged on which cut, and what each item [N] counts: ``known`` the events that statistics are made from,
    ``learnt`` those in training samples (cuts.training_events, cuts.trained_counts).
    """

    split: Split
    contenders: tuple[Contender, ...]
    known: np.ndarray
    learnt: np.ndarray

    @staticmethod
    def of(
        histories: pa.Table, n_items: int, untrained: Contender, model: Model, name: SplitName, *, evidence: bool
    ) -> _Field:
        values, offsets = training_events(histories)
        told = model.evidence is not None and evidence
        contenders = (
            counted("popularity", popularity(values, offsets, n_items)),
            counted("markov", markov(values, offsets, n_items)),
            untrained,
            *((evident(model, values, offsets, folded=name == "validation"),) if told else ()),
            trained(model, folded=name == "validation"),
        )
        return _Field(
            split_histories(histories, name),
            contenders,
            np.bincount(values, minlength=n_items),
            trained_counts(histories, n_items),
        )


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The newest model."""
    return {"model": newest_model(workspace)}


def run(context: StageContext) -> StageResult:
    """Rank every user's targets on both cuts with every method: metrics go to ``evaluations``, those of parts of a cut,
    with bootstrap intervals, to ``evaluation_slices``, every rank to ``evaluation_users``.

    A model's result on the same tables, protocol and settings is written once: a second run writes nothing and says so,
    unless it is forced; then the newer result counts.
    """
    for table in ("evaluations", "evaluation_slices", "evaluation_users"):
        check_columns(context.path(table), contract(table))  # now, not after the work
    key, protocol = ResultKey.of_settings(context.inputs, context.settings), protocol_of(context.settings)
    histories = context.snapshot("user_histories").to_arrow()
    if (before := written_by(context.workspace, key, protocol)) is not None and not context.forced:
        note = (
            f"run {before} has evaluated the model {key.model_id} on these tables and settings; nothing is written "
            "(--force writes anew)"
        )
        return StageResult(rows_in=len(histories), rows_out=0, notes=(note,))
    settings = context.settings.evaluation
    folder = context.workspace.root / "models" / key.model_id
    model = load_model(folder)
    # The untrained embeddings are read in the model's own space, if it has one.
    matrix = bind_content(context, model) or fit_content(context, histories)[0]
    item_ids = _item_ids(context, model)
    n_items = len(item_ids)
    untrained = frozen(unit_rows(item_matrix(matrix)), model.window)
    if model.refit:
        # On validation the tower that it chose is judged; on test all know the validation events, baselines too.
        chosen = load_model(folder, chosen=True)
        bind_content(context, chosen)
        fields = {
            "validation": _Field.of(histories, n_items, untrained, chosen, "validation", evidence=settings.reranker),
            "test": _Field.of(
                with_validation(histories), n_items, untrained, model, "test", evidence=settings.reranker
            ),
        }
    else:
        fields = {
            name: _Field.of(histories, n_items, untrained, model, name, evidence=settings.reranker) for name in SPLITS
        }
    told = {"protocol": protocol, "settings_hash": key.settings_hash, "tables": key.tables, "catalogue": n_items}
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    users: list[pa.Table] = []
    notes: list[str] = []
    ranked = 0
    for name in SPLITS:
        field = fields[name]
        split = field.split
        if not len(split.targets):
            raise LearnSparkError(f"evaluate: no user has a target on the {name} cut")
        ranked += len(split.targets)
        if settings.mask_history and (repeats := split.repeats()):
            notes.append(
                f"{repeats:,} of {len(split.every_target.positions):,} {name} targets are items that their user had "
                "before: with histories masked, these alone of a history are ranked, which flatters what favours the "
                "familiar; evaluation.mask_history false ranks all"
            )
        ranks, lists, listed = _rank(context, field.contenders, split, name, field.learnt)
        labels, every = target_labels(split, field.learnt, field.known), split.every_target
        for contender in field.contenders:
            own = {"run_id": context.run_id, "method": contender.method, "model_id": contender.model_id, "split": name}
            means = summarise(ranks[contender.method], settings.ks, every.offsets)
            for found, counted_users in ((means, len(split.targets)), (lists[contender.method], listed)):
                rows += [{**told, **own, "metric": m, "value": v, "users": counted_users} for m, v in found.items()]
        ids = {contender.method: contender.model_id for contender in field.contenders}
        found_parts = slice_metrics(
            ranks,
            every.positions,
            every.owners,
            labels,
            settings.ks,
            samples=settings.bootstrap_samples,
            seed=model.manifest["seed"],
        )
        parts += [
            {"run_id": context.run_id, "model_id": ids[part.method], "split": name, **asdict(part)}
            for part in found_parts
        ]
        of_methods = [(method, ids[method], found) for method, found in ranks.items()]
        users.append(user_rows(context.run_id, name, split, item_ids, labels, of_methods))
    append_table(context.path("evaluation_users"), contract("evaluation_users"), pa.concat_tables(users))
    append_rows(context.path("evaluation_slices"), contract("evaluation_slices"), parts)
    # Last: only now the result counts as written.
    append_rows(context.path("evaluations"), contract("evaluations"), rows)
    return StageResult(
        rows_in=len(histories),
        rows_out=ranked,
        counts={"metrics": len(rows), "slice_metrics": len(parts)},
        notes=tuple(notes),
    )


def _item_ids(context: StageContext, model: Model) -> np.ndarray:
    """The ids of all items [N] by position; LearnSparkError where the model does not know them all."""
    index = context.snapshot("item_index").to_arrow(["item_index", "item_id"]).sort_by("item_index")
    if len(index) > model.tower.n_items:
        raise LearnSparkError(
            f"evaluate: the {model.method} model {model.model_id} knows items by their IDs, {model.tower.n_items:,} of "
            f"them, but item_index goes up to {len(index):,}; train again (a learn tower needs not: it reads content)"
        )
    return np.array(index["item_id"].to_pylist())


def _rank(
    context: StageContext, contenders: Sequence[Contender], split: Split, name: SplitName, learnt: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]], int]:
    """(ranks [T] by method, list metrics by method, how many users' lists these are of)."""
    settings = context.settings.evaluation
    hidden = split.hidden(settings.mask_history)
    listed = np.sort(np.random.default_rng(0).permutation(len(hidden))[:LIST_USERS])
    hidden_of_listed = [hidden[row] for row in listed]
    ranks: dict[str, np.ndarray] = {}
    lists: dict[str, dict[str, float]] = {}
    with context.console.bar(f"{name} cut", len(contenders) * len(hidden), "users") as bar:
        for contender in contenders:
            scorer = contender.scorer(split)
            ranks[contender.method] = scorer.ranks(hidden, bar.advance)
            top = scorer.top(listed, max(settings.ks), hidden_of_listed)
            lists[contender.method] = {
                metric: value for k in settings.ks for metric, value in list_metrics(top[:, :k], learnt).items()
            }
    return ranks, lists, len(listed)
