"""The parts of an installation: the base, and one extra a role; the error of an import from a part that is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType

from learn_spark.core.errors import LearnSparkError

VERSION = "0.1.0"
BASE = "base"
# The packages that an error can name, of the base and of each extra (pyproject.toml), in the order of --version.
PARTS: dict[str, tuple[str, ...]] = {
    BASE: ("deltalake", "pyarrow", "numpy", "pydantic"),
    "spark": ("pyspark", "delta-spark", "pandas"),
    "encode": ("torch", "transformers", "gguf", "accelerate", "safetensors", "pandas"),
    "train": ("petastorm", "torch", "safetensors", "scipy", "optuna", "tensorboard", "pandas"),
    "quality": ("great-expectations", "pandas"),
    "ads": ("lightgbm", "torch", "safetensors", "scipy", "pandas"),
    "index": ("faiss-cpu",),
    "online": ("redis",),
    "export": ("onnx", "onnxscript", "onnxruntime", "torch", "safetensors"),
    "report": ("altair", "vl-convert-python", "jinja2", "scipy"),
    "mlflow": ("mlflow-skinny",),
    "openlineage": ("openlineage-python",),
}
# Modules whose names are not those of their packages.
_MODULES = {
    "delta": "delta-spark",
    "faiss": "faiss-cpu",
    "great_expectations": "great-expectations",
    "markupsafe": "jinja2",
    "mlflow": "mlflow-skinny",
    "openlineage": "openlineage-python",
    "vl_convert": "vl-convert-python",
    "huggingface_hub": "transformers",
}
# Of a package that several parts have, the part that is meant where a room imports it; the first one elsewhere.
_ROOMS = {
    "learn_spark.ads": "ads",
    "learn_spark.core.quality": "quality",
    "learn_spark.encoder": "encode",
    "learn_spark.evaluation": "train",
    "learn_spark.features.worker": "train",
    "learn_spark.model": "train",
    "learn_spark.report": "report",
}


class MissingPartError(LearnSparkError, ModuleNotFoundError):
    """An import needs a package of an extra that is not installed. ``name`` is the module, ``part`` the extra."""

    def __init__(self, module: str, part: str) -> None:
        super().__init__(
            f"{module} is not installed, which this needs: it is in the extra {part!r}, which "
            f"`pip install 'learn-spark[{part}]'` adds (learn-spark --version lists the parts)"
        )
        self.name: str = module
        self.part = part

    def __reduce__(self) -> tuple[type[MissingPartError], tuple[str, str]]:
        """How it travels from a worker's process."""
        return MissingPartError, (self.name, self.part)


@dataclass(frozen=True)
class Part:
    """A part and the versions of its packages; None for a package that is not installed."""

    name: str
    packages: dict[str, str | None]

    @property
    def installed(self) -> bool:
        """Whether all packages are installed."""
        return None not in self.packages.values()


def parts() -> list[Part]:
    """All parts with what is installed of them. No package is imported."""
    return [Part(name, {package: _version_of(package) for package in packages}) for name, packages in PARTS.items()]


def part_of(module: str, importer: str) -> str | None:
    """The extra that has a module, for the module ``importer`` of learn_spark; None if no extra has it."""
    top = module.partition(".")[0]
    package = _MODULES.get(top, top)
    having = [part for part, packages in PARTS.items() if part != BASE and package in packages]
    meant = [part for room, part in _ROOMS.items() if part in having and f"{importer}.".startswith(f"{room}.")]
    return next(iter([*meant, *having]), None)


def name_missing_parts() -> None:
    """Let an import statement of learn_spark fail by MissingPartError where a package of an extra is not installed.

    Imports of other packages fail as they do without this, and so does ``importlib.util.find_spec``. A second call
    changes nothing.
    """
    if not any(isinstance(finder, _MissingParts) for finder in sys.meta_path):
        sys.meta_path.append(_MissingParts())


class _MissingParts(MetaPathFinder):
    """The last finder of all: what it is asked for, no other finder has found."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None, or MissingPartError if a module of learn_spark imports a top-level module that an extra has."""
        importer = "" if path is not None else _importer(sys._getframe(1))
        if importer.startswith("learn_spark.") and (part := part_of(fullname, importer)):
            raise MissingPartError(fullname, part)
        return None


def _importer(frame: FrameType | None) -> str:
    """The name of the module whose code imports, seen from a frame of the import machinery."""
    while frame is not None and frame.f_globals.get("__name__") in ("importlib", "importlib._bootstrap"):
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _version_of(package: str) -> str | None:
    # 0.1 s to import, which every command would take.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
