"""Where the files that travel with the package lie: in a checkout, or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def resource_folder(name: str) -> Path:
    """The folder ``schemas`` or ``conf``: a checkout's own one, else the copy inside the wheel."""
    for folder in (_PACKAGE.parent / name, _PACKAGE / f"_{name}"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the folder {name}/ is neither beside nor inside {_PACKAGE}: the installation is broken")
