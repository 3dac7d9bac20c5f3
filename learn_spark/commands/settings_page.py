"""``learn-spark settings [SECTION]``: every setting with type, default, range and effect."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from learn_spark.core.settings.describe import Knob, SectionKnobs, describe
from learn_spark.core.settings.explain import either
from learn_spark.report.settings_page import default_of, values_of

WIDTH = 110


def settings_text(section: str | None = None) -> str:
    """All settings, or those of one section, as text for the terminal. Raises SettingsError for an unknown section."""
    return "\n".join(map(_section_text, describe(section)))


def settings_json(section: str | None = None) -> str:
    """All settings, or those of one section, as a JSON list. Raises SettingsError for an unknown section."""
    return json.dumps([asdict(each) for each in describe(section)], indent=2, ensure_ascii=False, allow_nan=False)


def _section_text(section: SectionKnobs) -> str:
    lines = [*textwrap.wrap(f"{section.name}: {section.effect}", WIDTH), ""]
    for kinds in dict.fromkeys(knob.kinds for knob in section.knobs):
        if kinds:
            lines += [f"  {section.name}.{section.kind_key} {either(kinds)}:", ""]
        lines += _knob_lines([knob for knob in section.knobs if knob.kinds == kinds])
    return "\n".join(lines)


def _knob_lines(knobs: Sequence[Knob]) -> list[str]:
    lines = []
    for knob in knobs:
        default = default_of(knob) if knob.required else f"default {default_of(knob)}"
        lines.append(f"  {knob.key}  ({values_of(knob)}; {default})")
        lines += textwrap.wrap(knob.effect, WIDTH, initial_indent="      ", subsequent_indent="      ")
        lines.append("")
    return lines
