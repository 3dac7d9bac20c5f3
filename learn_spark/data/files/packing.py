"""Packed files, and files of other formats that are recognised by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import re
from pathlib import PurePath
from typing import BinaryIO, cast

# What is unpacked, by the ending of the name as Spark does it.
_MAGIC = {"gzip": rb"\x1f\x8b", "bzip2": rb"BZh[1-9](1AY&SY|\x17\x72)"}
_SUFFIXES = {"gzip": ".gz", "bzip2": ".bz2"}
# Patterns that no header of a CSV file has: one may begin with ORCID.
_OTHER_FORMATS = {
    rb"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack it, or save it as CSV",
    rb"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as CSV",
    rb"\x28\xb5\x2f\xfd": "packed by zstd: unpack it, or pack it by gzip",
    rb"\xfd7zXZ\x00": "packed by xz: unpack it, or pack it by gzip",
    rb"\x04\x22\x4d\x18": "packed by lz4: unpack it, or pack it by gzip",
    rb"SQLite format 3\x00": "an SQLite database: export its tables as CSV",
    rb"Obj\x01": "Avro: write it as Parquet",
    rb"ORC[\x00-\x08\x0a-\x0c\x0e-\x1f\x80-\xff]": "ORC: write it as Parquet",
    rb"ARROW1\x00\x00": "an Arrow file: write it as Parquet",
}
# Spark would unpack these by their names.
_OTHER_SUFFIXES = (".deflate", ".snappy", ".lz4", ".zst", ".xz", ".Z", ".zip")


def unpacked(name: str, packed: BinaryIO) -> BinaryIO:
    """The bytes of an open file of this name, unpacked as Spark does: by the ending .gz or .bz2."""
    if name.endswith(_SUFFIXES["gzip"]):
        return cast(BinaryIO, gzip.open(packed, "rb"))
    return cast(BinaryIO, bz2.open(packed, "rb")) if name.endswith(_SUFFIXES["bzip2"]) else packed


def packing_fault(name: str, start: bytes) -> str | None:
    """Why a file is not read as its ``name`` says, by its first bytes ``start`` (16 or more); None where it is."""
    packed = next((kind for kind, magic in _MAGIC.items() if re.match(magic, start)), None)
    ending = PurePath(name).suffix
    if packed is not None:
        suffix = _SUFFIXES[packed]
        return None if ending == suffix else f"it is {packed}: name it {name}{suffix}"
    if what := next((what for magic, what in _OTHER_FORMATS.items() if re.match(magic, start)), None):
        return f"it is {what}"
    if start and ending in _SUFFIXES.values():
        return f"its name ends in {ending}, and it is not packed so: rename it"
    if ending in _OTHER_SUFFIXES:
        return f"files that end in {ending} are not read: unpack it, or pack it by gzip"
    return None
