"""A workspace of a folder that is copied to S3 goes on there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import learn_spark as ls
from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.contracts import all_tables
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.read import read_release, released_arrow
from learn_spark.pipeline.runner import Outcome, run_stages
from tests.places import copy_place
from tests.world import START, event_lines, write_config, write_raw

# What the page says to copy. Locks, caches and logs stay behind.
COPIED = ("tables", "models", "indexes", "reports", "runs")
NEW_DELIVERY = ["ingest", "item_text", "embed_items", "histories", "publish", "export_index"]


@dataclass(frozen=True)
class Road:
    """A workspace in a folder after the whole road, and a new delivery for it."""

    folder: Path
    config: Path

    def settings(self, *overrides: str) -> Settings:
        return load_settings(self.config, ["training.epochs=1", *overrides])

    def at(self, place: StoragePath, scratch: Path) -> list[str]:
        """The settings of the workspace at an address."""
        return [f"workspace={place}", f"scratch={scratch}", f"storage.endpoint={place.s3.server}"]

    def copy(self, place: StoragePath) -> None:
        """Copy what the page says to ``place``."""
        here = storage_path(self.folder / "workspace")
        for name in COPIED:
            copy_place(here / name, place / name)
        (place / "workspace.json").write_bytes((here / "workspace.json").read_bytes())

    @contextmanager
    def delivered(self) -> Iterator[None]:
        """The raw files with a new delivery: later ratings of six users, a user who is new, and a broken line."""
        raw, later = self.folder / "raw", START + 9_000_000
        kept = self.folder / "raw-before"
        shutil.copytree(raw, kept)
        new = [f"{user}\t{user + 3}\t4\t{later + user}" for user in range(1, 7)]
        new += [f"99\t{film}\t5\t{later + film}" for film in range(1, 8)]
        write_raw(raw, events=[*event_lines(), *new, "7\t5\tgood\tyesterday"])
        try:
            yield
        finally:
            shutil.rmtree(raw)
            kept.rename(raw)


def run(settings: Settings, *stages: str) -> list[Outcome]:
    return run_stages(stages or settings.pipeline.stages, settings, console=Reporter(quiet=True))


def opened(settings: Settings) -> Workspace:
    return Workspace.existing(settings.place, settings.scratch)


def versions(workspace: Workspace) -> dict[str, int | None]:
    return {table: current_version(workspace.table(table)) for table in all_tables()}


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path, spark: object) -> Road:
    folder = tmp_path_factory.mktemp("road")
    raw = write_raw(folder / "raw")
    made = Road(folder, write_config(folder / "small.yaml", raw=raw, workspace=folder / "workspace", model=tiny_llm))
    run(made.settings())
    return made


def test_a_workspace_that_is_copied_to_s3_goes_on_there(road: Road, bucket: StoragePath, tmp_path: Path) -> None:
    here = opened(road.settings())
    before = {table: released_arrow(here, table) for table in ("user_features", "item_features")}
    place, old = bucket / "moved", read_release(here)
    road.copy(place)
    settings = road.settings(*road.at(place, tmp_path / "scratch"))
    there = opened(settings)
    # Nothing is to be done, and nothing is done.
    known = versions(there)
    assert known == versions(here)
    assert [one.stage.name for one in run(settings) if not one.up_to_date] == []
    assert versions(there) == known
    with road.delivered():
        outcomes = {one.stage.name: one for one in run(settings, *NEW_DELIVERY)}
    assert [name for name, one in outcomes.items() if not one.up_to_date] == [
        "ingest",
        "histories",
        "publish",
        "export_index",
    ]
    assert outcomes["ingest"].run.counts["refused"] == 1
    new = read_release(there)
    assert new.release_id != old.release_id
    users = released_arrow(there, "user_features")
    assert set(users["user_id"].to_pylist()) == {*before["user_features"]["user_id"].to_pylist(), "99"}
    # The release of before the move has the vectors of before.
    for table, rows in before.items():
        assert released_arrow(there, table, old.release_id).equals(rows)
    # The old place knows nothing of it.
    assert read_release(here) == old
    ws = ls.open(str(place), [f"storage.endpoint={place.s3.server}"])
    assert ws.features("user_features").equals(users)
    assert ws.settings.workspace == str(place)
    assert ws.recommend("99", k=3)
    assert f'"{new.release_id}"' in (place / "tables" / "released.json").read_text()
