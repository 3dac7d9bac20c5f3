"""The files of a folder or address that match a pattern."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from learn_spark.core.storage.path import Entry, StoragePath

_WILD = re.compile(r"[*?\[]")


def matching(folder: StoragePath, pattern: str) -> list[Entry]:
    """The files below ``folder`` whose paths match ``pattern``, sorted by path.

    ``*``, ``?`` and ``[abc]`` match within a name, ``**/`` matches any number of folders. At an address a pattern with
    wildcards costs one listing of its fixed folders: of all below them where it names further folders, a request for
    1,000 files.
    """
    if folder.is_local:
        found = []
        for path in Path(folder).glob(pattern):
            if path.is_file():
                status = path.stat()
                found.append(Entry(StoragePath(str(path), folder.s3), status.st_size, status.st_mtime_ns))
    else:
        fixed, wild = _parts(pattern)
        base = folder
        for part in fixed:
            base = base / part
        if not wild:
            found = [entry for entry in (base.entry(),) if entry is not None]
        else:
            listed = base.files(recursive=len(wild) > 1)
            found = [entry for entry in listed if _matches(entry.path[len(base) + 1 :].split("/"), wild)]
    return sorted(found, key=lambda entry: entry.path)


def _parts(pattern: str) -> tuple[list[str], list[str]]:
    """The names before the first wildcard, and the others."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    first = next((place for place, part in enumerate(parts) if _WILD.search(part)), len(parts))
    return parts[:first], parts[first:]


def _matches(names: list[str], parts: list[str]) -> bool:
    """Whether a relative path, in its parts, matches a pattern, in its parts. As pathlib has it, ** matches folders."""
    if not names or not parts:
        return not names and not parts
    if parts[0] == "**":
        return any(_matches(names[skipped:], parts[1:]) for skipped in range(len(names)))
    return fnmatch.fnmatchcase(names[0], parts[0]) and _matches(names[1:], parts[1:])
