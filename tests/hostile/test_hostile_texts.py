"""Any text and any bytes: they are read, or refused by the error that names them, and nothing else is raised."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learn_spark.core.console import strict_json
from learn_spark.core.errors import SettingsError
from learn_spark.core.settings.secrets import HIDDEN, hidden, without_secrets
from learn_spark.core.settings.yaml_text import parse_yaml
from learn_spark.core.visible import visible
from learn_spark.data.sources.amazon_2014 import literal_to_json
from learn_spark.encoder.gguf_header import GgufError, read_gguf_header

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
YAML = st.text(alphabet="ab:-[]{}&*!#|>?%@,'\"\n \t<=0.9~_e", max_size=60)


@QUICK
@given(YAML)
def test_a_settings_text_is_values_or_one_error(text: str) -> None:
    with suppress(SettingsError):
        json.dumps(parse_yaml(text, "x"), default=str, skipkeys=True)


@QUICK
@given(content=st.binary(max_size=120), tensors=st.integers(0, 4), keys=st.integers(0, 4))
def test_a_gguf_header_is_numbers_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, tensors: int, keys: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "x.gguf"
    for start in (b"", b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)):
        file.write_bytes(start + content)
        with suppress(GgufError):
            read_gguf_header(file)


@QUICK
@given(st.text(), st.text(alphabet="{}[]'\"\\:,0aN- ", max_size=40))
def test_a_literal_is_json_or_nothing(text: str, shaped: str) -> None:
    for line in (text, shaped):
        if (found := literal_to_json(line)) is not None:
            json.loads(found)


@QUICK
@given(
    st.recursive(
        st.text() | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_for_machines_loses_nothing(value: object) -> None:
    text = strict_json(value)
    assert json.loads(text) == value
    assert visible(text) == text
    assert visible(visible(text)) == visible(text)


@QUICK
@given(st.text(alphabet="abcXYZ019+/", min_size=6, max_size=20).map("q7".__add__), st.sampled_from(["", "=", "/x"]))
def test_no_secret_survives_in_any_of_its_places(secret: str, tail: str) -> None:
    secret += tail
    of_address = secret.replace("/", "")
    assert of_address not in without_secrets(f"https://u:{of_address}@h/")
    for text in (f"password={secret}", f'"token": "{secret}"'):
        assert secret not in without_secrets(text)
    for value in (secret, [secret], {"any": [secret]}):
        assert secret not in str(hidden({"fs.s3a.secret.key": value}))
    assert hidden({"spark.ssl.keyPassword": 12345}) == {"spark.ssl.keyPassword": HIDDEN}


def test_the_generator_reaches_both_sides() -> None:
    assert parse_yaml("a: [0.9, ~]", "x") == {"a": [0.9, None]}
    with pytest.raises(SettingsError):
        parse_yaml("a: [", "x")
