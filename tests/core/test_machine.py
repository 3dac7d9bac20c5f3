"""Which arithmetic the CPU has, as the system says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from learn_spark.core.machine import multiplies_bf16
from learn_spark.core.settings.encoder import EncoderSettings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2 avx512_bf16 clzero\n", True),
        ("processor\t: 0\nflags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n", True),
        ("processor\t: 0\nflags\t\t: fpu sse2 avx2 avx512f\n", False),
        ("model name\t: the bf16 machine\nflags\t\t: fpu\n", False),
        ("", False),
    ],
)
def test_bf16_is_read_from_the_cpu_flags(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert multiplies_bf16(tmp_path / "cpuinfo") is expected


def test_without_a_description_there_is_no_bf16(tmp_path: Path) -> None:
    assert multiplies_bf16(tmp_path / "missing") is False


def test_auto_becomes_the_precision_of_this_machine() -> None:
    settings = EncoderSettings(model="m", precision="auto")
    assert settings.precision == ("bf16" if multiplies_bf16() else "fp32")
    assert EncoderSettings(model="m", precision="int8").precision == "int8"
