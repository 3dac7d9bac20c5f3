"""JSON nested thousands deep, which Spark reads."""

from __future__ import annotations

from pyspark.sql import SparkSession

from learn_spark.data.sources.json_rows import json_rows
from learn_spark.data.sources.nesting import DEEPEST


def nested(levels: int) -> str:
    """An object ``levels`` deep; siblings and brackets in strings, which are no levels, stand between."""
    return '{"id": "deep", "s": "[[{{\\"[", "x": ' + '{"b": [], "a": ' * (levels - 1) + "1" + "}" * levels


def test_json_nested_thousands_deep_is_malformed_and_the_java_process_lives(spark: SparkSession) -> None:
    from pyspark.sql import functions as F

    text = '{"id": "text", "s": "' + "[{" * 200 + '\\""}'
    wide = '{"id": "wide", "x": {"y": [' + "{}, " * 200 + "[]]}}"
    lines = {
        "text": text,
        "wide": wide,
        "most": nested(DEEPEST - 1),
        "over": nested(DEEPEST + 1),
        "far": nested(10_000),
    }
    texts = spark.createDataFrame([(line, name) for name, line in lines.items()], "value string, source_file string")
    rows = json_rows(spark, texts, [], ["id"], raw=lambda: F.lit("whole"), malformed_raw=lambda: F.lit("line"))
    found = {row.source_file: (row.malformed, row.raw) for row in rows.collect()}
    whole, line = (False, "whole"), (True, "line")
    assert found == {"text": whole, "wide": whole, "most": whole, "over": line, "far": line}
