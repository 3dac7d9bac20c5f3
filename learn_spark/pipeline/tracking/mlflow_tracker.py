"""Models in MLflow: one run a model with settings, curve, figures and files, and one registered version a release."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings
from learn_spark.core.settings.load import section_values
from learn_spark.core.settings.secrets import hidden
from learn_spark.core.settings.yaml_text import read_yaml
from learn_spark.core.stages.observer import Observer
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.stages.stage import Stage
from learn_spark.core.storage.folders import local_copy
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import READABLE, LedgerRow, ledger, release_in_force, states
from learn_spark.model.manifest import MANIFEST, read_manifest
from learn_spark.pipeline.tracking.curve import Curve
from learn_spark.pipeline.tracking.mlflow_server import MlflowServer
from learn_spark.pipeline.tracking.sender import Sender

TRAINING, MODEL, COMPLETE = "learn_spark.training", "learn_spark.model_id", "learn_spark.complete"
SAME = "learn_spark.same_as"
RELEASE, STATUS = "learn_spark.release_id", "learn_spark.status"
IN_FORCE, FILES = "in-force", "model"
_SECTIONS = find_stage("train").sections


class MlflowTracker(Observer):
    """Follows trainings, evaluations and releases. What a server missed while it was gone, it gets when the next stage
    of the same model ends: all is sent from the workspace's files and tables."""

    def __init__(self, settings: Settings, workspace: Workspace, console: Reporter) -> None:
        """Raises SettingsError without a server's address, MissingPartError without the extra."""
        self._settings, self._workspace = settings, workspace
        self._server = MlflowServer(settings.mlflow)
        self._sender = Sender(f"MLflow at {self._server.uri}", console)
        self._training: str | None = None

    @contextmanager
    def training(self, key: str, logs: Path, *, again: bool) -> Iterator[None]:
        """Send the points of the training's log while it is written."""
        self._training = key
        curve, prefix, run = Curve(logs), "again/" if again else "", ""

        def send() -> None:
            nonlocal run
            points = curve.new_points()
            if points and run:
                self._server.log(run, points, prefix)
            elif points:
                run = self._unfinished(key) or self._begin(key)
                self._server.log_missing(run, points, prefix)  # of a training that goes on some are there

        with self._sender.repeating(send, self._settings.mlflow.seconds_between_points):
            yield

    def finished(self, stage: Stage, run: Run) -> None:
        """Send what a stage made; waits until it is sent, as long as the settings allow."""
        done = run.status == "done"
        if stage.name == "train":
            key, self._training = self._training, None
            model = run.model_id
            self._sender.wait(self._settings.mlflow.wait_seconds)  # a server that was gone may be back
            if done and model is not None:
                self._sender.send(lambda: self._trained(model, key))
            elif key is not None:
                self._sender.send(lambda: self._failed(key, run))
        elif stage.name == "evaluate" and done:
            self._sender.send(lambda: self._evaluated(run))
        elif stage.name == "publish" and done:
            self._sender.send(lambda: self._released(run.run_id))
        else:
            return
        self._sender.wait(self._settings.mlflow.wait_seconds)

    def released(self) -> None:
        """Let the alias name the release that is in force now."""
        self._sender.send(self._released)
        self._sender.wait(self._settings.mlflow.wait_seconds)

    def _trained(self, model: str, key: str | None) -> None:
        self._model(model, key)
        again = None if key is None else self._unfinished(key)
        if again is not None:  # the same training as before, which gave the same model
            self._server.set_tag(again, SAME, model)
            self._server.end_run(again, "FINISHED")

    def _unfinished(self, key: str) -> str | None:
        """The id of the newest run of a training, if it is not that of a finished one."""
        run = self._server.find_run(TRAINING, key)
        return None if run is None or {COMPLETE, SAME} & self._server.tags(run).keys() else run

    def _begin(self, key: str) -> str:
        """The id of a new run of a training that goes on."""
        run = self._server.new_run(f"training {key}", {TRAINING: key})
        values = section_values(self._settings, _SECTIONS)
        self._server.describe(run, f"{self._settings.tower.kind} training {key}", self._place(), hidden(values))
        return run

    def _place(self) -> dict[str, str]:
        return {"learn_spark.workspace": str(self._workspace.place)}

    def _failed(self, key: str, run: Run) -> None:
        begun = self._unfinished(key)
        if begun is not None:
            self._server.set_tag(begun, "learn_spark.message", str(hidden(run.message or run.status)))
            self._server.end_run(begun, "FAILED")

    def _model(self, model: str, key: str | None = None) -> str:
        """The id of the model's run; what it has not got is sent. ``key``: of its training."""
        server = self._server
        run = server.find_run(MODEL, model)
        if run is not None and server.tags(run).get(COMPLETE) == "true":
            return run
        place = self._workspace.place / "models" / model
        manifest = read_manifest(place)
        folder = local_copy(place, MANIFEST, self._workspace.folder("cache") / "models")
        run = run or (self._unfinished(key) if key else None) or server.new_run(model, {MODEL: model})
        facts = {
            MODEL: model,
            **self._place(),
            "learn_spark.encoder_key": manifest.encoder_key,
            "learn_spark.rule": manifest.training_rule,
            "learn_spark.best_epoch": str(manifest.best_epoch),
            **{f"learn_spark.input.{name}": version for name, version in manifest.inputs.items()},
        }
        saved = read_yaml(folder / "settings.yaml")
        server.describe(run, f"{manifest.method} {model}", facts, _of_training(saved))
        server.log_missing(run, Curve(folder / "logs").new_points())
        server.log(run, [(0, manifest.validation)], "model/validation ")
        server.upload(run, folder, FILES)
        server.set_tag(run, COMPLETE, "true")
        server.end_run(run, "FINISHED")
        return run

    def _evaluated(self, run: Run) -> None:
        """Send figures and slices: those of the model as metrics, and all as CSV files."""
        model, mine = run.inputs["model"], ds.field("run_id") == run.run_id
        figures = read_rows(self._workspace.table("evaluations"), where=mine)
        slices = read_rows(self._workspace.table("evaluation_slices"), where=mine)
        there = self._model(model)
        values = {"/".join((row["split"], row["method"], row["metric"])): row["value"] for row in figures}
        for row in slices:
            if row["model_id"] == model and row["dimension"] != "all":
                name = "/".join(row[key] for key in ("split", "method", "dimension", "slice", "metric"))
                values[f"slices/{name}"] = row["value"]
        self._server.log(there, [(0, values)])
        with tempfile.TemporaryDirectory() as folder:
            for name, rows in (("evaluations", figures), ("slices", slices)):
                _write_csv(Path(folder) / f"{name}.csv", rows)
            self._server.upload(there, Path(folder), f"evaluation/{run.run_id}")

    def _released(self, by_run: str | None = None) -> None:
        """Register the release in force and those of the run ``by_run``, and let the alias name the one in force."""
        rows = ledger(self._workspace)
        in_force = release_in_force(rows)
        for row in states(rows).values():
            if row.status not in READABLE:
                self._server.mark_version(RELEASE, row.release_id, {STATUS: row.status})
            elif row.run_id == by_run and row != in_force:
                self._register(row)
        self._server.name_version(IN_FORCE, None if in_force is None else self._register(in_force))

    def _register(self, row: LedgerRow) -> str:
        tags = {
            RELEASE: row.release_id,
            "learn_spark.release_number": str(row.sequence),
            STATUS: row.status,
            "learn_spark.as_of": row.as_of.isoformat(),
            MODEL: row.model_id,
            **{f"learn_spark.output.{name}": version for name, version in row.outputs.items()},
        }
        version = self._server.register(self._model(row.model_id), FILES, RELEASE, tags)
        self._server.name_version(f"release-{row.release_id}", version)
        return version


def _of_training(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a training depends on, of all that were saved with a model (secrets are hidden there)."""
    names = {section.partition(".")[0]: section.partition(".")[2] for section in _SECTIONS}
    return {
        name: {one: value for one, value in saved[name].items() if one != "tracking"} for name in names if name in saved
    }


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
