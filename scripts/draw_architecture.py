"""Write docs/images/rooms.svg and road.svg: ``python scripts/draw_architecture.py [FOLDER]``.

The rooms are those of the import-linter contract in pyproject.toml, the road is that of the stage registry.
"""

from __future__ import annotations

import sys
import tomllib
from html import escape
from pathlib import Path

from learn_spark.core.stages.registry import all_stages

ROOT = Path(__file__).parents[1]
HOLDS = {
    "api": "the public Python interface",
    "commands": "the command line",
    "studies": "many trainings in one table",
    "report": "pages and pictures",
    "pipeline": "runs stages; lineage, backfill, retention",
    "ads": "exposures, rankers, experiments",
    "features": "released vectors: audit, ledger, reading, index",
    "evaluation": "ranking a split, baselines, slices, comparison",
    "model": "towers, training, feed, scoring, reranker",
    "encoder": "the frozen LLM, embeddings and their space",
    "data": "sources, texts, histories, splits",
    "core": "settings, tables, quality gates, stage contract",
}
# Folders and logs beside the tables of a stage, and the tables that only keep records.
FOLDERS = {"train": ["models/<id>/"], "export_index": ["indexes/<id>/"], "rank_ads": ["rankings/<run>/"]}
FOLDERS["report"] = ["reports/index.html"]
INPUTS = {"ingest": ["raw files"], "evaluate": ["models/<id>/"], "publish": ["models/<id>/"], "report": ["all results"]}
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1b2733}.small{font-size:12px;fill:#4a5a68}.name{font-weight:600}"
    ".box{fill:#eaf1f8;stroke:#33658a}.arrow{stroke:#33658a;stroke-width:1.5;marker-end:url(#head)}"
)
HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" fill="#33658a"/></marker></defs>'
)


def svg(width: int, height: int, title: str, parts: list[str]) -> str:
    """The parts as one picture on white, with its title for screen readers."""
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t">'
    head = f'<title id="t">{escape(title)}</title><style>{STYLE}</style>{HEAD}'
    return "\n".join([opening, head, f'<rect width="{width}" height="{height}" fill="#fff"/>', *parts, "</svg>", ""])


def box(x: int, y: int, width: int, height: int) -> str:
    """A rounded box."""
    return f'<rect class="box" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'


def text(x: int, y: int, words: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text."""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def rooms() -> str:
    """The rooms from top to bottom, with the direction of imports."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "layers")
    parts = [text(20, 28, "A room imports only rooms below it.", "name")]
    for number, name in enumerate(layers):
        top = 44 + 44 * number
        parts += [box(20, top, 500, 34), text(34, top + 22, name, "name"), text(140, top + 22, HOLDS.get(name, ""))]
    bottom = 44 + 44 * len(layers) - 10
    parts.append(f'<line class="arrow" x1="548" y1="48" x2="548" y2="{bottom}"/>')
    parts.append(text(562, (48 + bottom) // 2, "imports"))
    return svg(640, bottom + 20, "The rooms of learn_spark and the direction of imports", parts)


def road() -> str:
    """Each stage between what it reads and what it writes."""
    parts = [
        text(220, 26, "reads", "name", "end"),
        text(310, 26, "stage", "name", "middle"),
        text(400, 26, "writes", "name"),
    ]
    top = 40
    for stage in all_stages():
        reads = [*INPUTS.get(stage.name, []), *stage.reads]
        writes = [*stage.writes, *FOLDERS.get(stage.name, [])]
        height = max(34, 17 * max(len(reads), len(writes)) + 8)
        middle = top + height // 2
        parts += [box(250, top, 120, height), text(310, middle + 5, stage.name, "name", "middle")]
        for side, anchor, names in ((220, "end", reads), (400, "start", writes)):
            first = middle - 17 * len(names) // 2 + 14
            parts += [text(side, first + 17 * n, name, "small", anchor) for n, name in enumerate(names)]
        parts.append(f'<line class="arrow" x1="226" y1="{middle}" x2="248" y2="{middle}"/>')
        parts.append(f'<line class="arrow" x1="372" y1="{middle}" x2="394" y2="{middle}"/>')
        top += height + 12
    return svg(620, top + 4, "The road of the data: what each stage reads and writes", parts)


def draw(folder: Path) -> None:
    """Write both pictures into ``folder``."""
    for name, picture in (("rooms.svg", rooms()), ("road.svg", road())):
        (folder / name).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
