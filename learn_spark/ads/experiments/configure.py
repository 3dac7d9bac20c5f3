"""The settings of an experiment, from a YAML file or from a log alone, and what its analysis would read and write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from learn_spark.core.console import Reporter
from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import load_experiment
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.data.sources.exposure_log import log_files
from learn_spark.data.sources.location import source_folder

_FORMATS = {".parquet": "parquet", ".csv": "csv", ".gz": "csv", ".jsonl": "json-lines"}


def settings_of(name: str, overrides: Sequence[str]) -> ExperimentSettings:
    """The experiment that the YAML file ``name`` describes, or one over the log ``name`` in the columns of exposures.

    Raises SettingsError if ``name`` is neither, and for wrong settings.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise SettingsError(f"ab-report: there is no settings file {name}")
        return load_experiment(path, overrides)
    if not path.exists():
        raise SettingsError(
            f"ab-report: there is no {name}; name a log (a Delta table, a folder of Parquet or CSV files, one file), "
            "or a YAML file that describes the experiment"
        )
    resolved = path.resolve()
    tree = {
        "name": resolved.name.partition(".")[0],
        "path": str(resolved.parent),
        "logs": [_log_at(resolved)],
    }
    return load_experiment(tree, overrides)


def _log_at(path: Path) -> dict[str, str]:
    if not path.is_dir():
        return {"files": path.name, "format": _format_of(path)}
    if (path / "_delta_log").is_dir():
        return {"files": path.name, "format": "delta"}
    for suffix, pattern in ((".parquet", "**/*.parquet"), (".csv", "**/*.csv*"), (".jsonl", "**/*.jsonl*")):
        if any(path.glob(pattern)):
            return {"files": f"{path.name}/{pattern}", "format": _FORMATS[suffix]}
    raise SettingsError(
        f"ab-report: the folder {path} has no Delta table and no Parquet, CSV or JSON lines (.jsonl) files"
    )


def _format_of(path: Path) -> str:
    inner = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if inner not in _FORMATS:
        raise SettingsError(
            f"ab-report: the name {path.name} ends with no known format (.parquet, .csv, .csv.gz, .jsonl); describe "
            "the log in a YAML file"
        )
    return _FORMATS[inner]


def show_plan(settings: ExperimentSettings, console: Reporter) -> None:
    """Print what would be read and written; nothing is."""
    folder = source_folder(settings.path, settings.storage.s3())
    for log, files in zip(settings.logs, log_files(folder, settings.logs), strict=True):
        size = sum(file.size for file in files)
        console.line(f"would read   {len(files):,} of {log.files} in {folder} ({log.format}, {size / 1e6:,.1f} MB)")
    reports = Path(settings.workspace).expanduser().resolve() / "reports"
    console.line(f"would write  {reports / settings.name}.html and .json")
