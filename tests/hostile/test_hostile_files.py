"""Attacks by raw files, as far as Python reads them: what init, a dry run and the search for a corrupt file open."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import resource
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from learn_spark.core.settings.source import FilesSettings
from learn_spark.core.storage.path import storage_path
from learn_spark.data.guesses.look import look
from learn_spark.data.guesses.table_files import SAMPLE_BYTES
from learn_spark.data.sources import corrupt_files, headers, text_lines
from learn_spark.data.sources.corrupt_files import first_corrupt_file
from learn_spark.data.sources.headers import columns_of
from learn_spark.data.sources.location import LocationError, resolve
from learn_spark.data.sources.source import RawFile, UnreadableFileError, find_files

pytestmark = pytest.mark.filterwarnings("ignore")
NESTED = '{"a":' * 10_000 + "1" + "}" * 10_000
LISTS = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"


class Planted:
    """Its pickle makes the file ``marker``."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"__import__('pathlib').Path({str(self.marker)!r}).touch()",)


@contextmanager
def memory(mebibytes: int) -> Iterator[None]:
    """In this block the process may take so much more address space."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + (mebibytes << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def found(folder: Path, pattern: str = "*") -> list[RawFile]:
    return find_files(storage_path(folder), pattern, ["items"])


@pytest.mark.parametrize("line", [NESTED, LISTS], ids=["objects", "lists"])
def test_json_nested_thousands_deep_is_passed_over(line: str, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(f'{{"id": "1", "title": "Lamp"}}\n{line}\n')
    described = FilesSettings(files="items.jsonl", format="json-lines", columns={"item_id": "id"})
    assert look(tmp_path).files[0].columns == ("id", "title")
    assert columns_of(found(tmp_path)[0], described) == ("id", "title")


def test_a_file_of_nested_json_alone_is_named(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(f"{NESTED}\n")
    assert "not one object a line" in look(tmp_path).passed_over["items.jsonl"]


@pytest.mark.parametrize("packed", [False, True])
def test_one_line_of_a_gigabyte_is_named(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file has no blocks, and zeros pack to a thousandth; the limit is small to be quick when packed."""
    start = b"id,title\n1,"
    if packed:
        monkeypatch.setattr(corrupt_files, "LONGEST_LINE", 1 << 22)
        monkeypatch.setattr(corrupt_files, "CHUNK_BYTES", 1 << 20)
        (tmp_path / "items.csv.gz").write_bytes(gzip.compress(start + b"a" * (1 << 25), 1))
    else:
        (tmp_path / "items.csv").write_bytes(start)
        os.truncate(tmp_path / "items.csv", 1 << 30)
    with memory(400):
        fault = first_corrupt_file(found(tmp_path))
    assert fault is not None
    assert "has a line of more than" in str(fault)


def test_lines_within_the_limit_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrupt_files, "CHUNK_BYTES", 10)
    monkeypatch.setattr(corrupt_files, "LONGEST_LINE", 25)
    (tmp_path / "a.csv").write_bytes(b"a" * 25 + b"\r\n" + b"b" * 25 + b"\n\n" + b"c" * 25)
    assert first_corrupt_file(found(tmp_path)) is None
    (tmp_path / "a.csv").write_bytes(b"a\n" + b"b" * 26 + b"\nc\n")
    assert first_corrupt_file(found(tmp_path)) is not None


def test_a_dry_run_counts_no_lines_of_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "_UNPACKED_BYTES", 1 << 23)
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress(b"id,title\n" + b"1,a\n" * (1 << 19), 1))
    assert headers._rows(found(tmp_path), header=True) == 1 << 19
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress(b"id,title\n" + b"1,a\n" * (1 << 22), 1))
    assert headers._rows(found(tmp_path), header=True) is None


