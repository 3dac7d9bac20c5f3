"""Examples of a model: recommendations of some users, neighbours of some items, and the popularity of both.

The trained tower is applied to the tables that its evaluation read. A user vector is computed from the events before
the test target. (Released vectors include the target, because they are for serving.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from learn_spark.core.settings.yaml_text import parse_yaml
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.splits.ranked import ranked_rows, ranked_users
from learn_spark.data.splits.split import Split, split_histories
from learn_spark.data.splits.training_view import TrainingView
from learn_spark.encoder.embedding_space import read_embedding_space
from learn_spark.evaluation.bands import POPULARITY, popularity_band
from learn_spark.evaluation.labels import band_label
from learn_spark.model.feed.item_matrix import item_matrix, item_matrix_path
from learn_spark.model.store import Model, load_model
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.vectors import item_vectors, user_vectors
from learn_spark.report.plots.dots import Group, Value, draw_dots
from learn_spark.report.plots.render import Plot
from learn_spark.report.plots.text import PERCENT
from learn_spark.report.scores import best, rank_of, scores_of
from learn_spark.report.titles import titles_of

SAMPLED_USERS = 1000
MOST_PRODUCTS = 4_000_000_000  # users x items: a larger catalogue has fewer sampled users
OFFERED = 10
EXAMPLE_USERS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the sampled users by length of history
EXAMPLE_ITEMS = (0.0, 0.25, 0.5, 0.75)  # of the items with training events, most events first
SHOWN_EVENTS, NEIGHBOURS = 8, 5
CHUNK_ROWS = 16_384


@dataclass(frozen=True)
class Offer:
    """A recommended item; ``hit`` if it is the target."""

    title: str
    hit: bool


@dataclass(frozen=True)
class ExampleUser:
    """A user of the test split. ``history``: titles of the newest ``SHOWN_EVENTS`` events, newest first."""

    user_id: str
    events: int
    history: tuple[str, ...]
    offers: tuple[Offer, ...]
    target: str
    rank: float


@dataclass(frozen=True)
class Neighbour:
    """A nearest item; ``shared`` if it is also among the nearest in the other space."""

    title: str
    cosine: float
    shared: bool


@dataclass(frozen=True)
class ExampleItem:
    """An item, its number of training events, and its nearest items by raw LLM vectors and by trained vectors."""

    title: str
    events: int
    raw: tuple[Neighbour, ...]
    trained: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Examples:
    """Examples from ``sampled`` of ``of_users`` users, whose lists have ``distinct`` of ``catalogue`` items."""

    users: tuple[ExampleUser, ...]
    items: tuple[ExampleItem, ...]
    popularity: Plot
    sampled: int
    of_users: int
    distinct: int
    catalogue: int


@dataclass(frozen=True, eq=False)
class _World:
    """A model's catalogue in the order of item_id, so that results do not depend on the order of arrival.

    ``ids`` [N] and ``counts`` [N] (training events), ``vectors`` [N, D], ``raw`` [highest index + 1, C] with ``rows``
    [N] into it; ``place`` [N] maps item_index - 1 to a position in ``ids``.
    """

    ids: list[str]
    counts: np.ndarray
    vectors: np.ndarray
    raw: np.ndarray
    rows: np.ndarray
    place: np.ndarray


def examples_of(workspace: Workspace, model_id: str, inputs: Mapping[str, str]) -> Examples | None:
    """Examples of a model over the table versions ``inputs``; None if no user has a target on the test split.

    Samples at most ``SAMPLED_USERS`` users, the same ones in every run; fewer if users x items would exceed
    ``MOST_PRODUCTS``. Raises LearnSparkError if the model or a version of a table no longer exists.
    """
    model = load_model(workspace.place / "models" / model_id)
    tables = {
        name: Snapshot.open(workspace.table(name), int(inputs[name]))
        for name in ("user_histories", "item_index", "item_text", "text_embeddings")
    }
    histories = tables["user_histories"]
    eligible, _ = ranked_users(histories, "test", None)
    if not eligible:
        return None
    world = _world(workspace, model, tables)
    count = max(1, min(SAMPLED_USERS, eligible, MOST_PRODUCTS // world.vectors.size))
    _, sample = ranked_users(histories, "test", count)
    split = split_histories(ranked_rows(histories, "test", sample), "test")
    seen = [np.unique(world.place[items]) for items in split.seen]
    targets = world.place[split.targets]
    vectors = user_vectors(model.vectors(), split.items, split.lengths, model.window, times=split.times)
    scored = (scores_of(world.vectors, vector, items) for vector, items in zip(vectors, seen, strict=True))
    offered = [best(scores, OFFERED) for scores in scored]
    chosen = _spread(np.lexsort((np.array(split.user_ids), split.lengths)), EXAMPLE_USERS)
    # A target counts even if the user had it before.
    others = {i: seen[i][seen[i] != targets[i]] for i in chosen}
    ranks = [rank_of(scores_of(world.vectors, vectors[i], others[i]), targets[i]) for i in chosen]
    all_offered = np.concatenate(offered)
    return Examples(
        users=_users(workspace, world, split, chosen, offered, targets, ranks),
        items=_items(workspace, world),
        popularity=_popularity(world.counts, all_offered, targets),
        sampled=len(split.user_ids),
        of_users=eligible,
        distinct=len(np.unique(all_offered)),
        catalogue=len(world.ids),
    )


def _world(workspace: Workspace, model: Model, tables: Mapping[str, Snapshot]) -> _World:
    file = workspace.place / "models" / model.model_id / "settings.yaml"
    saved = parse_yaml(file.read_text(), file)

    def matrix(space_key: str | None) -> np.ndarray:
        space = None if space_key is None else read_embedding_space(workspace, space_key)
        path = item_matrix_path(
            tables["item_index"],
            tables["item_text"],
            tables["text_embeddings"],
            template_version=model.manifest.template_version,
            encoder_key=model.manifest.encoder_key,
            cache=workspace.folder("cache", "item_matrix"),
            dtype="float32" if space is None else saved["embedding_space"]["dtype"],
            space=space,
        )
        return item_matrix(path)

    if isinstance(model.tower, BoundTower):
        model.tower.bind(matrix(model.manifest.space_key))
    size = model.tower.n_items
    index = tables["item_index"].to_arrow(["item_id", "item_index"]).sort_by("item_id")
    rows = index["item_index"].to_numpy().astype(np.int64)
    trained = rows <= size
    ids = [item for item, keep in zip(index["item_id"].to_pylist(), trained, strict=True) if keep]
    rows = rows[trained]
    place = np.zeros(size, dtype=np.int64)
    place[rows - 1] = np.arange(len(rows))
    counts = TrainingView(tables["user_histories"]).counts(size).events[rows - 1]
    return _World(ids, counts, item_vectors(model.vectors())[rows - 1], matrix(None), rows, place)


def _spread(order: np.ndarray, shares: Sequence[float]) -> list[int]:
    """The distinct entries of ``order`` at these shares of its length."""
    return list(dict.fromkeys(int(order[int(share * len(order))]) for share in shares))


def _users(
    workspace: Workspace,
    world: _World,
    split: Split,
    chosen: Sequence[int],
    offered: Sequence[np.ndarray],
    targets: np.ndarray,
    ranks: Sequence[float],
) -> tuple[ExampleUser, ...]:
    def places_of(user: int) -> list[int]:
        length = int(split.lengths[user])
        newest = split.items[user, max(0, length - SHOWN_EVENTS) : length][::-1].astype(np.int64)
        return [int(at) for at in world.place[newest - 1]]

    named = {at for i in chosen for at in (*places_of(i), *offered[i], targets[i])}
    titles = titles_of(workspace, [world.ids[at] for at in named])
    return tuple(
        ExampleUser(
            user_id=split.user_ids[i],
            events=int(split.lengths[i]),
            history=tuple(titles[world.ids[at]] for at in places_of(i)),
            offers=tuple(Offer(titles[world.ids[at]], bool(at == targets[i])) for at in offered[i]),
            target=titles[world.ids[targets[i]]],
            rank=rank,
        )
        for i, rank in zip(chosen, ranks, strict=True)
    )


def _items(workspace: Workspace, world: _World) -> tuple[ExampleItem, ...]:
    order = np.lexsort((np.arange(len(world.ids)), -world.counts))
    with_events, without = order[world.counts[order] > 0], order[world.counts[order] == 0]
    chosen = _spread(with_events, EXAMPLE_ITEMS) if len(with_events) else []
    chosen += [int(at) for at in without[:1]]
    raw = [_nearest(world.raw, world.rows, at) for at in chosen]
    trained = [_nearest(world.vectors, np.arange(len(world.ids)), at) for at in chosen]
    named = {at for pairs in (*raw, *trained) for at, _ in pairs} | set(chosen)
    titles = titles_of(workspace, [world.ids[at] for at in named])

    def named_pairs(pairs: list[tuple[int, float]], others: list[tuple[int, float]]) -> tuple[Neighbour, ...]:
        elsewhere = {at for at, _ in others}
        return tuple(Neighbour(titles[world.ids[at]], cosine, at in elsewhere) for at, cosine in pairs)

    return tuple(
        ExampleItem(titles[world.ids[at]], int(world.counts[at]), named_pairs(r, t), named_pairs(t, r))
        for at, r, t in zip(chosen, raw, trained, strict=True)
    )


def _nearest(matrix: np.ndarray, rows: np.ndarray, at: int) -> list[tuple[int, float]]:
    """(position, cosine) of the items nearest to position ``at`` of ``matrix[rows]``; memory is bounded by chunks."""
    query = matrix[rows[at]].astype(np.float64)
    cosines = np.empty(len(rows))
    for start in range(0, len(rows), CHUNK_ROWS):
        part = matrix[rows[start : start + CHUNK_ROWS]].astype(np.float64)
        lengths = np.linalg.norm(part, axis=1) * np.linalg.norm(query)
        cosines[start : start + len(part)] = (part * query).sum(axis=1) / np.maximum(lengths, 1e-12)
    cosines[at] = -np.inf
    return [(int(place), float(cosines[place])) for place in best(cosines, NEIGHBOURS)]


def _popularity(counts: np.ndarray, offered: np.ndarray, targets: np.ndarray) -> Plot:
    """Shares of the catalogue, of consumed and of recommended items, by the number of training events of the item."""

    def share(weights: np.ndarray, inside: np.ndarray) -> Value:
        return Value(float(weights[inside].sum() / max(weights.sum(), 1)))

    size = len(counts)
    series = {
        "catalogue": np.ones(size),
        "consumed in training": counts,
        "consumed next (the targets)": np.bincount(targets, minlength=size),
        f"recommended (top {OFFERED})": np.bincount(offered, minlength=size),
    }
    groups = []
    band_of_items = popularity_band(counts)
    for band in POPULARITY.values():
        inside = band_of_items == band
        if inside.any():
            values = {name: share(weights, inside) for name, weights in series.items()}
            groups.append(Group(band_label(band), f"{int(inside.sum()):,} items", values))
    return draw_dots(
        "popularity",
        "Popularity of recommended and of consumed items",
        list(series),
        groups,
        group_name="training events of the item",
        x_name="share",
        form=PERCENT,
    )
