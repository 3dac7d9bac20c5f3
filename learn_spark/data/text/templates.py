"""Prompt templates: an item's fields as one text. A clause is left out where its field is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learn_spark.core.errors import SettingsError

if TYPE_CHECKING:
    from pyspark.sql import Column

_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """A prompt in clauses, each with one field in braces. If a clause changes, the version must change too."""

    name: str
    version: int
    clauses: tuple[str, ...]

    @property
    def key(self) -> str:
        """The value of item_text.template_version."""
        return f"{self.name}/{self.version}"

    def fields(self) -> list[str]:
        """The item columns that the template reads."""
        return [field for clause in self.clauses for field in _FIELD.findall(clause)]

    def text(self, fields: Mapping[str, str | None]) -> str:
        """The text of one item without Spark, equal to ``render``'s. ``fields`` are cleaned texts (None = missing)."""
        parts = []
        for clause in self.clauses:
            (field,) = _FIELD.findall(clause)
            if (value := fields.get(field)) is not None:
                parts.append(clause.replace(f"{{{field}}}", value))
        return " ".join(parts)

    def render(self, fields: dict[str, Column]) -> Column:
        """The text, empty where every field is missing. ``fields`` are cleaned columns (null = missing)."""
        from pyspark.sql import functions as F

        parts = []
        for clause in self.clauses:
            (field,) = _FIELD.findall(clause)
            before, after = clause.split(f"{{{field}}}")
            # concat is null where the field is null; concat_ws skips nulls
            parts.append(F.concat(F.lit(before), fields[field], F.lit(after)))
        return F.concat_ws(" ", *parts)


_TEMPLATES = (
    # Any catalogue. Without the price: it changes often, and each change would mean another text to encode.
    Template(
        "shop",
        1,
        (
            "Title: {title}.",
            "Category: {category}.",
            "Brand: {brand}.",
            "Keywords: {keywords}.",
            "Details: {attributes}.",
        ),
    ),
    # LEARN, section "content embedding generation": the industrial prompt with six fields.
    Template(
        "learn-industrial",
        1,
        (
            'The item information is given as follows. Item title is "{title}".',
            'This item belongs to "{category}".',
            'Its brand is "{brand}".',
            'The price is "{price}".',
            'The keywords of item are "{keywords}".',
            'This item supports "{attributes}".',
        ),
    ),
    # LEARN on Amazon reviews: the prompt with three fields.
    Template("amazon", 1, ("Title: {title}.", "Brand: {brand}.", "Category: {category}")),
    # The same form for films; attributes are the year of release.
    Template("movie", 1, ("Title: {title}.", "Genres: {category}.", "Year: {attributes}.")),
)


def template(name: str) -> Template:
    """The newest version of the template ``name``. Raises SettingsError with the names of all templates."""
    templates = {t.name: t for t in sorted(_TEMPLATES, key=lambda t: t.version)}
    if name not in templates:
        raise SettingsError(
            f"text.template: unknown template {name!r}; the templates are {', '.join(sorted(templates))}"
        )
    return templates[name]
