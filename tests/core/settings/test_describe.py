"""What is said of each setting: type, default, range and kinds, and that what is said is so."""

from __future__ import annotations

from typing import Any

import pytest

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.settings.describe import Knob, describe
from learn_spark.core.settings.kinds import all_keys, sections_with_kinds

KNOBS = {knob.key: knob for section in describe() for knob in section.knobs}


@pytest.mark.parametrize(
    ("key", "type_", "default", "choices", "range_", "kinds"),
    [
        ("training.epochs", "whole number", 20, (), "at least 1", ()),
        ("training.beta2", "number", 0.999, (), "above 0, below 1", ()),
        ("training.threads", "whole number or null", None, (), "at least 1", ()),
        ("training.schedule", "text", "cosine", ("cosine", "constant"), "", ()),
        ("evaluation.ks", "list of whole number", [10, 50, 100, 200], (), "each at least 1, not empty", ()),
        ("spark.conf", "map of names to text", {}, (), "", ()),
        ("quality.rules.NAME.most", "number or null", None, (), "", ()),
        ("exposures.logs[].separator", "text", ",", (), "not empty", ("logs",)),
        ("tower.kind", "text", "learn", ("learn", "learn-plus", "sasrec", "hstu", "bsarec"), "", ()),
        ("tower.width", "whole number", 128, (), "at least 1", ()),
        ("tower.item_tower", "text", "a", ("a", "b", "c"), "", ("learn",)),
        ("tower.blending.reach", "whole number", 10, (), "at least 1", ("learn", "learn-plus")),
        ("tower.similarity", "text", "cosine", ("cosine", "dot"), "", ("learn-plus", "sasrec", "hstu", "bsarec")),
        ("histories.held_out", "number", 0.02, (), "above 0, at most 0.5", ("time_split",)),
    ],
)
def test_by_hand(
    key: str, type_: str, default: Any, choices: tuple[str, ...], range_: str, kinds: tuple[str, ...]
) -> None:
    knob = KNOBS[key]
    assert (knob.type, knob.required, knob.default) == (type_, False, default)
    assert (knob.choices, knob.range, knob.kinds) == (choices, range_, kinds)


def test_what_must_be_given_has_no_default() -> None:
    assert {knob.key for knob in KNOBS.values() if knob.required and "." in knob.key and "[]" not in knob.key} == {
        "source.format",
        "source.path",
        "source.items",
        "source.items.files",
        "source.items.columns",
        "source.events",
        "source.events.files",
        "source.events.columns",
        "encoder.model",
        "histories.split_time",
        "pipeline.stages",
    }


def test_every_setting_is_there_once() -> None:
    said = [knob.key.replace(".NAME", "").replace("[]", "") for section in describe() for knob in section.knobs]
    whole = [name for name, field in Settings.model_fields.items() if f"{name}." in "".join(f" {key}" for key in said)]
    assert sorted(said) == sorted(set(all_keys(Settings)) - set(whole))


def _outside(knob: Knob) -> str | None:
    """A value that the range excludes, for ranges with a lower bound."""
    words = knob.range.split(", ")[0].split()
    if knob.type.startswith(("whole number", "number")) and words and words[0] in ("at", "above"):
        least = float(words[-1])
        value = least if words[0] == "above" else least - 1
        return str(int(value)) if knob.type.startswith("whole") else str(value)
    return None


@pytest.mark.parametrize("key", [key for key, knob in KNOBS.items() if _outside(knob) and "NAME" not in key])
def test_a_range_that_is_said_is_held(key: str) -> None:
    """A value just outside of it is an error that names the setting, in each kind that has it."""
    knob = KNOBS[key]
    section = key.split(".")[0]
    base = [f"{key.rpartition('.')[0]}={{}}"] if key.count(".") == 2 and "trees" not in key else []
    if knob.kinds:
        kind_key = sections_with_kinds(Settings)[section].key
        base.insert(0, f"{section}.{kind_key}={knob.kinds[0]}")
        base += ["histories.split_time=2024-01-01"] if section == "histories" else []
    load_settings("learn", base)
    with pytest.raises(SettingsError) as error:
        load_settings("learn", [*base, f"{key}={_outside(knob)}"])
    assert f"{key}: " in str(error.value)


def test_an_unknown_section_is_named() -> None:
    with pytest.raises(
        SettingsError, match=r"there is no section 'towers' of the settings; there are workspace, source"
    ):
        describe("towers")
    assert [section.name for section in describe("tower")] == ["tower"]
