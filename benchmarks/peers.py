"""Environments of their own for the packages that benchmarks compare with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def make_environment(
    place: Path, packages: Sequence[str], same: Sequence[str], without_dependencies: Sequence[str] = ()
) -> Path:
    """Make the environment where it is not there, with our versions of the packages ``same``; returns its Python."""
    python = place.resolve() / "bin" / "python"
    if not python.exists():
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(place)], check=True)
        install = [uv, "pip", "install", "-q", "--python", str(python)]
        subprocess.run([*install, *packages, *(f"{package}=={version(package)}" for package in same)], check=True)
        if without_dependencies:
            subprocess.run([*install, "--no-deps", *without_dependencies], check=True)
    return python
