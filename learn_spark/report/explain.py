"""Recommendations of one user from released features, each with the nearest items of the user's history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.tables.scan import scan
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.times import from_micros
from learn_spark.features.faiss_index import load
from learn_spark.features.ledger import LedgerRow
from learn_spark.features.read import read_release
from learn_spark.report.scores import best, scores_of
from learn_spark.report.titles import titles_of

REASONS = 3
SHOWN_EVENTS = 10


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

    Scores every item, or with ``by_index`` the items that the release's exported index returns (an approximate index
    may miss some). The history is the input of the released user vector: user_histories at the release's version, all
    chunks. Equal scores are in the order of item_id.

    Raises NoReleaseError; ItemIndexError if the release has no complete index; LearnSparkError if the release has no
    such user.
    """
    release = read_release(workspace, as_of)
    user = _features(workspace, "user_features", release, pc.field("user_id") == user_id)
    if not user.num_rows:
        raise LearnSparkError(_unknown(workspace, user_id, release))
    items = _features(workspace, "item_features", release).sort_by("item_id")
    ids, vectors = items["item_id"].combine_chunks(), fixed_lists(items["embedding"])
    events = _history(workspace, user_id, release)
    seen = pc.index_in(pa.array([item for item, _ in events], pa.string()), ids).drop_null().to_numpy()
    seen = np.unique(seen).astype(np.int64)
    user_vector = fixed_lists(user["embedding"])[0]
    if by_index:
        index = load(
            workspace.place / "indexes" / release.release_id,
            release_id=release.release_id,
            cache=workspace.folder("cache", "indexes"),
        )
        # len(seen) more, because the items of the history are removed from the result.
        _, (candidates,) = index.search(user_vector[None], k + len(seen))
        near_user = pc.index_in(pa.array(candidates, pa.string()), ids).to_numpy()
        scores = np.full(len(vectors), -np.inf)
        scores[near_user] = scores_of(vectors[near_user], user_vector, np.zeros(0, np.int64))
        scores[seen] = -np.inf
    else:
        scores = scores_of(vectors, user_vector, seen)
    # Vectors are in the order of item_id, so equal scores are too.
    chosen = [(int(at), float(scores[at])) for at in best(scores, k)]
    titles = titles_of(workspace, [*(item for item, _ in events), *(ids[at].as_py() for at, _ in chosen)])
    unit_seen = _unit(vectors[seen])

    def near(at: int) -> tuple[Near, ...]:
        cosines = unit_seen @ _unit(vectors[at])
        nearest = best(cosines, REASONS)
        pairs = [(ids[int(seen[b])].as_py(), float(cosines[b])) for b in nearest]
        return tuple(Near(item, titles[item], cosine) for item, cosine in pairs)

    return Explanation(
        user_id=user_id,
        release_id=release.release_id,
        as_of=release.as_of,
        history=tuple(Event(item, titles[item], time) for item, time in events),
        recommendations=tuple(
            Recommendation(item, titles[item], score, near(at)) for at, score in chosen for item in [ids[at].as_py()]
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