def test_a_line_without_end_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """UTF-16 is decoded by Python: a batch has at most so many characters, and no character is lost."""
    monkeypatch.setattr(text_lines, "_CHARACTERS", 10)
    text = "ab\ncd\n" + "x" * 35 + "\nend"
    stream, batches = io.StringIO(text), []
    while some := text_lines._next_lines(stream):
        batches.append(some)
    assert [line for batch in batches for line in batch] == ["ab", "cd", *["x" * 10] * 3, "xxxxx", "end"]
    assert all(sum(map(len, batch)) < 20 for batch in batches)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"id": [str(n) for n in range(100)], "title": ["Lamp"] * 100}), path)
    return path


def test_footers_that_lie_are_named(parquet: Path) -> None:
    whole = parquet.read_bytes()
    length = struct.unpack("<I", whole[-8:-4])[0]
    lies = {
        "cut": whole[: len(whole) // 2],
        "long": whole[:-8] + struct.pack("<I", (1 << 31) - 1) + b"PAR1",
        "junk": b"PAR1" + b"\xff" * 5_000 + struct.pack("<I", 4_000) + b"PAR1",
    }
    for name, content in lies.items():
        (parquet.parent / f"{name}.parquet").write_bytes(content)
    chance = random.Random(1)
    for number in range(40):
        content = bytearray(whole)
        for _ in range(3):
            content[chance.randrange(len(whole) - 8 - length, len(whole) - 8)] = chance.randrange(256)
        (parquet.parent / f"changed-{number}.parquet").write_bytes(content)
    seen = look(parquet.parent)
    assert "items.parquet" in {file.name for file in seen.files}
    assert seen.passed_over.keys() >= {f"{name}.parquet" for name in lies}
    assert len(seen.files) + len(seen.passed_over) == 44
    assert all("\n" not in why for why in seen.passed_over.values())


def test_a_dictionary_that_makes_a_small_file_gigabytes_is_read_in_part(tmp_path: Path) -> None:
    value = "x" * (1 << 20)
    titles = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([value]))
    path = tmp_path / "items.parquet"
    table = pa.table({"id": [str(n) for n in range(20_000)], "title": titles})
    pq.write_table(table, path, store_schema=False, compression="zstd")
    assert path.stat().st_size < 100_000  # 20 GB of text
    with memory(1_500):
        (file,) = look(tmp_path).files
    assert 1 <= len(file.rows) <= SAMPLE_BYTES >> 19
    assert not file.complete


def test_a_pickled_type_in_a_footer_is_not_loaded(tmp_path: Path) -> None:
    """pyarrow before 14.0.1 unpickled it (CVE-2023-47248)."""
    marker = tmp_path / "executed"
    planted = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Planted(marker)),
    }
    field = pa.field("id", pa.string(), metadata=planted)
    (tmp_path / "shop").mkdir()
    pq.write_table(pa.table([pa.array(["1", "2"])], schema=pa.schema([field])), tmp_path / "shop" / "items.parquet")
    look(tmp_path / "shop")
    columns_of(found(tmp_path / "shop")[0], FilesSettings(files="*", format="parquet", columns={"item_id": "id"}))
    assert not marker.exists()


@pytest.mark.parametrize("pattern", ["../secret.csv", "/etc/passwd", "a/../../secret.csv", "file:///etc/passwd"])
def test_a_pattern_leads_nowhere_else(pattern: str, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    with pytest.raises(LocationError, match="leads out of the folder"):
        found(tmp_path / "shop", pattern)


def test_a_package_is_neither_left_nor_imported() -> None:
    for location in ("package:yaml/../../x", "package:os.path/x", "package:../etc/passwd"):
        with pytest.raises(LocationError, match=r"is outside the package|is not installed"):
            resolve(location)


def test_a_link_to_a_device_or_a_pipe_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "items.csv").write_text("id,title\n1,Lamp\n2,Rug\n")
    assert [file.name for file in look(tmp_path).files] == ["items.csv"]
    assert [file.name for file in found(tmp_path, "*.csv")] == ["items.csv"]


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "items.csv", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("items.csv", b"0" * (1 << 24))
    with memory(200):
        assert "ZIP archive" in look(tmp_path).passed_over["items.csv"]
        with pytest.raises(UnreadableFileError, match="ZIP archive"):
            columns_of(found(tmp_path)[0], FilesSettings(files="*", format="csv", columns={"item_id": "id"}))
