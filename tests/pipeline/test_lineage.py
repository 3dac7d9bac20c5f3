"""Lineage of real deliveries: the raw files that it names are those that the rows of each version came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from learn_spark.commands.main import app
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.lineage import Artifact
from learn_spark.pipeline.provenance import Provenance
from tests.world import write_config

# Delivery -> file -> (column of names, ids): every id is in one file alone.
DELIVERIES = (
    {"items-1.csv": ["A1", "A2"], "orders-1.csv": [("o1", "A1"), ("o2", "A2")]},
    {"orders-2.csv": [("o3", "A1")]},
    # o4 waits in quarantine for its item, which the next delivery has.
    {"items-2.csv": ["B1"], "orders-3.csv": [("o4", "C1"), ("o5", "B1")]},
    {"items-3.csv": ["C1"]},
)


def deliver(folder: Path, number: int) -> None:
    folder.mkdir(exist_ok=True)
    for name, rows in DELIVERIES[number].items():
        if name.startswith("items"):
            lines = ["sku,name", *(f"{item},Lamp {item}" for item in rows)]
        else:
            lines = [
                "id,u,sku,t",
                *(f"{order},u-{order},{item},2024-03-0{number + 1}T10:00:00" for order, item in rows),
            ]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def shop(tmp_path: Path, tiny_llm: Path) -> Path:
    """The settings file of a shop whose raw folder is ``raw`` beside it."""
    config = write_config(tmp_path / "c.yaml", raw=tmp_path / "raw", workspace=tmp_path / "w", model=tiny_llm)
    tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    tree["source"] = {
        "format": "files",
        "path": str(tmp_path / "raw"),
        "time_unit": "iso",
        "items": {"files": "items-*.csv", "columns": {"item_id": "sku", "title": "name"}},
        "events": {
            "files": "orders-*.csv",
            "columns": {"event_id": "id", "user_id": "u", "item_id": "sku", "event_time": "t"},
        },
    }
    relaxed = {"least": None, "most": None, "severity": "warn"}
    tree["quality"] = {"rules": {"interactions.refused_share": relaxed, "items.refused_share": relaxed}}
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return config


def true_files(workspace: Workspace, table: str, version: int) -> set[str]:
    """The files whose ids are in the rows of a version of items or interactions."""
    key = "item_id" if table == "items" else "event_id"
    ids = set(Snapshot.open(workspace.table(table), version).to_arrow([key])[key].to_pylist())
    files = {name: rows for delivery in DELIVERIES for name, rows in delivery.items()}
    of_ids = {
        name: {row if table == "items" else row[0] for row in rows}
        for name, rows in files.items()
        if name.startswith("items" if table == "items" else "orders")
    }
    return {name for name, named in of_ids.items() if named & ids}


def test_the_lineage_names_the_files_that_the_rows_really_came_from(
    shop: Path, run: Callable[..., object], tmp_path: Path
) -> None:
    settings: Settings = load_settings(shop)
    workspace = Workspace.open(settings.workspace)
    versions: list[dict[str, int]] = []
    for number in range(len(DELIVERIES)):
        deliver(tmp_path / "raw", number)
        run(settings, "ingest", "histories")
        tables = ("items", "interactions", "item_index", "user_histories", "quarantine")
        versions.append({table: current_version(workspace.table(table)) or 0 for table in tables})
    provenance = Provenance(workspace)

    def named(table: str, version: int) -> set[str]:
        return {use.file for use in provenance.raw_files(Artifact(table, str(version)))}

    for then in versions:
        for table in ("items", "interactions"):
            assert named(table, then[table]) == true_files(workspace, table, then[table]), (table, then)
        assert named("item_index", then["item_index"]) == true_files(workspace, "items", then["items"])
        assert named("user_histories", then["user_histories"]) == (
            true_files(workspace, "items", then["items"]) | true_files(workspace, "interactions", then["interactions"])
        )
    assert named("quarantine", versions[2]["quarantine"]) == {"orders-3.csv"}
    # The second version of items is merged into the first, and the later ones of both are its derivatives.
    steps = list(provenance.steps(Artifact("items", str(versions[-1]["items"]))))
    assert [[use.file for use in step.files] for step in steps] == [["items-3.csv"], ["items-2.csv"], ["items-1.csv"]]
    first = Artifact("items", str(versions[0]["items"]))
    assert [run.job for run, _ in provenance.derived(first)] == ["ingest"]
    printed = CliRunner().invoke(app, ["lineage", "items", "--config", str(shop), "--json"])
    assert printed.exit_code == 0, printed.output
    shown = json.loads(printed.stdout)
    assert {file["file"] for file in shown["raw_files"]} == {"items-1.csv", "items-2.csv", "items-3.csv"}
    assert all("orders" not in file["file"] for step in shown["made_from"] for file in step["raw_files"])

    # A version that replaced all rows has no earlier sources.
    run(load_settings(shop, ["histories.max_length=8"]), "histories")
    newest = current_version(workspace.table("user_histories"))
    assert newest != versions[-1]["user_histories"]
    assert len(list(Provenance(workspace).steps(Artifact("user_histories", str(newest))))) == 1
