"""The build backend: setuptools, whose archives are written again so that the same sources give the same bytes.

Times are SOURCE_DATE_EPOCH (seconds since 1970; default: the first day of 1980), owners are nobody, modes are 644, or
755 for programs, and an sdist lists its files by name.
"""

# ruff: noqa: F403  (the hooks of setuptools that are not changed)
from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta as setuptools_build
from setuptools.build_meta import *

FIRST_DAY_OF_ZIP = 315532800  # 1980-01-01: a zip file has no earlier time


def build_sdist(sdist_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """Write the sdist into a folder; its file name."""
    name = str(setuptools_build.build_sdist(sdist_directory, config_settings))
    path = Path(sdist_directory, name)
    with tarfile.open(path) as archive:
        members = sorted(archive.getmembers(), key=lambda member: member.name)
        contents = [file.read() if (file := archive.extractfile(member)) else b"" for member in members]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member, content in zip(members, contents, strict=True):
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.mtime = member.type, len(content), _epoch()
            plain.mode = 0o755 if member.isdir() else _mode(member.mode)
            archive.addfile(plain, io.BytesIO(content))
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=_epoch()))
    return name


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Write the wheel into a folder; its file name."""
    name = str(setuptools_build.build_wheel(wheel_directory, config_settings, metadata_directory))
    path = Path(wheel_directory, name)
    with zipfile.ZipFile(path) as archive:
        files = [(one, archive.read(one)) for one in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in files:
            plain = zipfile.ZipInfo(info.filename, time.gmtime(_epoch())[:6])
            plain.external_attr = (0o100000 | _mode(info.external_attr >> 16)) << 16
            plain.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(plain, content)
    return name


def _epoch() -> int:
    return max(FIRST_DAY_OF_ZIP, int(os.environ.get("SOURCE_DATE_EPOCH", FIRST_DAY_OF_ZIP)))


def _mode(mode: int) -> int:
    return 0o755 if mode & 0o100 else 0o644
