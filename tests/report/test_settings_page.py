"""docs/settings.md is up to date with the settings classes, and lists every setting."""

from __future__ import annotations

import re
from pathlib import Path

from learn_spark.core.resources import resource_folder
from learn_spark.core.settings.describe import describe
from learn_spark.report.settings_page import default_of, settings_page, values_of

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_in_docs_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run make docs"


def test_every_preset_is_named() -> None:
    presets = {path.stem for path in resource_folder("conf").glob("*.yaml")}
    rows = [line.split("|")[1] for line in settings_page().splitlines() if line.startswith("| `")]
    assert presets <= {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}


def test_every_setting_has_a_complete_row_in_its_section() -> None:
    page = settings_page()
    for section in describe():
        text = re.search(rf"^## {section.name}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
        assert text, section.name
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text[1].splitlines() if line.startswith("|")]
        assert len({len(row) for row in rows}) == 1, section.name
        by_key = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[2:]}
        assert list(by_key) == [f"`{knob.key}`" for knob in section.knobs]
        for knob in section.knobs:
            cells = by_key[f"`{knob.key}`"]
            assert cells[0] == values_of(knob)
            assert cells[1] == ("must be given" if knob.required else f"`{default_of(knob)}`")
            assert cells[-1] == knob.effect.replace("|", "\\|")
