"""Every listing, for people and machines: strict JSON; no figure or id is cut in a pipe or on a narrow terminal."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from learn_spark.commands.main import app
from learn_spark.core.console import Reporter, strict_json
from tests.report.planted import FIRST_DAY, plant, release_row
from tests.report.workspace import METHODS, SLICES, Planted, histories, item_id

LONG = "the prices of three suppliers were wrong by a factor of 100, which the audit found on the second day"
WIDTH = 50


class World(Planted):
    """The planted workspace with releases that have tables, a figure that is no number, ranks, and refused rows."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        raw = json.dumps({"price": math.nan, "title": "[red] lamp", "note": LONG})
        refused = {"run_id": self.runs["ingest"], "source_table": "items", "raw": raw, "reasons": ["no item_id"]}
        rows = [{**refused, "row_id": str(n), "source_file": f"items-{n}.csv", "occurrences": 1} for n in range(12)]
        plant(self.workspace, "quarantine", rows)
        base = {"run_id": self.runs["evaluate"], "split": "test", **dict.fromkeys(SLICES, "?")}
        base |= {"mass": "head", "cold": "no", "history": "5-9", "recency": "1-7", "time": "2024-01-01..2024-01-31"}
        plant(
            self.workspace,
            "evaluation_users",
            [
                {
                    **base,
                    "method": method,
                    "model_id": self.model_id if method == "learn" else method,
                    "user_id": user,
                    "item_id": item_id(items[-1]),
                    "rank": float(1 + (place * 7) % (20 + number)),
                }
                for number, method in enumerate(METHODS)
                for place, (user, items) in enumerate(histories().items())
            ],
        )

    def _release(self, run_id: str) -> None:
        outputs = {}
        for table, key in (("user_features", "user_id"), ("item_features", "item_id")):
            row = {key: "a", "embedding": [1.0], "release_id": "r1", "as_of": FIRST_DAY, "fingerprint": 1}
            outputs[table] = plant(self.workspace, table, [row])
        rule = {"measure": "item_ids", "least": 30, "most": None, "meaning": LONG, "severity": "fail"}
        facts = {
            "run_id": run_id,
            "model_id": self.model_id,
            "outputs": outputs,
            "metrics": {"NDCG@10": math.nan, "HR@10": 0.123456789012},
            "gate_results": json.dumps([{**rule, "observed": math.nan, "passed": False}]),
        }
        rows = [release_row(n, f"r{n}", "released", FIRST_DAY, **facts, note=LONG) for n in (1, 2)]
        plant(self.workspace, "releases", rows)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("listings"))


def listings(world: World) -> dict[str, list[str]]:
    return {
        "status": ["status"],
        "show": ["show", "latest"],
        "releases": ["releases"],
        "models": ["models"],
        "runs": ["runs"],
        "quarantine": ["quarantine", "--rows", "3"],
        "lineage": ["lineage", f"model@{world.model_id}"],
        "compare": ["compare", world.runs["evaluate"], "--samples", "100"],
    }


NAMES = ("status", "show", "releases", "models", "runs", "quarantine", "lineage", "compare")


def printed(world: World, arguments: list[str]) -> str:
    done = CliRunner().invoke(app, [*arguments, "--config", str(world.config)])
    assert done.exit_code == 0, done.output
    return done.stdout


