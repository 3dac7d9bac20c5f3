"""Ids inside texts: which raw rows and messages have an id as a word or as a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# A number of up to seven digits is a rating, a year or an item in most texts.
SHORT_NUMBER = "^[0-9]{1,7}$"
_NO_LETTER = r"[^\p{L}\p{N}]+"  # between words
_OUTSIDE = r"[\s,;|:=()<>{}\[\]\"']+"  # between values: an address of mail or a UUID is one
# JSON writes a tab as \t and a quote as \": a letter after backslashes may be part of that, or of the word.
_ESCAPES = (r"\\+[bfnrt]?", r"\\+")


def words(text: Column) -> Column:
    """The distinct words and values of a text (array of strings), with and without what JSON escapes."""
    from pyspark.sql import functions as F

    parts = []
    for escape in _ESCAPES:
        plain = F.regexp_replace(text, escape, " ")
        # A number that a float column wrote: 12.0 is the id 12.
        parts += [F.split(plain, _NO_LETTER), F.split(plain, _OUTSIDE)]
    return F.array_distinct(F.flatten(F.array(*parts)))


def mentions(
    rows: DataFrame,
    text: str,
    user: Column,
    ids: DataFrame,
    *,
    of_word: Callable[[Column], Column] = lambda word: word,
) -> DataFrame:
    """The distinct texts (column ``text``) of ``rows`` that have one of ``ids`` (column word) among their words.

    A short number counts only as the row's ``user``, or where the row has none, because it may be any number. ``ids``
    can be hashes, which ``of_word`` makes of a word.
    """
    from pyspark.sql import functions as F

    parts = rows.where(F.col(text).isNotNull()).select(F.col(text).alias("text"), user.alias("user"))
    parts = parts.withColumn("word", F.explode(words(F.col("text")))).where("word != ''")
    parts = parts.where(~F.col("word").rlike(SHORT_NUMBER) | F.col("user").isNull() | (F.col("user") == F.col("word")))
    named = parts.select("text", of_word(F.col("word")).alias("word"))
    return named.join(ids, "word", "left_semi").select("text").distinct()


def mentions_in_parts(rows: DataFrame, text: str, ids: DataFrame) -> DataFrame:
    """The distinct texts of ``rows`` with one of ``ids`` (column word) that has a blank, a quote, a backslash or so.

    A text is looked up by the longest word of the id, and compared with the whole id then, with and without JSON's
    escapes.
    """
    from pyspark.sql import functions as F

    odd = ids.where(F.col("word").rlike(_OUTSIDE) | F.col("word").contains("\\")).withColumnRenamed("word", "id")
    parts = F.split("id", _NO_LETTER)
    sized = F.transform(parts, lambda word: F.struct(F.length(word).alias("size"), word.alias("word")))
    odd = odd.withColumn("word", F.array_max(sized)["word"])
    texts = rows.where(F.col(text).isNotNull()).select(F.col(text).alias("text"))
    texts = texts.withColumn("word", F.explode(words(F.col("text")))).where("word != ''")
    forms = [F.col("text")]
    for _ in range(2):  # JSON in JSON
        forms.append(F.regexp_replace(forms[-1], r"\\(.)", "$1"))
    whole = F.greatest(*(form.contains(F.col("id")) for form in forms))
    return texts.join(odd, "word").where(whole).select("text").distinct()
