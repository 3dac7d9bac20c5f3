"""What is beside the tables: pages that show users, rankers' vocabularies, staged releases, caches and logs."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from learn_spark.ads.rankers.store import FOLDER as RANKINGS
from learn_spark.ads.rankers.store import MANIFEST, VOCABULARIES
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.storage.worker_files import FOLDER as WORKER_FILES
from learn_spark.core.tables.mentions import SHORT_NUMBER
from learn_spark.core.tables.workspace import Workspace

# Folders that may have rows of users and are made again: of the workspace's place, and of its scratch folder. Items,
# models and texts have none.
_AT_PLACE = ("staged", "staging", WORKER_FILES, "models/unfinished")
_IN_SCRATCH = (
    "logs",
    "staging",
    "new",
    "models/unfinished",
    "cache/evaluation",
    "cache/rank_ads",
    "cache/index_vectors",
)
_OF_ITEMS = frozenset({"to_encode"})
# Texts that are written for people: pages, plots, tables of studies, logs of searches.
_PAGES = ("reports", "studies", "searches")
_SHOWN = (".html", ".htm", ".json", ".csv", ".txt", ".md", ".svg", ".log", ".yaml", ".yml", ".jsonl")
_WORD = re.compile(r"[^\W_]+")
_VALUE = re.compile(r"""[^\s,;|:=()<>{}\[\]"']+""")
# A short number is a user's where it is called one: it may be any number elsewhere.
_CALLED_USER = re.compile(r"\buser(?:_id)?[^\w]{1,6}(\d{1,7})\b", re.IGNORECASE)
_SHORT = re.compile(SHORT_NUMBER)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


@dataclass(frozen=True)
class Left:
    """A file or folder to delete or rewrite: its place, kind, bytes, and why."""

    path: StoragePath
    kind: str
    size: int
    why: str


def names_of(ids: pa.ChunkedArray) -> Callable[[str], bool]:
    """Whether a text names one of ``ids``: as a word or a value, and a short number where it is called a user."""
    every = set(ids.to_pylist())
    short = {one for one in every if _SHORT.match(one)}
    long = every - short
    # Words and values have no blanks: such ids are looked for one by one.
    odd = [one for one in long if not _VALUE.fullmatch(one)]

    def named(text: str) -> bool:
        for form in _forms(text):
            if not long.isdisjoint(_WORD.findall(form)) or not long.isdisjoint(_VALUE.findall(form)):
                return True
            if any(one in form for one in odd) or not short.isdisjoint(_CALLED_USER.findall(form)):
                return True
            # A value at the end of a sentence has its stop.
            if not long.isdisjoint(value.strip(".!?") for value in _VALUE.findall(form)):
                return True
        return False

    return named


def _forms(text: str) -> set[str]:
    """A text as it stands, without HTML's escapes, and without those of JSON, which may be in a text of JSON itself."""
    forms = {text, html.unescape(text)}
    plain = text
    for _ in range(2):
        plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], plain)
        forms.add(plain)
    return forms


def files_to_delete(workspace: Workspace, named: Callable[[str], bool]) -> Iterator[Left]:
    """Folders of what can be made again, and pages that name a user."""
    scratch = storage_path(workspace.scratch)
    folders = [*(workspace.place / name for name in _AT_PLACE), *(scratch / name for name in _IN_SCRATCH)]
    for folder in dict.fromkeys(folders):
        sizes: dict[str, int] = {}
        for entry in folder.files():
            name = entry.path[len(folder) :].lstrip("/").partition("/")[0]
            sizes[name] = sizes.get(name, 0) + entry.size
        for name in sorted(name for name, size in sizes.items() if size and name not in _OF_ITEMS):
            yield Left(folder / name, "cache", sizes[name], "temporary rows or a log, which may have users")
    for folder in (workspace.place / RANKINGS).children():
        if not (folder / MANIFEST).is_file():  # a killed run left it, and nobody reads it
            yield Left(folder, "cache", sum(one.size for one in folder.files()), "rankers that were not saved")
    for place in dict.fromkeys((workspace.place, scratch)):
        for name in _PAGES:
            for entry in (place / name).files():
                if entry.path.suffix in _SHOWN and named(_text(entry.path)):
                    yield Left(entry.path, "page", entry.size, "it shows a user")


def vocabularies_with(workspace: Workspace, ids: pa.ChunkedArray) -> Iterator[Left]:
    """The vocabularies of saved ads rankers that have one of the users."""
    for folder in (workspace.place / RANKINGS).children():
        file = folder / VOCABULARIES
        if (
            (folder / MANIFEST).is_file()
            and file.is_file()
            and (number := pc.sum(_is_user(_vocabulary(file), ids)).as_py())
        ):
            yield Left(file, "vocabulary", number, "values of the field user_id")


def forget_in_vocabulary(file: StoragePath, ids: pa.ChunkedArray) -> None:
    """Rewrite a vocabulary without the users: to the rankers they are unknown then. The manifest gets its new hash."""
    table = _vocabulary(file)
    kept = table.filter(pc.invert(_is_user(table, ids)))
    sink = pa.BufferOutputStream()
    pq.write_table(kept, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    manifest = file.parent / MANIFEST
    facts = json.loads(manifest.read_text())
    facts["vocabularies"] = hashlib.sha256(content).hexdigest()
    # A killed run leaves another hash than the file's: the users are looked for by the file, so that it is done again.
    manifest.write_text(json.dumps(facts, indent=1, sort_keys=True))
    file.write_bytes(content)


def _vocabulary(file: StoragePath) -> pa.Table:
    return pq.read_table(pa.BufferReader(file.read_bytes()))


def _is_user(table: pa.Table, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.and_(pc.equal(table["field"], "user_id"), pc.is_in(table["value"], value_set=ids))


def _text(path: StoragePath) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")
