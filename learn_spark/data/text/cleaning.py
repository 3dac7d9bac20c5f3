"""Cleaning raw text: HTML, control characters, white space, length. Pure Columns, and the same without Spark."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

# &amp; is last, because "&amp;lt;" is the text "&lt;", not "<".
# Letters without a glyph: Hangul fillers and the blank of braille.
_FILLERS = "\u115f\u1160\u3164\uffa0\u2800"
_ENTITIES = (("&nbsp;", " "), ("&quot;", '"'), ("&#0?39;|&apos;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def clean(column: Column, max_characters: int) -> Column:
    """Text without tags, entities, control and zero-width characters and runs of white space; null where nothing is
    left, or only characters without a glyph of their own: invisible ones and lone accents, which tokenizers drop.

    The text is truncated to ``max_characters`` first, so that a huge field costs no more than a long one.
    """
    from pyspark.sql import functions as F

    text = F.substring(column, 1, max_characters)
    text = F.regexp_replace(text, "(?s)<!--.*?-->|</?[A-Za-z][^<>]*>", " ")
    for entity, character in _ENTITIES:
        text = F.regexp_replace(text, entity, character)
    text = F.regexp_replace(text, r"[\p{Cc}\u200b\u2060\ufeff\ufffd]", " ")
    text = F.trim(F.regexp_replace(text, r"[\s\p{Z}]+", " "))
    return F.when(text.rlike(rf"[^\p{{Z}}\p{{M}}\p{{Cc}}\p{{Cf}}{_FILLERS}]"), text)


def clean_text(text: str | None, max_characters: int) -> str | None:
    """``clean`` for one text, without Spark: for previews."""
    if text is None:
        return None
    text = re.sub(r"(?s)<!--.*?-->|</?[A-Za-z][^<>]*>", " ", text[:max_characters])
    for entity, character in _ENTITIES:
        text = re.sub(entity, character, text)
    text = "".join(" " if unicodedata.category(c) == "Cc" or c in "\u200b\u2060\ufeff\ufffd" else c for c in text)
    text = re.sub(r" +", " ", "".join(" " if unicodedata.category(c)[0] == "Z" else c for c in text)).strip(" ")
    return text if any(_is_visible(character) for character in text) else None


def _is_visible(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] not in "ZM" and category not in ("Cc", "Cf") and character not in _FILLERS
