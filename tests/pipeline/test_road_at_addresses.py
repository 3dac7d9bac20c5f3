"""The whole road with the workspace in S3 or HDFS gives the features of the road in a folder, and no key anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

from learn_spark.commands.main import app
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.read import released_arrow
from learn_spark.pipeline.runner import Outcome
from learn_spark.report.explain import explain
from tests.places import empty_place
from tests.servers import KEY_ID, SECRET, requests_of

Run = Callable[..., list[Outcome]]
Make = Callable[..., Settings]
KEYS: dict[Literal["user_features", "item_features"], str] = {"user_features": "user_id", "item_features": "item_id"}


def opened(settings: Settings) -> Workspace:
    return Workspace.existing(settings.place, settings.scratch)


def vectors(workspace: Workspace) -> list[pa.Table]:
    """The released ids and vectors of users and of items, by id."""
    return [released_arrow(workspace, table).select([key, "embedding"]).sort_by(key) for table, key in KEYS.items()]


def at(place: StoragePath, scratch: Path) -> list[str]:
    """The settings of a workspace at an address."""
    server = [] if place.s3.server is None else [f"storage.endpoint={place.s3.server}"]
    return [f"workspace={place}", f"scratch={scratch}", *server]


def test_the_road_is_the_same_in_a_folder_in_s3_and_in_hdfs(
    request: pytest.FixtureRequest, small_settings: Make, run: Run, tmp_path: Path, bucket: StoragePath
) -> None:
    places = {kind: empty_place(kind, request) for kind in ("s3", "hdfs")}
    settings = {"folder": small_settings("training.epochs=1")} | {
        kind: small_settings("training.epochs=1", *at(place, tmp_path / kind)) for kind, place in places.items()
    }
    outcomes = {kind: run(given, *given.pipeline.stages) for kind, given in settings.items()}
    rows = {kind: [(one.run.job, one.run.counts["rows_out"]) for one in made] for kind, made in outcomes.items()}
    assert rows["s3"] == rows["hdfs"] == rows["folder"]
    here = opened(settings["folder"])
    user = vectors(here)[0]["user_id"][0].as_py()
    for kind in places:
        there = opened(settings[kind])
        for ours, theirs in zip(vectors(here), vectors(there), strict=True):
            assert ours.num_rows > 30
            assert ours.equals(theirs)
        assert explain(there, user, k=5).recommendations == explain(here, user, k=5).recommendations
        assert explain(there, user, k=5, by_index=True).recommendations
        # What lies in the folder of this machine can be made again, and nothing is left of what was temporary.
        assert {path.name for path in (tmp_path / kind).iterdir()} <= {"cache", "logs", "models", "new"}
        for part in ("staging", "staged", "models/unfinished"):
            assert list((there.place / part).files()) == []
        assert list((there.place / "locks" / "holders").files()) == []
    before = requests_of(bucket)
    assert all(one.up_to_date for one in run(settings["s3"], *settings["s3"].pipeline.stages))
    assert requests_of(bucket) - before < 100

    # Planted keys are nowhere: in no file of the workspace or of its scratch folder, and in no output.
    there = opened(settings["s3"])
    saved = there.place / "runs" / all_runs(there)[-1].run_id / "settings.yaml"
    config = tmp_path / "saved.yaml"
    config.write_text(saved.read_text(), encoding="utf-8")
    assert load_settings(config).place.s3 == settings["s3"].place.s3
    status = CliRunner().invoke(app, ["status", "--config", str(config), "--json"])
    assert status.exit_code == 0, status.output
    contents = [entry.path.read_bytes() for entry in there.place.files()]
    contents += [path.read_bytes() for path in (tmp_path / "s3").rglob("*") if path.is_file()]
    contents += [status.output.encode(), yaml.safe_dump(settings["s3"].model_dump()).encode()]
    assert len(contents) > 100
    assert not any(KEY_ID.encode() in content or SECRET.encode() in content for content in contents)


def test_an_address_that_cannot_be_reached_is_one_sentence(
    small_settings: Make, bucket: StoragePath, tmp_path: Path
) -> None:
    small_settings()
    server = f"storage.endpoint={bucket.s3.server}"
    for workspace, named in (
        (f"{bucket}-of-nobody/road", "of-nobody"),
        ("hdfs://127.0.0.1:1/road", "127.0.0.1:1"),
        ("ftp://host/road", "ftp"),
        ("s3://", "bucket"),
    ):
        given = ["--config", str(tmp_path / "small.yaml"), "--set", f"workspace={workspace}", "--set", server]
        for command in (["ingest"], ["run", "--dry-run"], ["status"]):
            result = CliRunner().invoke(app, [*command, *given, "--set", f"scratch={tmp_path / 'scratch'}"])
            assert result.exit_code in (1, 2), result.output
            assert named in result.stderr, command
            assert "Traceback" not in result.output
            assert KEY_ID not in result.output
