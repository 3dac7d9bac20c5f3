"""Attacks by settings files, and secrets in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import load_settings, save_settings
from learn_spark.core.settings.load import load_study, redacted
from learn_spark.core.settings.secrets import HIDDEN, without_secrets
from learn_spark.core.settings.yaml_text import MOST_CHARACTERS, MOST_NODES, parse_yaml
from learn_spark.core.storage.file_systems import StorageError
from learn_spark.core.storage.path import storage_path

ALIASES = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
BOMB = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *ALIASES])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x: !!python/object/apply:os.system ['touch {folder}/executed']", "could not determine a constructor"),
        ("x: !!python/name:os.system", "could not determine a constructor"),
        (BOMB, f"more than {MOST_NODES:,} values"),
        ("spark:\n  conf:\n    " + BOMB.replace("\n", "\n    "), f"more than {MOST_NODES:,} values"),
        ("x: " + "[" * 1_000 + "]" * 1_000, "nested more than 50 deep"),
        ("x: &x {y: *x}", "used inside of what it names"),
        ("? [a]\n: b", "a key must be a plain value"),
        ("x: !!timestamp 9999-99-99", "a value is not what it is tagged as"),
        ("x: !!int many", "a value is not what it is tagged as"),
        ("x: !!bool perhaps", "a value is not what it is tagged as"),
        ("x: " + "9" * 5_000, "a value is not what it is tagged as"),
        ("x: " + "y" * 4 * MOST_CHARACTERS, "are read as settings"),
    ],
    ids=lambda value: " ".join(value[:30].split()),
)
def test_a_settings_file_neither_runs_code_nor_fills_the_memory(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(text.replace("{folder}", str(tmp_path)))
    for load in (load_settings, load_study):
        with pytest.raises(SettingsError) as refused:
            load(str(file))
        assert words in str(refused.value)
        assert len(str(refused.value)) < 1_000
    assert os.listdir(tmp_path) == ["shop.yaml"]


def test_what_aliases_are_for_still_works() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a\nc: [*a, *a]", "x") == {"a": [1, 2], "b": [1, 2], "c": [[1, 2], [1, 2]]}


SECRETS = {
    "spark.hadoop.fs.s3a.secret.key": "planted-1",
    "spark.hadoop.fs.azure.account.key.shop.dfs.core.windows.net": "planted-2",
    "spark.hadoop.fs.azure.sas.fixed.token": "planted-3",
    "spark.kafka.sasl.jaas.config": 'PlainLoginModule required username="u" password="planted-4";',
    "spark.ssl.keyStorePassword": 1234567,
    "spark.url": "jdbc:postgresql://u:planted-5@host/shop?ssl=true&password=planted-6",
    "spark.extra": "-Dtoken=planted-7 -Dsize=3",
    "spark.sql.catalog.x.token": "planted-8",
}


def test_secrets_are_in_no_saved_settings(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    conf = {key: str(value) for key, value in SECRETS.items()}
    file.write_text(yaml.safe_dump({"extends": "conf/learn.yaml", "spark": {"conf": conf}}))
    settings = load_settings(file)
    assert settings.spark.conf == conf
    saved = Path(save_settings(settings, tmp_path)).read_text()
    for text in (saved, str(redacted(settings))):
        assert "planted" not in text
        assert "1234567" not in text
    assert "-Dsize=3" in saved
    assert "ssl=true" in saved


@pytest.mark.parametrize("named", ["spark.conf", "spark", "source", "pipeline.stages"])
def test_secrets_are_in_no_error(named: str, tmp_path: Path) -> None:
    """Where a section has the wrong type, the error quotes what was given."""
    given = "[" + ", ".join(f"{{password: planted, x: 's3://a:planted@b', long: {'y' * 500}}}" for _ in range(9)) + "]"
    with pytest.raises(SettingsError) as refused:
        load_settings("learn", [f"{named}={given}"])
    assert "planted" not in str(refused.value)
    assert len(str(refused.value)) < 8_000


def test_a_line_that_is_no_yaml_is_quoted_without_its_secret(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text('spark:\n  conf: {secret.key: "planted, other: 1}\n')
    with pytest.raises(SettingsError, match="is not valid YAML") as refused:
        load_settings(file)
    assert "planted" not in str(refused.value)


def test_what_is_no_secret_stays() -> None:
    for text in ("max_tokens: 96", "s3://bucket/a:b@c", "abfss://files@shop.dfs.core.windows.net/x", "a key: b", ""):
        assert without_secrets(text) == text
    assert without_secrets("https://u:p@h/x") == f"https://{HIDDEN}@h/x"


@pytest.mark.parametrize("address", ["s3://key:planted@bucket/shop", "hdfs://u:planted@host:8020/shop"])
def test_an_address_with_a_password_is_refused_without_it(address: str) -> None:
    with pytest.raises(StorageError, match="a password") as refused:
        storage_path(address)
    assert "planted" not in str(refused.value)
