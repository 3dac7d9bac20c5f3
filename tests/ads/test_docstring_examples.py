"""The examples in docstrings of formulas give what they show."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = ("experiments.corrections", "experiments.power", "experiments.sample_ratio", "rankers.metrics")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(import_module(f"learn_spark.ads.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
