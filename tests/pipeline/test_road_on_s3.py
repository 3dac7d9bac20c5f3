"""The whole road with the workspace in S3 gives the features of the road in a folder, and no key anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
from tests.servers import KEY_ID, SECRET, requests_of


@dataclass(frozen=True)
class Roads:
    """The settings of two roads and their outcomes: in a folder, and in S3."""

    folder: Settings
    address: Settings
    outcomes: dict[str, list[Outcome]]


@pytest.fixture
def roads(
    small_settings: Callable[..., Settings], run: Callable[..., list[Outcome]], bucket: StoragePath, tmp_path: Path
) -> Roads:
    quick = "training.epochs=1"
    at = [f"workspace={bucket}/road", f"storage.endpoint={bucket.s3.server}", f"scratch={tmp_path / 'scratch'}"]
    folder, address = small_settings(quick), small_settings(quick, *at)
    outcomes = {"folder": run(folder, *folder.pipeline.stages), "address": run(address, *address.pipeline.stages)}
    return Roads(folder, address, outcomes)


def test_the_road_in_s3(roads: Roads, bucket: StoragePath, tmp_path: Path, run: Callable[..., list[Outcome]]) -> None:
    here, there = (Workspace.existing(settings.place, settings.scratch) for settings in (roads.folder, roads.address))
    for one, other in zip(roads.outcomes["folder"], roads.outcomes["address"], strict=True):
        assert (one.run.job, one.run.counts.get("rows_out")) == (other.run.job, other.run.counts.get("rows_out"))
    for table, key in (("user_features", "user_id"), ("item_features", "item_id")):
        ours, theirs = (
            released_arrow(workspace, table).select([key, "embedding"]).sort_by(key)  # type: ignore[arg-type]
            for workspace in (here, there)
        )
        assert ours.num_rows > 30
        assert ours.equals(theirs)
    # Nothing of the second road lies in a folder but what can be made again.
    assert {path.name for path in (tmp_path / "scratch").iterdir()} <= {"cache", "logs", "models", "new"}
    assert not (there.place / "staging").children()
    assert not (there.place / "staged").children()
    assert not (there.place / "locks" / "holders").children()
    user = released_arrow(there, "user_features")["user_id"][0].as_py()
    assert explain(there, user, k=5).recommendations == explain(here, user, k=5).recommendations
    assert explain(there, user, k=5, by_index=True).recommendations
    # A run of which nothing changed asks little of the store.
    before = requests_of(bucket)
    resting = run(roads.address, *roads.address.pipeline.stages)
    assert all(outcome.up_to_date for outcome in resting)
    assert requests_of(bucket) - before < 100
    # The command line reads the same workspace, from the settings that a run saved.
    runs = all_runs(there)
    saved = there.place / "runs" / runs[-1].run_id / "settings.yaml"
    config = tmp_path / "saved.yaml"
    config.write_text(saved.read_text(), encoding="utf-8")
    assert load_settings(config).place.s3 == roads.address.place.s3
    status = CliRunner().invoke(app, ["status", "--config", str(config), "--json"])
    assert status.exit_code == 0, status.output
    assert runs[-1].run_id in status.output or "report" in status.output
    # Planted keys are nowhere: in no file of the workspace or of its scratch folder, and in no output.
    places = [entry.path.read_bytes() for entry in there.place.files()]
    places += [path.read_bytes() for path in (tmp_path / "scratch").rglob("*") if path.is_file()]
    places += [status.output.encode(), yaml.safe_dump(roads.address.model_dump()).encode()]
    assert len(places) > 100
    assert not any(KEY_ID.encode() in content or SECRET.encode() in content for content in places)


def test_a_bucket_that_cannot_be_reached_is_one_sentence(
    small_settings: Callable[..., Settings], bucket: StoragePath, tmp_path: Path
) -> None:
    config = tmp_path / "small.yaml"
    small_settings()
    for workspace, named in (
        (f"{bucket}-of-nobody/road", "of-nobody"),
        ("ftp://host/road", "ftp"),
        ("s3://", "bucket"),
    ):
        command = ["ingest", "--config", str(config), "--set", f"workspace={workspace}"]
        result = CliRunner().invoke(app, [*command, "--set", f"storage.endpoint={bucket.s3.server}"])
        assert result.exit_code in (1, 2), result.output
        assert named in result.output
        assert "Traceback" not in result.output
        assert KEY_ID not in result.output