def strictly(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def values(tree: object) -> list[object]:
    if isinstance(tree, dict):
        return [one for value in tree.values() for one in values(value)]
    return [one for value in tree for one in values(value)] if isinstance(tree, list) else [tree]


@pytest.mark.parametrize("name", NAMES)
def test_json_is_strict_and_has_ids_and_figures_whole(world: World, name: str) -> None:
    found = strictly(printed(world, [*listings(world)[name], "--json"]))
    whole = values(found)
    # A program asks by names, in which there are no figures and no ids.
    assert [key for key in (found if isinstance(found, dict) else found[0]) if not re.fullmatch("[a-z_]+", key)] == []
    expected: dict[str, list[object]] = {
        "status": [*(world.runs[stage] for stage in ("ingest", "histories"))],
        "show": ["r2", world.model_id, 0.123456789012, LONG],
        "releases": ["r1", "r2", world.model_id],
        "models": [world.model_id, world.runs["train"], 0.05],
        "runs": [*world.runs.values(), 1234],
        "quarantine": [12, "[red] lamp", LONG, world.runs["ingest"]],
        "lineage": [world.runs["train"], world.runs["histories"]],
        "compare": [world.model_id, "markov", 100],
    }
    assert [one for one in expected[name] if one not in whole] == []
    if name == "show":
        assert (found["metrics"], found["audit"][0]["observed"]) == ({"NDCG@10": None, "HR@10": 0.123456789012}, None)
    if name == "releases":
        assert found["in_force"] == "r2"
    if name == "runs":
        assert [run["run_id"] for run in found["runs"]] == sorted(world.runs.values(), reverse=True)


def test_runs_of_one_stage_and_the_newest(world: World) -> None:
    found = strictly(printed(world, ["runs", "--stage", "train", "--json"]))["runs"]
    assert [run["outputs"] for run in found] == [{f"models/{world.model_id}": "hash"}]
    assert len(strictly(printed(world, ["runs", "--last", "2", "--json"]))["runs"]) == 2
    done = CliRunner().invoke(app, ["runs", "--stage", "trian", "--config", str(world.config)])
    assert (done.exit_code, "there is no stage 'trian'" in done.stderr) == (2, True)


def plain(text: str) -> str:
    """Without styles, and without the ages of tables, which grow."""
    return re.sub(r"\b\d+ s\b", "0 s", re.sub(r"\x1b\[[\d;]*m", "", text))


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_has_no_width_and_a_narrow_terminal_cuts_no_word(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = listings(world)[name]
    monkeypatch.setenv("COLUMNS", "2000")
    wide = plain(printed(world, arguments))
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert plain(printed(world, arguments)).split() == wide.split()
    assert plain(printed(world, arguments)).count("\n") == wide.count("\n")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(SystemExit) as ended:
        app([*arguments, "--config", str(world.config)])
    assert ended.value.code == 0
    narrow = plain(terminal.getvalue())
    # A block has no line for an empty cell.
    assert set(wide.split()) - set(narrow.split()) <= {"most", "note"}
    for line in narrow.splitlines():
        assert len(line) <= WIDTH or "learn-spark " in line or max(map(len, line.split())) > WIDTH // 2, line


def test_a_gate_is_listed_as_json(world: World, spark: SparkSession) -> None:
    done = CliRunner().invoke(app, ["check", "item_index", "--config", str(world.config), "--json"])
    found = strictly(done.stdout)
    assert {"rule", "observed", "least", "most", "verdict", "meaning"} == set(found["rules"][0])


def test_what_json_lacks_becomes_null_or_text() -> None:
    import numpy as np

    tree = {
        "a": (math.nan, math.inf, 1.5),
        1: {"b": FIRST_DAY},
        "n": np.array([1.0, np.nan], np.float32),
        "i": np.int64(2**60),
        "p": Path("/x"),
        "t": True,
    }
    expected = {"a": [None, None, 1.5], "1": {"b": FIRST_DAY.isoformat()}, "n": [1.0, None], "i": 2**60}
    assert strictly(strict_json(tree)) == {**expected, "p": "/x", "t": True}


def test_lines_wrap_at_blanks_unless_they_are_to_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    console = Reporter(width=40)
    console.say(LONG)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert [line[:2] for line in lines] == ["  "] * len(lines)
    assert " ".join(" ".join(lines).split()) == LONG
    command = "undo: learn-spark restore r4 --config /a/long/path/of/settings.yaml"
    console.line(command)
    assert capsys.readouterr().out == f"{command}\n"
