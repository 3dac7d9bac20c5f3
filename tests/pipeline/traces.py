"""Everything that a folder's files say of some text: their bytes, and of Parquet the values and the footers."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq


def traces(root: Path, needles: Iterable[str]) -> list[str]:
    """The files below ``root``, hidden ones included, that have one of ``needles``, with where it is."""
    wanted = [needle.encode() for needle in needles]
    found = []
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        for kind, content in _contents(file):
            if any(needle in content for needle in wanted):
                found.append(f"{file.relative_to(root)}: {kind}")
    return found


def _contents(file: Path) -> Iterator[tuple[str, bytes]]:
    content = file.read_bytes()
    yield "bytes", content
    yield "name", str(file).encode()
    if file.name.endswith(".parquet"):
        with pq.ParquetFile(file) as opened:
            # Of files that deltalake's own merges write, this Arrow reads the footers alone.
            yield "footer", f"{opened.metadata}{opened.schema_arrow.metadata}".encode()
            for group in range(opened.metadata.num_row_groups):
                row_group = opened.metadata.row_group(group)
                columns = [row_group.column(at) for at in range(row_group.num_columns)]
                yield "statistics", "".join(str(one.statistics) for one in columns).encode()
            yield "values", str(opened.read().to_pylist()).encode()
    elif content[:2] == b"\x1f\x8b":
        yield "unpacked", zlib.decompress(content, 31)
