"""Recommendations of one user from released features, each with the nearest items of the user's history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.tables.scan import scan
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.times import from_micros
from learn_spark.features.faiss_index import load
from learn_spark.features.ledger import LedgerRow
from learn_spark.features.read import read_release
from learn_spark.report.scores import best, scores_of
from learn_spark.report.titles import titles_of

REASONS = 3
SHOWN_EVENTS = 10
PART_ROWS = 1 << 16


@dataclass(frozen=True)
class Event:
    """An event of the user's history."""

    item_id: str
    title: str
    time: datetime


@dataclass(frozen=True)
class Near:
    """An item of the history and the cosine of its vector with a recommended item's vector."""

    item_id: str
    title: str
    cosine: float


@dataclass(frozen=True)
class Recommendation:
    """An item, its score (inner product with the user vector), and the nearest items of the history, nearest first."""

    item_id: str
    title: str
    score: float
    near: tuple[Near, ...]


@dataclass(frozen=True)
class Explanation:
    """A user's history (oldest first) and recommendations in one release."""

    user_id: str
    release_id: str
    as_of: datetime
    history: tuple[Event, ...]
    recommendations: tuple[Recommendation, ...]


def moment(text: str) -> datetime:
    """``text`` as an ISO time, in UTC unless it has an offset. Raises SettingsError for other text."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"--as-of {text!r} is not an ISO time such as 1998-03-01T00:00:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def explain(
    workspace: Workspace, user_id: str, *, k: int = 10, as_of: datetime | None = None, by_index: bool = False
) -> Explanation:
    """The k unseen items with the highest scores, and their nearest history items, in the newest release (as of
    ``as_of`` or earlier).

    Scores every item, PART_ROWS in memory at a time, or with ``by_index`` the items that the release's exported index
    returns (an approximate index may miss some). The history is the input of the released user vector: user_histories
    at the release's version, all chunks. Equal scores are in the order of item_id.

    Raises NoReleaseError; ItemIndexError if the release has no complete index; LearnSparkError if the release has no
    such user.
    """
    release = read_release(workspace, as_of)
    user = _features(workspace, "user_features", release, pc.field("user_id") == user_id)
    if not user.num_rows:
        raise LearnSparkError(_unknown(workspace, user_id, release))
    events = _history(workspace, user_id, release)
    user_vector = fixed_lists(user["embedding"])[0]
    chosen, seen = _scored(_items(workspace, release, events, user_vector, k, by_index), events, user_vector, k)
    titles = titles_of(workspace, [*(item for item, _ in events), *(one.item_id for one in chosen)])
    unit_seen = _unit(np.stack([vector for _, vector in seen])) if seen else np.zeros((0, len(user_vector)))

    def near(vector: np.ndarray) -> tuple[Near, ...]:
        cosines = unit_seen @ _unit(vector)
        pairs = [(seen[at][0], float(cosines[at])) for at in best(cosines, REASONS)]
        return tuple(Near(item, titles[item], cosine) for item, cosine in pairs)

    return Explanation(
        user_id=user_id,
        release_id=release.release_id,
        as_of=release.as_of,
        history=tuple(Event(item, titles[item], time) for item, time in events),
        recommendations=tuple(
            Recommendation(one.item_id, titles[one.item_id], one.score, near(one.vector)) for one in chosen
        ),
    )


def show(explanation: Explanation, console: Reporter) -> None:
    """Print the newest events, then each recommendation with its nearest items of the history."""
    console.line(
        f"user {explanation.user_id}, release {explanation.release_id}: events before "
        f"{explanation.as_of:%Y-%m-%d %H:%M:%S} UTC"
    )
    newest = explanation.history[: -SHOWN_EVENTS - 1 : -1]
    title = f"History (the newest {len(newest)} of {len(explanation.history)} events)"
    console.table(title, ["title", "item", "when (UTC)"], [[e.title, e.item_id, f"{e.time:%Y-%m-%d}"] for e in newest])
    console.line()
    console.heading("Recommendations (score; near: nearest items of the history by cosine of the released vectors)")
    for place, offer in enumerate(explanation.recommendations, 1):
        console.line(f"{place:>3}  {offer.score:.4f}  {offer.title} [{offer.item_id}]")
        near = "; ".join(f"{n.title} [{n.item_id}] {n.cosine:.3f}" for n in offer.near)
        console.line(f"             near {near or 'none: no item of the history is in the release'}")


def _features(workspace: Workspace, table: str, release: LedgerRow, where: pc.Expression | None = None) -> pa.Table:
    return scan(workspace, table, release.version(table), where=where)


class _Scored(NamedTuple):
    """An item with its score for a user, and its vector [D]."""

    score: float
    item_id: str
    vector: np.ndarray


def _items(
    workspace: Workspace,
    release: LedgerRow,
    events: list[tuple[str, datetime]],
    user_vector: np.ndarray,
    k: int,
    by_index: bool,
) -> Iterator[pa.Table]:
    """The release's item_features, part by part; ``by_index``: what the index returns, and the history's items."""
    if not by_index:
        snapshot = Snapshot.open(workspace.table("item_features"), release.version("item_features"))
        for batch in snapshot.batches(["item_id", "embedding"], PART_ROWS):
            yield pa.Table.from_batches([batch])
        return
    index = load(
        workspace.place / "indexes" / release.release_id,
        release_id=release.release_id,
        cache=workspace.folder("cache", "indexes"),
    )
    history = {item for item, _ in events}
    # As many more, because the items of the history are removed from the result.
    _, (candidates,) = index.search(user_vector[None], k + len(history))
    yield _features(workspace, "item_features", release, pc.field("item_id").isin(sorted({*candidates, *history})))


def _scored(
    parts: Iterable[pa.Table], events: list[tuple[str, datetime]], user_vector: np.ndarray, k: int
) -> tuple[list[_Scored], list[tuple[str, np.ndarray]]]:
    """(the k items with the highest scores that are not in the history, best first and equal scores in the order of
    item_id; id and vector of each item of the history, in that order).
    """
    history = pa.array(sorted({item for item, _ in events}), pa.string())
    chosen: list[_Scored] = []
    seen: list[tuple[str, np.ndarray]] = []
    for part in parts:
        rows = part.sort_by("item_id")
        ids, vectors = rows["item_id"].to_pylist(), fixed_lists(rows["embedding"])
        of_history = np.flatnonzero(pc.is_in(rows["item_id"], history).to_numpy())
        seen += [(ids[at], vectors[at]) for at in of_history]
        scores = scores_of(vectors, user_vector, of_history)
        chosen += [_Scored(float(scores[at]), ids[at], vectors[at].copy()) for at in best(scores, k)]
        chosen = sorted(chosen, key=lambda one: (-one.score, one.item_id))[:k]
    return chosen, sorted(seen, key=lambda one: one[0])


def _history(workspace: Workspace, user_id: str, release: LedgerRow) -> list[tuple[str, datetime]]:
    """(item_id, time) of the user's events in the release, oldest first."""
    versions = release.inputs
    chunks = scan(
        workspace, "user_histories", int(versions["user_histories"]), where=pc.field("user_id") == user_id
    ).sort_by([("chunk", "descending")])
    pairs = [
        (index, time)
        for row in chunks.select(["item_index", "event_time", "length"]).to_pylist()
        for index, time in zip(row["item_index"][: row["length"]], row["event_time"][: row["length"]], strict=True)
    ]
    indexes = pa.array(sorted({index for index, _ in pairs}), pa.int32())
    rows = scan(workspace, "item_index", int(versions["item_index"]), where=pc.field("item_index").isin(indexes))
    names = dict(zip(rows["item_index"].to_pylist(), rows["item_id"].to_pylist(), strict=True))
    return [(names[index], from_micros(time)) for index, time in pairs]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """``vectors`` [..., D] at length 1 in float64. Without torch, unlike ``model.towers.vectors.unit_rows``."""
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)


def _unknown(workspace: Workspace, user_id: str, release: LedgerRow) -> str:
    users = scan(workspace, "user_features", release.version("user_features"), columns=["user_id"])["user_id"]
    few = ", ".join(repr(user) for user in sorted(users.slice(0, 1000).to_pylist())[:3])
    return (
        f"release {release.release_id} (as of {release.as_of:%Y-%m-%d}) has no user {user_id!r}; it has "
        f"{users.length():,}, such as {few}. A release contains the users with at least one event before its as-of time"
    )
