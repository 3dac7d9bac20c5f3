"""The header of a GGUF file, read within bounds: its reader in transformers trusts every length in it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

MOST_KEYS = 10_000
MOST_VALUES = 4_000_000  # of all lists; a vocabulary of 256,000 has some 800,000
MOST_TENSORS = 100_000
MOST_DIMENSIONS = 4  # of a tensor, as ggml has it
MOST_NUMBERS_A_BYTE = 8  # no type of ggml has less than a bit a number
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_INTEGERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_TEXT, _LIST = 8, 9


class GgufError(Exception):
    """The header is cut off, or a number in it is beyond its bound; the message says which."""


@dataclass(frozen=True)
class GgufHeader:
    """The number of tensors, and the integers among the keys."""

    tensors: int
    numbers: dict[str, int]


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of a file. Raises GgufError, and OSError where the file cannot be opened."""
    size = path.stat().st_size
    with path.open("rb") as file:
        return _Reader(file, size).header()


class _Reader:
    """Reads a header of a file of ``size`` bytes from its start."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._values = 0

    def header(self) -> GgufHeader:
        if self._bytes(4) != b"GGUF":
            raise GgufError("it does not begin with GGUF")
        version = self._number("<I")
        if version not in (2, 3):
            raise GgufError(f"its version is {version}; 2 and 3 are read")
        tensors = self._at_most(MOST_TENSORS, "tensors")
        numbers: dict[str, int] = {}
        for _ in range(self._at_most(MOST_KEYS, "keys")):
            key, kind = self._text(), self._number("<I")
            if kind in _INTEGERS:
                numbers[key] = self._number(_INTEGERS[kind])
            else:
                self._pass_over(kind)
        for _ in range(tensors):
            self._tensor()
        return GgufHeader(tensors, numbers)

    def _tensor(self) -> None:
        name = self._text()
        dimensions = self._number("<I")
        if dimensions > MOST_DIMENSIONS:
            raise GgufError(f"the tensor {name[:60]!r} has {dimensions:,} dimensions, at most {MOST_DIMENSIONS} exist")
        count = prod(self._number("<Q") for _ in range(dimensions))
        if count > MOST_NUMBERS_A_BYTE * self._size:
            raise GgufError(f"the tensor {name[:60]!r} has {count:,} numbers, the file {self._size:,} bytes")
        self._number("<I")  # type
        if (start := self._number("<Q")) > self._size:
            raise GgufError(f"the tensor {name[:60]!r} begins at byte {start:,}, the file has {self._size:,}")

    def _pass_over(self, kind: int) -> None:
        if kind == _TEXT:
            self._skip(self._number("<Q"))
        elif kind == _LIST:
            of = self._number("<I")
            count = self._number("<Q")
            self._values += count
            if self._values > MOST_VALUES:
                raise GgufError(f"its lists have {self._values:,} values, at most {MOST_VALUES:,} are read")
            if of == _TEXT:
                for _ in range(count):
                    self._skip(self._number("<Q"))
            else:
                self._skip(count * self._size_of(of))
        else:
            self._skip(self._size_of(kind))

    def _size_of(self, kind: int) -> int:
        if kind not in _SIZES:
            raise GgufError(f"it has a value of the unknown type {kind}")
        return _SIZES[kind]

    def _at_most(self, most: int, what: str) -> int:
        if (count := self._number("<Q")) > most:
            raise GgufError(f"it has {count:,} {what}, at most {most:,} are read")
        return count

    def _text(self) -> str:
        return self._bytes(self._number("<Q")).decode("utf-8", "replace")

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._bytes(struct.calcsize(form)))[0])

    def _bytes(self, count: int) -> bytes:
        self._check(count)
        return self._file.read(count)

    def _skip(self, count: int) -> None:
        self._check(count)
        self._file.seek(count, io.SEEK_CUR)

    def _check(self, count: int) -> None:
        if count > self._size - self._file.tell():
            raise GgufError(f"it is cut off, or a length in it is wrong: {count:,} bytes are to follow")
