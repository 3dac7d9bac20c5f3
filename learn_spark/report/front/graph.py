"""The lineage of some runs as a graph: a box a run with what it wrote, in rows from the raw files down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.runs import BOOKKEEPING, MODELS, Run
from learn_spark.pipeline.lineage import Lineage
from learn_spark.pipeline.provenance import FILES

BOX, ACROSS, DOWN = 172, 14, 30  # width of a box, and the gaps between boxes, in pixels
HEAD, LINE, EDGE = 26, 19, 2
LETTERS = 24  # of a line in a box


@dataclass(frozen=True)
class Made:
    """Something that a run wrote: ``key`` of its description on the page, and its name within the box's width."""

    key: str
    name: str
    version: str
    short: str
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Box:
    """A run in the graph, at (x, y). ``sources``: the jobs that wrote its inputs; ``inputs``: (name, version, key of
    what is on the page or "").

    ``above`` and ``below``: the jobs whose data it has, and those that have its data, with itself.
    """

    run: Run
    x: int
    y: int
    height: int
    made: tuple[Made, ...]
    files: tuple[str, ...]
    inputs: tuple[tuple[str, str, str], ...]
    above: tuple[str, ...]
    below: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """``arrows``: SVG paths, each with the jobs that it joins."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[str, str, str], ...]
    width: int
    height: int


def graph_of(runs: Sequence[Run], all_of_them: Sequence[Run]) -> Graph:
    """The graph of ``runs``, at most one a stage; ``all_of_them``: every recorded run, oldest first."""
    lineage = Lineage(all_of_them)
    inside = {run.run_id for run in runs}
    sources = {run.job: {one.job for one in lineage.sources(run) if one.run_id in inside} - {run.job} for run in runs}
    above = {run.job: _reached(run.job, sources) for run in runs}
    below = {job: {other for other in above if job in above[other]} for job in above}
    direct = {
        job: {one for one in of if not any(one in above[two] for two in of if two != one)}
        for job, of in sources.items()
    }
    written = {(name, value): f"{run.job}-{place}" for run in runs for place, (name, value) in enumerate(_made(run))}
    places = _places(runs, above, direct)
    boxes: dict[str, Box] = {}
    top = EDGE
    for row in sorted({row for row, _ in places.values()}):
        here = [run for run in runs if places[run.job][0] == row]
        for run in here:
            made = tuple(
                Made(f"{run.job}-{place}", name, value, _short(name, value), _readers(name, value, runs))
                for place, (name, value) in enumerate(_made(run))
            )
            files = tuple(storage_path(name.removeprefix(FILES)).name for name in run.inputs if name.startswith(FILES))
            inputs = tuple(
                (name, value, written.get((name, value), ""))
                for name, value in sorted(run.inputs.items())
                if not name.startswith(FILES)
            )
            boxes[run.job] = Box(
                run=run,
                x=EDGE + places[run.job][1] * (BOX + ACROSS),
                y=top,
                height=HEAD + LINE * len(made) + (6 if made else 0),
                made=made,
                files=files,
                inputs=inputs,
                above=tuple(sorted(above[run.job])),
                below=tuple(sorted(below[run.job])),
            )
        top += max(boxes[run.job].height for run in here) + DOWN
    columns = 1 + max(column for _, column in places.values())
    arrows = tuple(
        (source, run.job, _arrow(boxes[source], boxes[run.job])) for run in runs for source in sorted(direct[run.job])
    )
    return Graph(
        tuple(boxes[run.job] for run in runs), arrows, columns * (BOX + ACROSS) - ACROSS + 2 * EDGE, top - DOWN + EDGE
    )


def _made(run: Run) -> Iterator[tuple[str, str]]:
    """(name, version) of what a run wrote, without tables that all runs append to; a model by its id."""
    for name, value in run.outputs.items():
        if name.startswith(MODELS):
            yield "model", name.removeprefix(MODELS)
        elif name not in BOOKKEEPING:
            yield name, value


def _readers(name: str, value: str, runs: Sequence[Run]) -> tuple[str, ...]:
    return tuple(run.job for run in runs if run.inputs.get(name) == value)


def _short(name: str, version: str) -> str:
    """``name @ version``, of which both are cut to the width of a box; the page has them whole below."""
    plain, tail = name.partition("/")[0], version[:8]
    room = LETTERS - len(tail) - 3
    return f"{plain if len(plain) <= room else plain[: room - 1] + '…'} @ {tail}"


def _reached(job: str, sources: Mapping[str, set[str]]) -> set[str]:
    found, waiting = {job}, [job]
    while waiting:
        for source in sources[waiting.pop()] - found:
            found.add(source)
            waiting.append(source)
    return found


def _places(
    runs: Sequence[Run], above: Mapping[str, set[str]], direct: Mapping[str, set[str]]
) -> dict[str, tuple[int, int]]:
    """Job -> (row, column). A run is below all its sources, and where it can below the first of them."""
    order = {run.job: place for place, run in enumerate(runs)}
    rows: dict[str, int] = {}
    for run in sorted(runs, key=lambda run: (len(above[run.job]), order[run.job])):
        rows[run.job] = max((rows[source] + 1 for source in direct[run.job]), default=0)
    places: dict[str, tuple[int, int]] = {}
    taken: set[tuple[int, int]] = set()
    lowest = {job: max((rows[other] for other in rows if job in direct[other]), default=0) for job in rows}
    for run in sorted(runs, key=lambda run: (rows[run.job], order[run.job])):
        row = rows[run.job]
        column = min((places[source][1] for source in direct[run.job]), default=0)
        while (row, column) in taken:
            column += 1
        # The arrows to a run further down have their place below this one: none is hidden by a box.
        taken |= {(under, column) for under in range(row, max(row + 1, lowest[run.job]))}
        places[run.job] = row, column
    return places


def _arrow(source: Box, target: Box) -> str:
    """A line down from the lower edge of a box, and then a curve to the upper edge of another."""
    x, y, u, v = source.x + BOX // 2, source.y + source.height, target.x + BOX // 2, target.y - 5
    bend = max(y, v - DOWN + 5)
    half = (v - bend) // 2
    return f"M{x} {y}V{bend}C{x} {bend + half} {u} {v - half} {u} {v}"
