"""docs/data.md, written from schemas/: ``python -m learn_spark.report.data_page > docs/data.md`` (or ``make docs``)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from learn_spark.core.stages.registry import all_stages
from learn_spark.core.tables.contracts import Contract, TableRule, all_tables, contract

HEAD = """\
# Data

<!-- Written by `make docs` from schemas/*.yaml and learn_spark/report/data_page.py: change those, not this page. -->

Every table is a Delta table below `<workspace>/tables/`. Its contract in `schemas/` is enforced by every write
(columns, nullability, constraints) and by the gate of the stage that writes it (rules). This page is written from the
contracts.

**Identifiers are strings**, as the source spells them. The dense numbers of `item_index` exist inside the platform
only. **Times are UTC.** Timestamps have microseconds; an `as_of` includes the events strictly before it.

**How the tables refer to each other.**

- `items.item_id` is the catalogue. `interactions`, `item_text` and `item_index` refer to its items; their gates count
  references to missing items, and events of unknown items wait in `quarantine`.
- `item_text.text_key` leads to `text_embeddings.text_key`, together with the key of one encoder: equal texts share a
  row.
- `user_histories` has the events of `interactions` by user; the numbers in its `item_index` are those of the table
  `item_index`, and 0 is padding.
- A version of `user_features` and one of `item_features` have the vectors of one space; `releases` names the
  versions that belong together.
- `exposures` are what the ads ranker learns from (docs/exposures.md describes how they are made; those of
  Complete Journey are simulated). Sums over `weight` represent all exposures, sampled ones or not.
- `ad_scores.event_id` is a row of `exposures`, scored with the features of `release_id`.
- `run_id` is a row of `runs`, with the versions of all that the run read and wrote. In `quality_results` it may be a
  check's own, which writes no such row.

**How a consumer reads.** Features are read through `releases`, never as a table's newest rows: take the newest row
with the status `released` that no later row of the same release withdrew; its `outputs` name the version of
`user_features` and `item_features`, and all rows of that version are the release (`VERSION AS OF` in SQL, `version=` of
the `deltalake` package). `learn_spark.features.read` (Spark) and `released_arrow` in `learn_spark/features/read.py`
(without) do that. A rollback is a new row, so a consumer only has to read the ledger again.

**Rules.** A row that breaks a row rule goes to `quarantine` with all its reasons. Row rules are evaluated when a row is
ingested; beside the table's columns they use `malformed` (the line could not be split), `raw` (the whole
row as it came), `raw_<column>` (the text before it was typed) and `item_is_known`. After a stage has written a table,
the table rules are evaluated on the new version, and the results go to `quality_results`. A broken rule of
severity fail ends the run with exit code 3, and no stage reads that version; a broken rule of severity warn is only
reported. A drift rule compares with the newest earlier version that passed, and passes where there is none.
`quality.rules` in the settings changes bounds and severity; `learn-spark check <table>` runs one table's gate alone.
"""


def data_page() -> str:
    """The page as Markdown: the head, then every table's contract in the order of the data's road."""
    tables = _in_order()
    links = [f"[`{name}`](#{name})" for name in tables]
    parts = [HEAD, f"**Tables.** {', '.join(links)}.\n"]
    parts += [_section(contract(name)) for name in tables]
    return "\n".join(parts)


def _in_order() -> list[str]:
    written = [table for stage in all_stages() for table in stage.writes]
    return list(dict.fromkeys([*written, *all_tables()]))


def _section(table: Contract) -> str:
    parts = [f"## {table.table}\n", f"{table.meaning}\n"]
    facts = ["Key: " + ", ".join(_code(column) for column in table.key) + "."]
    if by := [stage.name for stage in all_stages() if table.table in stage.writes]:
        facts.append(f"Written by {_codes(by)}.")
    if by := [stage.name for stage in all_stages() if table.table in stage.reads]:
        facts.append(f"Read by {_codes(by)}.")
    if table.change_data_feed:
        facts.append("Has a change data feed.")
    if table.keeps_versions:
        facts.append("Old versions stay readable.")
    parts.append(" ".join(facts) + "\n")
    parts.append(
        _table(
            ("column", "type", "nullable", "meaning", "unit"),
            [
                (_code(c.name), _code(c.type), "yes" if c.nullable else "no", _cell(c.meaning), _cell(c.unit or ""))
                for c in table.columns
            ],
        )
    )
    if table.constraints:
        rows = [(_code(name), _code(condition)) for name, condition in table.constraints.items()]
        parts += ["Constraints, which every row keeps:\n", _table(("name", "condition"), rows)]
    if table.row_rules:
        rows = [(_cell(rule.reason), _code(rule.broken)) for rule in table.row_rules]
        parts += ["Row rules; a row is refused where the condition is true:\n", _table(("reason", "condition"), rows)]
    if table.rules:
        lines = [
            (_code(r.name), _measured(r), _bound(r.least), _bound(r.most), r.severity, _cell(r.meaning))
            for r in table.rules
        ]
        head = ("rule", "what is measured", "least", "most", "severity", "meaning")
        parts += ["Table rules, evaluated for every version:\n", _table(head, lines)]
    return "\n".join(parts)


def _measured(rule: TableRule) -> str:
    if rule.measure is not None:
        return _code(rule.measure)
    if rule.repeats_of is not None:
        return f"rows whose {', '.join(map(_code, rule.repeats_of))} another row has too"
    if rule.references is not None:
        column, table = _code(rule.references.column), _code(rule.references.table)
        return f"rows whose {column} is not in {table}"
    if rule.even is not None:
        group = ", ".join(map(_code, rule.even.within))
        return f"rows that values of {_code(rule.even.among)} are short of the one with most, of the same {group}"
    if rule.drift_of is not None:
        before = f"{_code(rule.drift_of)} against the version that passed before"
        return f"{before} ({rule.change.replace('_', ' ')})"
    return f"{_code(rule.given or '')}, reported by the stage that writes"


def _bound(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    plain = " ".join(text.split()).replace("\ufffd", "\\uFFFD")
    return plain.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(_code(name) for name in names)


if __name__ == "__main__":
    sys.stdout.write(data_page())
