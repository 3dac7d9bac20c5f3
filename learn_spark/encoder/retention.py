"""Embeddings that are no longer used: listed first, deleted only on request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.schema import Settings
from learn_spark.core.table_text import Cell
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.snapshot import Snapshot, current_version, open_table
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.identity import identify

BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class KeptKey:
    """An encoder_key with vectors in the table. ``used_by`` is empty where nothing uses it."""

    encoder_key: str
    model: str
    detail: str
    rows: int
    first_used_at: datetime | None
    used_by: tuple[str, ...]


def keys_in_use(workspace: Workspace, settings: Settings, *, without: Collection[str] = ()) -> list[KeptKey]:
    """All keys of text_embeddings, newest first, each with its uses: the settings, trained models, unexpired releases.

    ``without`` are uses that do not count (``model <id>``, ``release <id>``). Raises LearnSparkError where there is no
    table.
    """
    path = workspace.table("text_embeddings")
    if current_version(path) is None:
        raise LearnSparkError(f"there is no table text_embeddings in {workspace.place} yet")
    rows: Counter[str] = Counter()
    for batch in Snapshot.open(path).batches(["encoder_key"], BATCH_ROWS):
        counted = pc.value_counts(batch["encoder_key"])
        rows.update(dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)))
    registered = {row["encoder_key"]: row for row in read_rows(workspace.table("encoders"))}
    users: dict[str, list[str]] = {identify(settings.encoder).key: ["these settings"]}
    for folder in (workspace.place / "models").children():
        manifest = folder / "manifest.json"
        if manifest.is_file():
            users.setdefault(json.loads(manifest.read_text()).get("encoder_key"), []).append(f"model {folder.name}")
    ledger = sorted(read_rows(workspace.table("releases")), key=lambda row: row["sequence"])
    for release in {row["release_id"]: row for row in ledger}.values():
        if release["status"] != "expired":
            users.setdefault(release["encoder_key"], []).append(f"release {release['release_id']}")
    kept_keys = []
    for key, count in rows.items():
        row = registered.get(key, {})
        detail = ", ".join(str(row[n]) for n in ("pooling", "max_tokens", "precision") if n in row)
        used = tuple(use for use in users.get(key, ()) if use not in without)
        kept_keys.append(KeptKey(key, row.get("model", "unknown"), detail, count, row.get("first_used_at"), used))
    return sorted(kept_keys, key=lambda kept: (str(kept.first_used_at), kept.encoder_key), reverse=True)


def forget(workspace: Workspace, keys: list[str]) -> int:
    """Delete the vectors of these keys in one commit; returns their number. A later VACUUM frees the space.

    Raises LearnSparkError where a file has vectors of other keys too: Arrow 14 cannot read the files that deltalake
    would write in their place.
    """
    path = workspace.table("text_embeddings")
    table = open_table(path)
    for file in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        # Statistics of long strings are truncated after 32 characters.
        least, most = (str(file[f"{end}.encoder_key"])[:32] for end in ("min", "max"))
        if least != most and any(least <= key[:32] <= most for key in keys):
            listed = ", ".join(f"'{key}'" for key in keys)
            raise LearnSparkError(
                f"{file['path']} of text_embeddings has vectors of several encoders; delete them by Spark: "
                f"DELETE FROM delta.`{path}` WHERE encoder_key IN ({listed})"
            )
    listed = ", ".join(f"'{key}'" for key in keys)
    metrics = table.delete(f"encoder_key in ({listed})")
    return int(metrics["num_deleted_rows"])


def show_embeddings(workspace: Workspace, settings: Settings, console: Reporter, *, delete: bool) -> None:
    """Print every encoder's vectors and their uses; with ``delete``, delete those without a use."""
    kept = keys_in_use(workspace, settings)
    rows: list[list[Cell]] = [
        [k.encoder_key, k.model, k.detail, k.rows, ", ".join(k.used_by) or "nothing: to be deleted"] for k in kept
    ]
    console.table("Embeddings by encoder", ["key", "model", "how", "rows", "used by"], rows, name="encoders")
    unused = [k for k in kept if not k.used_by]
    if not unused:
        console.line("nothing to delete")
    elif delete:
        console.line(f"deleted {forget(workspace, [k.encoder_key for k in unused]):,} rows")
    else:
        console.line(f"--delete would delete {sum(k.rows for k in unused):,} rows of {len(unused)} encoders")
