"""Generates docs/settings.md from learn_spark/core/settings (``make docs``)."""

from __future__ import annotations

import json
import sys
from typing import Any

from learn_spark.core.settings.describe import Knob, SectionKnobs, describe

HEAD = """\
# Settings

<!-- Written by `make docs` from learn_spark/core/settings and learn_spark/report/settings_page.py: change those, not
this page. -->

A settings file is YAML. `conf/learn.yaml` gives most settings a value with a comment. `learn-spark settings SECTION`
prints a section of this page in the terminal, `--json` gives it as data. The resolved settings of a run are in
`runs/<run_id>/settings.yaml`.

| preset in `conf/` | for |
|---|---|
| `shop` | your own files: `learn-spark init` extends it ([Your own data](start/own-data.md)) |
| `quickstart`, `learn` | MovieLens-100K with LEARN+; with LEARN alone |
| `learn-plus` | LEARN+ for any data set: extends the settings of the data set |
| `movielens`, `movielens-learn`, `movielens-plus`, `movielens-sasrec`, `movielens-hstu` | \
the tables of [MovieLens-100K](results/movielens.md) |
| `beauty`, `beauty-plus`, `beauty-plus-prefixes`, `beauty-sasrec`, `beauty-sasrec-prefixes`, \
`beauty-hstu`, `beauty-bsarec`, `beauty-last-day`, `beauty-last-day-plus-prefixes`, `beauty-cold`, `beauty-cold-plus`, \
`beauty-cold-plus-prefixes`, `beauty-cold-sasrec` | \
Amazon Beauty 2014 under three protocols |
| `books-meta`, `books-hllm` | Amazon Books 2014 as two papers split it ([Protocols](protocols.md)) |
| `online-retail`, `complete-journey` | purchases of a shop, and of households (simulated) |
| `ads`, `online-retail-ads`, `beauty-ads`, `complete-journey-ads` | the [ads ranker](ranking.md) on each |
| `cluster` | GPUs on a [cluster](cluster.md) |

**Precedence.** `extends` names a base file or a list of base files (`extends: learn.yaml`). A base file is a file in
the same folder, else a preset; `conf/shop.yaml` names the preset even where the folder has a `shop.yaml`. A file
overrides its base files, and a later file of the list overrides an earlier one, setting by setting. `--set key=value`
overrides all files and an earlier `--set`. A setting without a value has its default.

**Kinds.** Some sections have kinds: `tower.kind`, `embedding_space.kind`, `index.kind`, `histories.protocol`,
`source.format`. Each kind has its own settings; the column *kinds* names the kinds that have a setting (empty: all). A
setting of another kind is an error that names the kinds that have it.

If a file or a `--set` changes the kind that its base files give, the settings of the base files that the new kind does
not have are dropped. The settings of the file itself are checked, and so is every setting given by `--set`, in any
order. `null` for a setting of another kind is the same as leaving the setting out.

**Names.** `NAME` is a placeholder for a name that you choose, `[]` for each element of a list. An unknown name is an
error that gives the nearest valid name. A name of version 0.1 is an error that gives the new name.
"""


def settings_page() -> str:
    """The page as Markdown: the head, then every section with its settings."""
    sections = describe()
    links = [f"[`{section.name}`](#{section.name})" for section in sections]
    return "\n".join([HEAD, f"**Sections.** {', '.join(links)}.\n", *map(_section, sections)])


def default_of(knob: Knob) -> str:
    """The default as YAML text; "must be given" for a required setting."""
    if knob.required:
        return "must be given"
    text = json.dumps(knob.default, ensure_ascii=False)
    return knob.default if isinstance(knob.default, str) and knob.default else text


def values_of(knob: Knob) -> str:
    """Type and range of a setting, such as ``whole number, at least 1``, or its choices."""
    if knob.choices:
        kind = "some of " if knob.type.startswith("list") else ""
        null = " or null" if knob.type.endswith("or null") else ""
        return kind + ", ".join(knob.choices) + null
    return f"{knob.type}, {knob.range}" if knob.range else knob.type


def _section(section: SectionKnobs) -> str:
    head = ["setting", "values", "default", "effect"]
    if section.kind_key is not None:
        head.insert(3, "kinds")
    lines = [_row(head), _row(["---"] * len(head))]
    for knob in section.knobs:
        cells: list[Any] = [f"`{knob.key}`", values_of(knob), f"`{default_of(knob)}`", knob.effect]
        if knob.required:
            cells[2] = "must be given"
        if section.kind_key is not None:
            cells.insert(3, ", ".join(knob.kinds))
        lines.append(_row([cell.replace("|", "\\|") for cell in cells]))
    return f"## {section.name}\n\n{section.effect}\n\n" + "".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
