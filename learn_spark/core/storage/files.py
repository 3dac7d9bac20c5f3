"""Files that appear whole: written beside their place and renamed, with the mode that the umask gives."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; the folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def umask() -> int:
    """The umask of this process, which is not changed for it where Linux names it: other threads may make files."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("\nUmask:")[2].split()[0], 8)
    except (OSError, IndexError, ValueError):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def give_usual_mode(path: Path) -> None:
    """Give a file the mode that the umask gives to new files: safetensors makes files that only their owner reads."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.mode")
    beside.touch()
    try:
        path.chmod(beside.stat().st_mode & 0o777)
    finally:
        beside.unlink()
