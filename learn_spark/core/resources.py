"""Folders of the package's data files, in a checkout or in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def resource_folder(name: str) -> Path:
    """The folder ``schemas`` or ``conf`` of the checkout, else its copy in the wheel. Raises FileNotFoundError."""
    for folder in (_PACKAGE.parent / name, _PACKAGE / f"_{name}"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"there is no folder {name}/ in {_PACKAGE.parent} and no _{name}/ in {_PACKAGE}; reinstall learn-spark"
    )
