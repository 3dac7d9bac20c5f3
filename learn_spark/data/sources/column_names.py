"""Names of a file's columns that Spark can tell apart: it ignores case, and files repeat names or leave them out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence

from learn_spark.data.sources.wording import shown_names


def is_plain(name: str) -> bool:
    """Whether this is a column name and not an expression."""
    return name.replace("_", "a").replace(" ", "a").replace(".", "a").replace("-", "a").isalnum() and not name.isdigit()


def quoted(name: str) -> str:
    """A column name as Spark SQL reads it back."""
    return "`" + name.replace("`", "``") + "`"


def distinct_names(names: Sequence[str], mapped: Collection[str] = ()) -> tuple[str, ...]:
    """One name a column, none equal to another in any case; a nameless column is ``column <number>``.

    ``mapped`` are the column names and expressions of the settings. Of names that differ by case, one that they mention
    exactly keeps its name; the others get a number. Raises ValueError, with a sentence, where it is not clear which
    column they mean.
    """
    named = [name if name.strip() else f"column {place}" for place, name in enumerate(names, start=1)]
    same: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(named):
        same[name.casefold()].append(place)
    taken = set(same)
    for places in same.values():
        if len(places) == 1:
            continue
        keeps = _meant([named[place] for place in places], mapped)
        for number, place in enumerate([place for place in places if place != places[keeps]], start=2):
            renamed = f"{named[place]} ({number})"
            while renamed.casefold() in taken:
                renamed += "'"
            taken.add(renamed.casefold())
            named[place] = renamed
    return tuple(named)


def _meant(names: Sequence[str], mapped: Collection[str]) -> int:
    """The place of the name that keeps it. Raises ValueError where ``mapped`` could mean several."""
    exact = [name for name in names if name in mapped]
    word = re.compile(rf"(?<!\w){re.escape(names[0])}(?!\w)", re.IGNORECASE)
    in_expression = any(word.search(sql) and not is_plain(sql) for sql in mapped)
    if in_expression or len(exact) > 1 or (exact and names.count(exact[0]) > 1):
        raise ValueError(f"its columns {shown_names(names)} have one name (case does not count); rename all but one")
    return names.index(exact[0]) if exact else 0
