"""Folders of the package's data files, in a checkout, an installed wheel, or a zip file of Spark's --py-files."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from zipfile import ZipFile


@cache
def package_folder() -> Path:
    """The folder of the package; for a package in a zip file, a temporary folder with its files, deleted at exit."""
    folder = Path(__file__).resolve().parents[1]
    if folder.is_dir():
        return folder
    archive = next((parent for parent in folder.parents if parent.is_file()), None)
    if archive is None:
        return folder
    temporary = Path(tempfile.mkdtemp(prefix="learn-spark-package-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    inner = folder.relative_to(archive)
    with ZipFile(archive) as files:
        files.extractall(temporary, [name for name in files.namelist() if name.startswith(f"{inner}/")])
    return temporary / inner


def resource_folder(name: str) -> Path:
    """The folder ``schemas`` or ``conf`` of the checkout, else its copy in the wheel. Raises FileNotFoundError."""
    package = package_folder()
    for folder in (package.parent / name, package / f"_{name}"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"there is no folder {name}/ in {package.parent} and no _{name}/ in {package}; reinstall learn-spark"
    )
