"""Item texts: cleaning and templates by hand-worked cases; a changed item changes one row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings import Settings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.text.cleaning import clean, clean_text
from learn_spark.data.text.templates import template
from tests.world import ITEMS, item_lines, write_raw


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  plain   text ", "plain text"),
        ("<b>bold</b>&nbsp;and<br/>new", "bold and new"),
        ("<!-- hidden\n --> seen", "seen"),
        ("Tom &amp; Jerry &lt;3 &quot;x&quot; &#39;y&#039;", "Tom & Jerry <3 \"x\" 'y'"),
        ("&amp;lt;b&amp;gt;", "&lt;b&gt;"),
        ("5 < 6 and 7 > 2", "5 < 6 and 7 > 2"),
        ("a\x00b\tc\u200bd\ufeffe", "a b c d e"),
        ("שלום 🎬 世界", "שלום 🎬 世界"),
        ("   \n\t ", None),
        ("\u3000", None),
        ("\u200b\u200d\ufe0f", None),
        ("\u0301", None),
        ("\u3164 \u2800", None),
        ("e\u0301\u3000lamp\u2009x", "e\u0301 lamp x"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
        ("[SEP] lamp <|endoftext|>", "[SEP] lamp <|endoftext|>"),
        ("<p></p>", None),
        ("", None),
        (None, None),
    ],
)
def test_cleaning(spark: SparkSession, raw: str | None, expected: str | None) -> None:
    frame = spark.createDataFrame([(raw,)], "raw string")
    assert frame.select(clean(F.col("raw"), 1000)).first()[0] == expected  # type: ignore[index]
    assert clean_text(raw, 1000) == expected


def test_a_huge_field_is_cut_first(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("<b>" + "x" * 1_000_000,)], "raw string")
    assert frame.select(clean(F.col("raw"), 50)).first()[0] == "x" * 47  # type: ignore[index]


def test_a_template_leaves_out_what_is_missing(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [("Ring", "Jewels", "B", 9.9, "gold", "returns"), ("Ring", None, None, None, None, None), (None,) * 6],
        "title string, category string, brand string, price double, keywords string, attributes string",
    )
    industrial = template("learn-industrial")
    fields = {name: F.col(name).cast("string") for name in industrial.fields()}
    texts = [row[0] for row in frame.select(industrial.render(fields)).collect()]
    assert texts[0] == (
        'The item information is given as follows. Item title is "Ring". This item belongs to "Jewels". Its brand is '
        '"B". The price is "9.9". The keywords of item are "gold". This item supports "returns".'
    )
    assert texts[1] == 'The item information is given as follows. Item title is "Ring".'
    assert texts[2] == ""
    rows = [row.asDict() for row in frame.select(*[c.alias(n) for n, c in fields.items()]).collect()]
    assert [industrial.text(row) for row in rows] == texts
    assert "{price}" not in "".join(template("shop").clauses)
    with pytest.raises(SettingsError, match="the templates are amazon, learn-industrial, movie, shop"):
        template("none")


def test_every_item_gets_one_text_and_only_changes_are_written(
    spark: SparkSession, small_settings: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    lines = [*item_lines()[:-1], f"{ITEMS}\t<i> </i>\t\t"]
    write_raw(tmp_path / "raw", items=lines)
    settings = small_settings()
    _, outcome = run(settings, "ingest", "item_text")
    assert outcome.run.counts["blank"] == 1
    path = Workspace.open(settings.workspace).table("item_text")
    texts = {r.item_id: r for r in spark.read.format("delta").load(path).collect()}
    assert len(texts) == ITEMS
    assert texts["2"].text == "Title: Horror story number 2. Genres: Horror Thriller. Year: 1995."
    assert texts["2"].text_key == hashlib.sha256(texts["2"].text.encode()).hexdigest()
    assert texts[str(ITEMS)].text == settings.text.fallback
    assert texts["1"].text_key == texts["9"].text_key

    write_raw(tmp_path / "raw", items=[lines[0], lines[1].replace("1995", "1996"), *lines[2:]])
    _, changed = run(settings, "ingest", "item_text")
    assert (changed.run.counts["inserted"], changed.run.counts["updated"]) == (0, 1)
    _, other = run(small_settings("text.template=amazon"), "ingest", "item_text")
    assert other.run.counts["inserted"] == ITEMS
    assert spark.read.format("delta").load(path).count() == 2 * ITEMS
