"""Item titles for display, cleaned and shortened to one line."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.tables.scan import scan
from learn_spark.core.tables.workspace import Workspace

LONGEST = 80


def titles_of(workspace: Workspace, item_ids: Iterable[str]) -> dict[str, str]:
    """Titles of ``item_ids`` by the newest ``items``, cleaned by ``plain_title``; the id of an item without a title."""
    ids = sorted(set(item_ids))
    rows = scan(workspace, "items", columns=["item_id", "title"], where=pc.field("item_id").isin(pa.array(ids)))
    titles = dict(zip(rows["item_id"].to_pylist(), rows["title"].to_pylist(), strict=True))
    return {item: plain_title(titles.get(item)) or item for item in ids}


def plain_title(title: str | None) -> str:
    """``title`` as one line of at most ``LONGEST`` characters, without control characters; "" for None."""
    words = "".join(c if c.isprintable() else " " for c in title or "").split()
    line = " ".join(words)
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"
