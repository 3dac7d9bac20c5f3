"""An MLflow server: runs, points of curves, artifacts and registered versions, by names and requests that it allows."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings.tracking import MlflowSettings
from learn_spark.pipeline.tracking.curve import Point

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

URI = "MLFLOW_TRACKING_URI"
_LONGEST = 6000  # characters of a parameter's value
_METRICS, _PARAMETERS = 1000, 100  # of one request


class MlflowServer:
    """A server and one of its experiments. Every method raises what the client raises, also for a server that is gone;
    the time of a request is bounded by the settings."""

    def __init__(self, settings: MlflowSettings) -> None:
        """Connects to nothing yet. Raises SettingsError without an address, MissingPartError without the extra."""
        self.uri = settings.uri or os.environ.get(URI, "")
        if not self.uri:
            raise SettingsError(f"training.tracking has mlflow, but neither mlflow.uri nor {URI} names a server")
        os.environ |= {
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(settings.timeout_seconds),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            # Nothing is sent to MLflow's makers, and nothing is printed among our lines.
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        }
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self._experiment, self._experiment_id = settings.experiment, ""
        self._model = settings.model

    @property
    def experiment_id(self) -> str:
        """The id of the experiment, which is made if it is not there."""
        if not self._experiment_id:
            there = self._client.get_experiment_by_name(self._experiment)
            self._experiment_id = there.experiment_id if there else self._client.create_experiment(self._experiment)
        return self._experiment_id

    def find_run(self, tag: str, value: str) -> str | None:
        """The id of the newest run whose ``tag`` is ``value``; None without one."""
        runs = self._client.search_runs([self.experiment_id], f"tags.`{tag}` = '{value}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def new_run(self, name: str, tags: Mapping[str, str]) -> str:
        """The id of a new run."""
        return str(self._client.create_run(self.experiment_id, tags=dict(tags), run_name=name).info.run_id)

    def tags(self, run: str) -> dict[str, str]:
        """The tags of a run."""
        return dict(self._client.get_run(run).data.tags)

    def describe(self, run: str, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any]) -> None:
        """Name a run, and add tags and parameters; nested parameters get dotted names. A parameter that is there stays,
        because MLflow refuses another value."""
        from mlflow.entities import Param, RunTag

        self._client.update_run(run, name=name)
        self._client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])
        there = self._client.get_run(run).data.params
        named = ((allowed(key), value) for key, value in flat(parameters))
        values = [Param(key, str(value)[:_LONGEST]) for key, value in named if key not in there]
        for start in range(0, len(values), _PARAMETERS):
            self._client.log_batch(run, params=values[start : start + _PARAMETERS])

    def log_missing(self, run: str, points: Sequence[Point], prefix: str = "") -> None:
        """Log of each curve the points after the last one that is there; ``prefix`` begins the names."""
        last = {name: self._last_step(run, f"{prefix}{name}") for _, point in points for name in point}
        missing = [
            (step, {name: value for name, value in point.items() if step > last[name]}) for step, point in points
        ]
        self.log(run, missing, prefix)

    def _last_step(self, run: str, metric: str) -> int:
        return max((one.step for one in self._client.get_metric_history(run, allowed(metric))), default=-1)

    def log(self, run: str, points: Iterable[Point], prefix: str = "") -> None:
        """Log points of curves; ``prefix`` begins the names."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        values = [
            Metric(allowed(f"{prefix}{name}"), value, now, step)
            for step, point in points
            for name, value in point.items()
        ]
        for start in range(0, len(values), _METRICS):
            self._client.log_batch(run, metrics=values[start : start + _METRICS])

    def upload(self, run: str, file_or_folder: Path, below: str) -> None:
        """Add a file, or the files of a folder, to a run's artifacts in the folder ``below``."""
        if file_or_folder.is_dir():
            self._client.log_artifacts(run, str(file_or_folder), below)
        else:
            self._client.log_artifact(run, str(file_or_folder), below)

    def end_run(self, run: str, status: str) -> None:
        """Give a run the status FINISHED or FAILED."""
        self._client.set_terminated(run, status)

    def set_tag(self, run: str, tag: str, value: str) -> None:
        """Set a tag of a run."""
        self._client.set_tag(run, tag, value)

    def register(self, run: str, folder: str, tag: str, tags: Mapping[str, str]) -> str:
        """The version of the registered model whose ``tag`` has the value in ``tags``; it has all these tags.

        Where there is none, it is made of the run's artifacts in ``folder``.
        """
        from mlflow.exceptions import RestException

        try:
            self._client.create_registered_model(self._model)
        except RestException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        there = self._version(tag, tags[tag])
        if there is None:
            source = f"{self._client.get_run(run).info.artifact_uri}/{folder}"
            made = self._client.create_model_version(self._model, source, run, tags=dict(tags), await_creation_for=0)
            return str(made.version)
        self._set_tags(there, tags)
        return str(there.version)

    def mark_version(self, tag: str, value: str, tags: Mapping[str, str]) -> None:
        """Set tags of the version whose ``tag`` is ``value``; nothing where there is none."""
        there = self._version(tag, value)
        if there is not None:
            self._set_tags(there, tags)

    def name_version(self, alias: str, version: str | None) -> None:
        """Let an alias name a version of the registered model; None: no version."""
        from mlflow.exceptions import RestException

        if version is not None:
            self._client.set_registered_model_alias(self._model, alias, version)
            return
        try:
            self._client.delete_registered_model_alias(self._model, alias)
        except RestException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise

    def _version(self, tag: str, value: str) -> ModelVersion | None:
        versions = self._client.search_model_versions(f"name = '{self._model}' and tags.`{tag}` = '{value}'")
        return next(iter(versions), None)

    def _set_tags(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            if version.tags.get(name) != value:
                self._client.set_model_version_tag(self._model, version.version, name, value)


def allowed(name: str) -> str:
    """The name of a metric or parameter with the characters that MLflow allows; a slash makes a group in its pages."""
    name = name.replace("@", "_at_").replace("validation ", "validation/", 1)
    return re.sub(r"[^\w./: -]", "_", name)


def flat(tree: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted name, value) of nested values."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
