"""Generates docs/data.md from schemas/: ``python -m learn_spark.report.data_page > docs/data.md`` (``make docs``)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from learn_spark.core.stages.registry import all_stages
from learn_spark.core.tables.contracts import Contract, TableRule, all_tables, contract

HEAD = """\
# Data

<!-- Written by `make docs` from schemas/*.yaml and learn_spark/report/data_page.py: change those, not this page. -->

Every table is a Delta table below `<workspace>/tables/`. Its contract in `schemas/` is enforced by every write
(columns, nullability, constraints) and by the gate of the stage that writes it (rules). This page is generated from the
contracts.

**Identifiers are strings**, unchanged from the source. The dense numbers of `item_index` exist inside the platform
only. **Times are UTC.** Timestamps have microseconds; an `as_of` includes the events strictly before it.

**How the tables refer to each other.**

- `items.item_id` is the catalogue. `interactions`, `item_text` and `item_index` refer to its items; their gates count
  references to missing items, and events of unknown items are kept in `quarantine`.
- `item_text.text_key` refers to `text_embeddings.text_key`, together with the key of one encoder: equal texts share a
  row.
- `user_histories` has the events of `interactions` by user; the numbers in its `item_index` are those of the table
  `item_index`, and 0 is padding.
- The vectors of a released version of `user_features` and of `item_features` belong to the same vector space;
  `releases` names the versions that belong together.
- `exposures` is the training data of the ads ranker (docs/exposures.md describes its origins; the exposures of
  Complete Journey are simulated). Sums over `weight` represent all exposures, sampled or not.
- `ad_scores.event_id` refers to a row of `exposures`, scored with the features of `release_id`.
- `run_id` refers to a row of `runs`, which has the versions of all inputs and outputs of the run. In `quality_results`
  it may be the id of a check, which has no row in `runs`.

**How a consumer reads.** A consumer reads features through `releases`, never as the newest rows of a table. The current
release is the newest row with the status `released` that no later row of the same release withdraws. Its `outputs` name
the version of `user_features` and `item_features`; all rows of that version are the release (`VERSION AS OF` in SQL,
`version=` of the `deltalake` package). `learn_spark/features/read.py` implements this for Spark and, with
`released_arrow`, without Spark. A rollback is a new row, so a consumer only reads the ledger again. The file
`tables/released.json` names the current release and the versions of its tables, for readers without this package.

**Rules.** A row that breaks a row rule goes to `quarantine` with all its reasons. Where a rule of an optional field is
broken, the field becomes null, and the run prints how often. Row rules are evaluated when a row is ingested. Besides
the table's columns they use `malformed` (the line could not be split), `raw` (the whole row as text), `raw_<column>`
(the text of a column before its type is applied) and `item_is_known`. After a stage has written a table, the table
rules are evaluated on the new version, and the results go to `quality_results`. A broken rule of severity fail ends the
run with exit code 3, and no stage reads that version; a broken rule of severity warn is only reported. A drift rule
compares with the newest earlier version that passed, and passes if there is none.
`quality.rules` in the settings changes bounds and severity; `learn-spark check <table>` runs the gate of one table.
"""


def data_page() -> str:
    """The page as Markdown: the head, then the contract of every table in the order of the pipeline."""
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
        parts += ["Constraints, true for every row:\n", _table(("name", "condition"), rows)]
    if table.row_rules:
        hard = [(_cell(rule.reason), _code(rule.broken)) for rule in table.row_rules if rule.nulls is None]
        parts += ["Row rules; a row is refused where the condition is true:\n", _table(("reason", "condition"), hard)]
    if soft := [rule for rule in table.row_rules if rule.nulls is not None]:
        fields = [(_cell(rule.reason), _code(rule.nulls or ""), _code(rule.broken)) for rule in soft]
        parts += [
            "Row rules of optional fields; the field becomes null where the condition is true, and the row is kept:\n",
            _table(("reason", "field", "condition"), fields),
        ]
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
        return f"rows that share {', '.join(map(_code, rule.repeats_of))} with another row"
    if rule.references is not None:
        column, table = _code(rule.references.column), _code(rule.references.table)
        return f"rows whose {column} is not in {table}"
    if rule.even is not None:
        group = ", ".join(map(_code, rule.even.within))
        return (
            f"missing rows of values of {_code(rule.even.among)}, against the most frequent value with the same {group}"
        )
    if rule.drift_of is not None:
        before = f"{_code(rule.drift_of)} against the newest earlier version that passed"
        return f"{before} ({rule.change.replace('_', ' ')})"
    return f"{_code(rule.given or '')}, reported by the stage that writes the table"


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
