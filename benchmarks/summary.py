"""Draw docs/results/summary.svg from the first table of docs/results.md: NDCG@10 of each method, a data set a group.

Run: python -m benchmarks.summary
"""

from __future__ import annotations

import re
from pathlib import Path

from learn_spark.report.plots.dots import Group, Value, draw_dots
from learn_spark.report.plots.render import svg_file

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
PICTURE = PAGE.parent / "results" / "summary.svg"
CELL = re.compile(r"\*{0,2}(\.\d+)(?: ± (\.\d+))?")


def read_table(page: str) -> tuple[list[str], list[Group]]:
    """(names of the methods, a group for each row) of the first table of ``page``: data set, rule, then methods.

    A cell that is no figure is left out; one with ± has an interval.
    """
    lines = page.split("\n\n| ", 1)[1].split("\n\n", 1)[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    groups = []
    for dataset, rule, *cells in rows:
        values = {}
        for method, cell in zip(head[2:], cells, strict=True):
            if found := CELL.match(cell):
                value, half = float(found[1]), float(found[2]) if found[2] else None
                values[method] = Value(value, *(() if half is None else (value - half, value + half)))
        groups.append(Group(dataset, rule, values))
    return head[2:], groups


def main() -> None:
    """Write the picture."""
    methods, groups = read_table(PAGE.read_text(encoding="utf-8"))
    plot = draw_dots(
        "summary", "NDCG@10 by data set", methods, groups, group_name="data set", x_name="NDCG@10, test split"
    )
    PICTURE.write_text(svg_file(plot), encoding="utf-8")


if __name__ == "__main__":
    main()
