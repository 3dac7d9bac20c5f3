"""Validation of a profile by Great Expectations: one context per process, one suite per set of rules."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult

    from learn_spark.core.quality.gate import Rule


def validate(
    suite_name: str, run_name: str, rules: Sequence[Rule], profile: Mapping[str, float | None]
) -> ExpectationSuiteValidationResult:
    """Validate ``profile`` as a frame of one row, with one expectation per rule; each rule has at least one bound.

    A null or NaN satisfies no bound. ``run_name`` is the title of the result's page.
    """
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batches, suite = _batches(), _suite(suite_name, tuple(rules))
        from great_expectations import RunIdentifier

        frame = pd.DataFrame([{rule.measure: profile[rule.measure] for rule in rules}], dtype="float64")
        batch = batches.get_batch(batch_parameters={"dataframe": frame})
        # COMPLETE and SUMMARY also compute lists of unexpected values, which one row of numbers does not need.
        result = batch.validate(suite, result_format="BASIC")
        result.meta["run_id"] = RunIdentifier(run_name=run_name)
        for one in result.results:
            # The page's renderer reads a number's repr, which numpy 2 writes as np.float64(0.0).
            if isinstance(observed := one.result.get("observed_value"), float):
                one.result["observed_value"] = float(observed)
    return result


def prepare() -> None:
    """Import Great Expectations and open its context, which takes seconds once a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _batches()


@cache
def _batches() -> BatchDefinition:
    """The batch definition of all profiles, in a context without files on disk."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("profiles").add_dataframe_asset("profile")
    return asset.add_batch_definition_whole_dataframe("profile")


@lru_cache(maxsize=64)
def _suite(name: str, rules: tuple[Rule, ...]) -> ExpectationSuite:
    from great_expectations import ExpectationSuite
    from great_expectations.expectations import ExpectColumnMaxToBeBetween

    return ExpectationSuite(
        name=name,
        expectations=[
            ExpectColumnMaxToBeBetween(
                column=rule.measure,
                min_value=rule.least,
                max_value=rule.most,
                meta={"notes": {"format": "string", "content": [f"{rule.meaning} ({rule.severity})"]}},
            )
            for rule in rules
        ],
    )
