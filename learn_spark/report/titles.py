"""How items are named for people: by their titles, made fit for a line of text."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.tables.scan import scan
from learn_spark.core.tables.workspace import Workspace

LONGEST = 80


def titles_of(workspace: Workspace, item_ids: Iterable[str]) -> dict[str, str]:
    """Titles of ``item_ids`` in the newest catalogue, as ``plain_title`` gives them; the id where there is none."""
    wanted = sorted(set(item_ids))
    rows = scan(workspace, "items", columns=["item_id", "title"], where=pc.field("item_id").isin(pa.array(wanted)))
    found = dict(zip(rows["item_id"].to_pylist(), rows["title"].to_pylist(), strict=True))
    return {item: plain_title(found.get(item)) or item for item in wanted}


def plain_title(title: str | None) -> str:
    """One line without control characters, which a terminal would obey, and at most ``LONGEST`` characters."""
    words = "".join(c if c.isprintable() else " " for c in title or "").split()
    line = " ".join(words)
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"
