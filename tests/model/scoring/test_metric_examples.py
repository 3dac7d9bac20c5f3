"""The worked examples in the docstrings of the metrics."""

import doctest

from learn_spark.model.scoring import metrics


def test_every_metric_family_has_an_example_that_holds() -> None:
    result = doctest.testmod(metrics)
    assert (result.attempted, result.failed) == (4, 0)
