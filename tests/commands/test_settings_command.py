"""``learn-spark settings``: every setting as text and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from learn_spark.commands.main import app
from learn_spark.core.settings.describe import describe


def settings(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["settings", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_all_settings_are_printed() -> None:
    lines = settings().splitlines()
    for section in describe():
        assert any(line.startswith(f"{section.name}: ") for line in lines)
        for knob in section.knobs:
            assert len([line for line in lines if line.startswith(f"  {knob.key}  (")]) == 1, knob.key
    assert "  training.epochs  (whole number, at least 1; default 20)" in lines
    assert "  encoder.model  (text, not empty; must be given)" in lines


def test_a_section_is_printed_by_kinds() -> None:
    lines = settings("tower").splitlines()
    assert not any(line.startswith("  training.") for line in lines)
    place = {line.strip(): number for number, line in enumerate(lines)}
    assert place["tower.kind learn:"] < place["tower.item_tower  (a, b, c; default a)"]
    assert place["tower.item_tower  (a, b, c; default a)"] < place["tower.kind learn-plus:"]
    similarity = place["tower.similarity  (cosine, dot; default cosine)"]
    assert place["tower.kind learn-plus, sasrec, hstu or bsarec:"] < similarity


def test_json_has_the_same() -> None:
    sections = json.loads(settings("index", "--json"))
    (section,) = describe("index")
    assert [knob["key"] for knob in sections[0]["knobs"]] == [knob.key for knob in section.knobs]
    links = next(knob for knob in sections[0]["knobs"] if knob["key"] == "index.links")
    assert links == {
        "key": "index.links",
        "type": "whole number",
        "required": False,
        "default": 32,
        "choices": [],
        "range": "at least 2",
        "kinds": ["hnsw"],
        "effect": "Neighbours per item in the graph. More give better recall and take more memory.",
    }
    assert [section["name"] for section in json.loads(settings("--json"))] == [section.name for section in describe()]


def test_an_unknown_section_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["settings", "towers"])
    assert result.exit_code == 2
    assert "there is no section 'towers'" in result.output


@pytest.mark.parametrize("section", ["index", ""])
def test_a_reader_that_has_read_enough_is_no_error(section: str) -> None:
    """As in ``learn-spark settings | head``, for short and long outputs."""
    command = [sys.executable, "-c", "from learn_spark.commands.main import main; main()", "settings", *section.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        # On a busy machine there are signs of life.
        assert [line for line in process.stderr.read().splitlines() if not line.startswith("  ... ")] == []
        assert process.wait() == 128 + 13
