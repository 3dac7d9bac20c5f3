"""Files that belong together, such as the daily files of one log, and the pattern that matches them."""

from __future__ import annotations

import glob
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from learn_spark.data.guesses.contents import Contents, FileFormat, Row, TextLayout

_Kind = tuple[str, frozenset[str]]  # the stem of a file's name, its columns


@dataclass(frozen=True)
class FileSet:
    """Files of one format with the same columns or similar names. ``pattern`` matches exactly these files."""

    pattern: str
    files: tuple[Contents, ...]

    @property
    def format(self) -> FileFormat:
        """The format of all files."""
        return self.files[0].format

    @property
    def layout(self) -> TextLayout:
        """The layout that reads all files: the encoding, quote and escape of those that need a special one."""
        layouts = [file.layout for file in self.files]
        return replace(
            layouts[0],
            encoding=next((e for e in ("latin-1", "cp1252") if e in self.encodings), min(self.encodings)),
            quote=next((one.quote for one in layouts if one.quote != '"'), '"'),
            escape=next((one.escape for one in layouts if one.escape != one.quote), layouts[0].quote),
        )

    @property
    def encodings(self) -> set[str]:
        """The encodings of the files, where it matters."""
        return {file.layout.encoding for file in self.files} - {"ascii"} or {"utf-8"}

    @property
    def multiline(self) -> bool:
        """Whether a quoted field of any file has a line break."""
        return any(file.layout.multiline for file in self.files)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of every file, in the order of the first one."""
        common = set.intersection(*(set(file.columns) for file in self.files))
        return tuple(column for column in self.files[0].columns if column in common)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Rows of the first, the last and the middle one of the files that were read further."""
        read = sorted(sorted(self.files, key=lambda file: -len(file.rows))[:3], key=lambda file: file.name)
        return tuple(row for file in read for row in file.rows)


def file_sets(folder: Path, files: Sequence[Contents]) -> tuple[list[FileSet], dict[str, str]]:
    """(the sets, files that no pattern covers with the reason).

    Files belong together if they have one format and separator, and the same columns, or half of them and names that
    differ only in digits.
    """
    sets: list[FileSet] = []
    left_out: dict[str, str] = {}
    for group in _groups(files):
        names = [file.name for file in group]
        pattern, covered = _pattern(folder, names, {file.name for file in files})
        sets.append(FileSet(pattern, tuple(file for file in group if file.name in covered)))
        for file in group:
            if file.name not in covered:
                left_out[file.name] = (
                    f"its columns are those of {pattern}, but no pattern matches both and nothing else; "
                    "move files of one kind into a folder of their own"
                )
    return sorted(sets, key=lambda one: one.pattern), left_out


def _groups(files: Sequence[Contents]) -> list[list[Contents]]:
    by_layout: dict[tuple[object, ...], list[Contents]] = defaultdict(list)
    for file in files:
        layout = file.layout
        wide = layout.encoding if layout.encoding.startswith("utf-16") else ""
        written = (wide, layout.separator, bool(layout.header_note))
        table = file.name if file.format == "delta" else ""
        by_layout[(file.format, table, *written)].append(file)
    groups: list[list[Contents]] = []
    for alike in by_layout.values():
        joined: list[tuple[set[_Kind], list[Contents]]] = []
        for file in alike:
            kind = stem_of(file.name), frozenset(column.casefold() for column in file.columns)
            same = [one for one in joined if any(_are_of_one_table(kind, other) for other in one[0])]
            merged = ({kind}.union(*(one[0] for one in same)), [*(f for one in same for f in one[1]), file])
            joined = [one for one in joined if one not in same] + [merged]
        groups += [sorted(group, key=lambda file: file.name) for _, group in joined]
    return groups


def _are_of_one_table(one: _Kind, other: _Kind) -> bool:
    """Whether files of these kinds and one layout are of one table: from day to day columns may be added or left out,
    but most of those of the smaller one stay.
    """
    (stem, columns), (other_stem, others) = one, other
    if columns == others:
        return True
    return stem == other_stem and 2 * len(columns & others) >= min(len(columns), len(others))


def stem_of(name: str) -> str:
    """The name without digits, so that daily files have one stem."""
    return re.sub(r"\d+", "0", name)


def _pattern(folder: Path, names: list[str], others: set[str]) -> tuple[str, set[str]]:
    """(a pattern, the names that it covers): all names where a pattern fits exactly, else those of one stem or one."""
    for pattern in _candidates([glob.escape(name) for name in names]):
        if _matched(folder, pattern) & others == set(names):
            return pattern, set(names)
    stems = Counter(stem_of(name) for name in names)
    stem, number = stems.most_common(1)[0]
    if number < len(names):
        return _pattern(folder, [name for name in names if stem_of(name) == stem], others)
    if len(names) > 1:
        return _pattern(folder, names[-1:], others)
    return glob.escape(names[0]), {names[0]}


def _matched(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob(pattern)}


def _candidates(names: list[str]) -> list[str]:
    parts = [PurePosixPath(name).parts for name in names]
    if len(names) == 1:
        *parents, last = parts[0]
        # A file that has a folder for itself, or a date in its name, is the first of many.
        alone = ["/".join([*parents, f"*{_suffix([last])}"])] if parents else []
        dated = ["/".join([*parents, re.sub(r"\d[\d_.-]*\d|\d", "*", last)])] if re.search(r"\d{4}", last) else []
        return [*alone, *dated, names[0]]
    last = _between([part[-1] for part in parts])
    exact = "".join(_common([part[-1] for part in parts])) + "*" + _suffix([part[-1] for part in parts])
    if len({len(part) for part in parts}) > 1:
        common = _common([part[:-1] for part in parts])
        return ["/".join([*common, "**", end]) for end in (last, exact)]
    levels = [level[0] if len(set(level)) == 1 else _between(list(level)) for level in zip(*parts, strict=True)][:-1]
    any_folder = [level if "*" not in level else "*" for level in levels]
    found = [*levels, last], [*levels, exact], [*any_folder, last]
    return ["/".join(one) for one in found]


def _between(names: list[str]) -> str:
    """Common beginning and end around a ``*``, without digits at the edges, which differ tomorrow."""
    if len(set(names)) == 1:
        return names[0]
    begin = re.sub(r"(=?)[\d\W_]*$", r"\1", "".join(_common(names)))
    return f"{begin}*{_suffix(names)}"


def _suffix(names: list[str]) -> str:
    end = "".join(_common([name[::-1] for name in names]))[::-1]
    return end[end.index(".") :] if "." in end else ""


def _common(sequences: Sequence[Sequence[str]]) -> list[str]:
    """The elements with which all sequences begin: characters of texts, or folders of paths."""
    common = []
    for elements in zip(*sequences, strict=False):
        if len(set(elements)) > 1:
            break
        common.append(elements[0])
    return common
