"""A study: rows of settings, each trained with every seed and evaluated, in one table."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, model_validator

from learn_spark.core.settings.base import Count, Section

Overrides = dict[str, Any]


class StudyRowSettings(Section):
    """One row of a study."""

    config: str
    """A settings file, or its name in conf/."""
    set: Overrides = Field(default_factory=dict)
    """Settings that this row has otherwise: {tower.layers: 4}."""
    search: Count | None = None
    """Trials of a search over the row's search.parameters; the row is trained with the best. null: no search."""

    @property
    def overrides(self) -> list[str]:
        """``set`` as arguments of --set."""
        return as_arguments(self.set)


class StudySettings(Section):
    """The plan of a study. All rows read the same tables and are compared with the first one."""

    tables: str | None = None
    """The settings file whose stages make the tables, or its name in conf/. null: the tables of the rows' workspace as
    they are.
    """
    set: Overrides = Field(default_factory=dict)
    """Settings that all rows and the tables have otherwise."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(default_factory=lambda: [2024])
    """training.seed of each training of a row. Two and more give intervals."""
    rows: Annotated[dict[str, StudyRowSettings], Field(min_length=1)]
    """Name -> row."""
    slices: list[str] = Field(default_factory=list)
    """Dimensions of evaluation_slices to show: popularity, mass, cold, history, recency, time, same_day."""

    @property
    def overrides(self) -> list[str]:
        """``set`` as arguments of --set."""
        return as_arguments(self.set)

    @model_validator(mode="after")
    def _seeds_once(self) -> StudySettings:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: each seed may be there once")
        return self


def as_arguments(overrides: Overrides) -> list[str]:
    """Settings by key as arguments of --set; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
