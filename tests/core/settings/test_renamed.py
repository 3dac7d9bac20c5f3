"""Old names of settings: each is an error that gives the new name, in a file and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from learn_spark.core.errors import SettingsError
from learn_spark.core.resources import resource_folder
from learn_spark.core.settings import load_settings
from learn_spark.core.settings.kinds import all_keys
from learn_spark.core.settings.renamed import RENAMED_KEYS, RENAMED_VALUES, as_tree
from learn_spark.core.settings.schema import Settings

LEARN = resource_folder("conf") / "learn.yaml"


def written(path: Path, key: str, value: Any) -> Path:
    path.write_text(yaml.safe_dump({"extends": str(LEARN), **as_tree(key, value)}))
    return path


def refused(config: Path, *overrides: str) -> str:
    with pytest.raises(SettingsError) as error:
        load_settings(config, overrides)
    assert error.value.exit_code == 2
    return str(error.value)


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_an_old_key_is_an_error_that_names_the_new_one(old: str, new: str, tmp_path: Path) -> None:
    path = written(tmp_path / "shop.yaml", old, {})
    assert refused(path) == f"settings of {path}: {old} is now {new}"
    assert f"{old} is now {new}" in refused(LEARN, f"{old}={{}}")
    assert f"{old} is now {new}" in refused(LEARN, f"{old}.more=1")


@pytest.mark.parametrize(("key", "old"), RENAMED_VALUES)
def test_an_old_value_is_an_error_that_names_the_new_one(key: str, old: str, tmp_path: Path) -> None:
    told = f"{key}: {old} is now {key}: {RENAMED_VALUES[key, old]}"
    assert told in refused(written(tmp_path / "shop.yaml", key, old))
    assert told in refused(LEARN, f"{key}={old}")


def test_new_names_exist_and_old_ones_do_not() -> None:
    known = set(all_keys(Settings))
    assert set(RENAMED_KEYS.values()) <= known
    assert not set(RENAMED_KEYS) & known


def test_a_file_that_is_extended_is_the_one_that_is_named(tmp_path: Path) -> None:
    base = written(tmp_path / "base.yaml", "tower.evidence", {})
    (tmp_path / "shop.yaml").write_text("extends: base.yaml\n")
    assert refused(tmp_path / "shop.yaml").startswith(f"settings of {base}:")


def test_a_search_over_an_old_key_names_the_new_one(tmp_path: Path) -> None:
    path = written(tmp_path / "shop.yaml", "search", {"parameters": {"tower.evidence.reach": {"choices": [5, 10]}}})
    assert "tower.evidence.reach is now tower.reranker.reach" in refused(path)


def test_all_old_keys_are_named_at_once(tmp_path: Path) -> None:
    told = refused(written(tmp_path / "shop.yaml", "tower", {"evidence": {}, "fusion": None}))
    assert "tower.evidence is now tower.reranker" in told
    assert "tower.fusion is now tower.blending" in told
