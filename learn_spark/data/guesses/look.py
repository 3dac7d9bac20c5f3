"""All raw files of a folder, and those that are passed over with the reason."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from learn_spark.core.errors import SettingsError
from learn_spark.data.files.conventions import partition_values
from learn_spark.data.guesses.contents import (
    GLANCE_BYTES,
    HEAD_BYTES,
    SAMPLE_ROWS,
    Contents,
    UnusableFileError,
    read_head,
)
from learn_spark.data.guesses.file_sets import stem_of
from learn_spark.data.guesses.table_files import read_delta, read_parquet
from learn_spark.data.guesses.text_files import read_text

MOST_FURTHER = 30  # of which more than the beginning is read
MOST_FILES = 2_000  # that are opened; a folder of daily files has some hundred
# Files that stand beside data, and are no tables.
_NOT_DATA = (".md", ".pdf", ".png", ".jpg", ".jpeg", ".yaml", ".yml", ".toml", ".ini", ".py", ".sh", ".sql", ".log")


@dataclass(frozen=True)
class Folder:
    """The tables in a folder, in the order of their names. ``passed_over``: name -> reason."""

    path: Path
    files: tuple[Contents, ...]
    passed_over: dict[str, str]


def look(path: Path) -> Folder:
    """Open the files below ``path`` (or the one file ``path``). Raises SettingsError where there is nothing to open."""
    path = path.expanduser()
    if not path.exists():
        raise SettingsError(f"there is no folder {path}; give the folder of your raw files")
    only = None if path.is_dir() and not (path / "_delta_log").is_dir() else path
    folder = (path if only is None else path.parent).resolve()
    files: list[Contents] = []
    passed_over: dict[str, str] = {}
    unreadable: list[str] = []
    names = list(_found(folder, unreadable)) if only is None else [only.name]
    passed_over |= dict.fromkeys(unreadable, "the folder cannot be opened; correct its rights")
    if len(names) > MOST_FILES:
        passed_over[names[MOST_FILES]] = f"of {len(names):,} files, the first {MOST_FILES:,} are looked at"
    further = _read_further(names[:MOST_FILES])
    for name in names[:MOST_FILES]:
        try:
            opened = _opened(folder / name, name, HEAD_BYTES if name in further else GLANCE_BYTES)
            files.append(_with_folders(opened))
        except UnusableFileError as error:
            passed_over[name] = str(error)
    return Folder(folder, tuple(files), passed_over)


def _with_folders(file: Contents) -> Contents:
    """The file with the columns that its folders name (``dt=2024-03-01/a.csv`` has dt), as ingest reads it."""
    present = {column.casefold() for column in file.columns}
    new = {
        key: value
        for key, value in partition_values(file.name).items()
        if key.isidentifier() and key.casefold() not in present
    }
    if not new or file.format == "delta":
        return file
    return replace(file, columns=(*file.columns, *new), rows=tuple({**row, **new} for row in file.rows))


def _read_further(names: list[str]) -> set[str]:
    """Of each kind of name, such as that of daily files, the first, the middle and the last; at most MOST_FURTHER."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kinds[stem_of(name)].append(name)
    chosen = [{one[0], one[len(one) // 2], one[-1]} for one in kinds.values()]
    return set(list(dict.fromkeys(name for one in chosen for name in sorted(one)))[:MOST_FURTHER])


def _found(folder: Path, unreadable: list[str]) -> Iterator[str]:
    """The names of files and Delta tables below ``folder``, through links too; ``unreadable`` gets folders."""

    def name_of(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    seen: set[str] = set()
    for here, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: unreadable.append(name_of(Path(error.filename)))
    ):
        at, real = Path(here), os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        tables = [name for name in folders if (at / name / "_delta_log").is_dir()]
        yield from (name_of(at / name) for name in sorted(tables))
        folders[:] = sorted(name for name in folders if name not in tables and not name.startswith((".", "_")))
        for name in sorted(names):
            # A pipe would wait for its writer.
            if not name.startswith((".", "_")) and not name.endswith((*_NOT_DATA, ".crc")) and (at / name).is_file():
                yield name_of(at / name)


def _opened(path: Path, name: str, most: int) -> Contents:
    if path.is_dir():
        return read_delta(path, name)
    head, whole = read_head(path, most)
    if head.startswith(b"PAR1"):
        return read_parquet(path, name, SAMPLE_ROWS if most == HEAD_BYTES else 50)
    if path.suffix == ".parquet":
        raise UnusableFileError("it is not Parquet")
    return read_text(path, name, head, whole)
