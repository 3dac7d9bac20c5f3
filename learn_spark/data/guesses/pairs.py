"""Which files hold the items and which the events, and the column by which they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from learn_spark.core.errors import SettingsError
from learn_spark.data.guesses.file_sets import FileSet
from learn_spark.data.guesses.names import file_score, name_score, plain
from learn_spark.data.guesses.profiles import Profile, profiles


@dataclass(frozen=True)
class Described:
    """A set of files with the profile of each column."""

    files: FileSet
    columns: dict[str, Profile]


@dataclass(frozen=True)
class Pair:
    """The files of items and of events; ``item_key`` and ``event_key`` are their columns of the item's id.

    ``overlap``: share of the sampled events' items that are among the sampled items.
    """

    items: Described
    events: Described
    item_key: str
    event_key: str
    overlap: float


def describe(sets: Sequence[FileSet]) -> list[Described]:
    """The sets that have rows, with profiles."""
    return [Described(one, profiles(one.columns, one.rows)) for one in sets if one.rows]


def choose(described: Sequence[Described], items: str | None = None, events: str | None = None) -> Pair:
    """The best pair; ``items`` and ``events`` are patterns that settle the choice. Raises SettingsError."""
    best: tuple[float, Pair] | None = None
    for log in _named(described, events):
        times = [p for p in log.columns.values() if p.time is not None]
        if not times or sum(p.is_id for p in log.columns.values()) < 2:
            continue
        for catalogue in _named(described, items):
            found = _keys(catalogue, log)
            if found is None:
                continue
            score, pair = found
            score += file_score(log.files.pattern) - file_score(catalogue.files.pattern)
            score += 0.5 * any(p.is_text and not p.is_id for p in catalogue.columns.values())
            score += max(name_score("user_id", column) for column in log.columns)
            score += 0.5 * max(name_score("title", column) for column in catalogue.columns)
            score -= 1.5 * (catalogue is log)
            if best is None or score > best[0]:
                best = score, pair
    if best is None:
        raise SettingsError(_nothing_fits(described))
    return best[1]


def _named(described: Sequence[Described], pattern: str | None) -> list[Described]:
    if pattern is None:
        return list(described)
    chosen = [
        one for one in described if pattern == one.files.pattern or any(f.name == pattern for f in one.files.files)
    ]
    if not chosen:
        raise SettingsError(
            f"no table is called {pattern}; those that were found: {', '.join(one.files.pattern for one in described)}"
        )
    return chosen


def _keys(catalogue: Described, log: Described) -> tuple[float, Pair] | None:
    best: tuple[float, Pair] | None = None
    same = catalogue is log
    for event_key in (p for p in log.columns.values() if p.is_id):
        event_name = name_score("item_id", event_key.column)
        others = max(name_score(field, event_key.column) for field in ("user_id", "event_id", "value", "event_type"))
        for item_key in [event_key] if same else (p for p in catalogue.columns.values() if p.is_id):
            overlap = len(event_key.distinct & _all(catalogue, item_key.column)) / len(event_key.distinct)
            score = 2 * overlap + event_name + name_score("item_id", item_key.column) - others
            score += 0.7 * (plain(event_key.column) == plain(item_key.column)) - 0.3 * (event_key.present < 0.5)
            if not same:
                score += 0.5 if item_key.unique_share >= 0.95 else -1.0
            if best is None or score > best[0]:
                best = score, Pair(catalogue, log, item_key.column, event_key.column, overlap)
    # Without a name or a common value, nothing says that these columns are the item's id.
    overlaps = best is not None and best[1].overlap >= 0.05 and not same
    if best is None or (not overlaps and name_score("item_id", best[1].event_key) == 0):
        return None
    return best


def _all(described: Described, column: str) -> frozenset[str]:
    return frozenset(v for row in described.files.rows if (v := row.get(column)) is not None)


def _nothing_fits(described: Sequence[Described]) -> str:
    if not described:
        return "there is no table with rows"
    lines = ["no files fit together as items and events: events need a time, a user and an item, and items that item"]
    for one in described:
        kinds = [f"{name} ({_kind(profile)})" for name, profile in one.columns.items()]
        lines.append(f"  {one.files.pattern}: {', '.join(kinds)}")
    return "\n".join(lines)


def _kind(profile: Profile) -> str:
    if profile.time is not None and not profile.is_id:
        return "time"
    if not profile.values:
        return "empty"
    return "id" if profile.is_id else "number" if profile.number_form else "text"
