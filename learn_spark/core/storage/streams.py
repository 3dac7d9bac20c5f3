"""Arrow's open files as Python's libraries of text and compression read them."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

import pyarrow as pa


def buffered(file: pa.NativeFile, size: int) -> BinaryIO:
    """The file, read in requests of ``size`` bytes; closing it closes ``file``."""
    return cast(BinaryIO, io.BufferedReader(_Raw(file), size))


class _Raw(io.RawIOBase):
    """A file of Arrow as io.BufferedReader takes it."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
