"""The version of a stage's code: a hash of the modules that its entry module imports, and of its tables' contracts.

Docstrings, comments and layout are excluded, so that a stage reruns only after a change that can change its result.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from learn_spark.core.resources import package_folder, resource_folder
from learn_spark.core.stages.stage import Stage

PACKAGE = "learn_spark"
# Modules that results do not depend on, or whose influence on a result is recorded elsewhere.
IGNORED = (
    "learn_spark.core.console",  # prints
    "learn_spark.core.stages.registry",  # names stages; a run records its settings' hash and its inputs' versions
    "learn_spark.core.stages.code",  # this module
    "learn_spark.core.stages.observer",  # is told of runs and changes none
    "learn_spark.core.settings.load",  # reads settings; a run records the hash of their values
)
# Of settings classes only methods that derive values are included; a run records the hash of the values themselves.
SETTINGS = "learn_spark.core.settings"
# Keys of a contract without influence on rows: explanations, and table rules, which have fingerprints.
EXPLANATIONS = ("meaning", "unit", "rules")


@dataclass(frozen=True)
class Source:
    """The source folder of the package. Tests use a ``root`` other than the installed one."""

    root: Path

    def closure(self, *modules: str) -> tuple[str, ...]:
        """``modules`` and all modules of the package that they import, directly or not, in functions too; sorted.

        Excludes the package's ``__init__`` (version and public names) and imports for type checking. Raises ValueError
        for a module that does not exist.
        """
        open_modules, closure = list(modules), set[str]()
        while open_modules:
            name = open_modules.pop()
            if name in closure or name == PACKAGE or name.startswith(IGNORED):
                continue
            if self._path(name) is None:
                raise ValueError(f"there is no module {name} in {self.root}")
            closure.add(name)
            open_modules += self._imports(name)
        return tuple(sorted(closure))

    def version(self, *modules: str, within: str = PACKAGE) -> str:
        """A hash (12 hex digits) of the closure of ``modules``, restricted to ``within``, and its page templates."""
        digest = hashlib.sha256()
        for name in self.closure(*modules):
            if name.startswith(within):
                path = self._path(name)
                assert path is not None
                text = path.read_bytes()
                dump = _dump_of_settings(text) if name.startswith(SETTINGS) else _dump(text)
                digest.update(name.encode() + b"\0" + dump.encode() + b"\0")
                if path.name == "__init__.py":
                    for template in sorted(path.parent.rglob("*.jinja")):
                        name_inside = template.relative_to(path.parent).as_posix()
                        digest.update(name_inside.encode() + b"\0" + template.read_bytes() + b"\0")
        return digest.hexdigest()[:12]

    def _path(self, name: str) -> Path | None:
        """The file of a module or package; None if there is none."""
        base = self.root.joinpath(*name.split(".")[1:])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
        return None

    def _imports(self, name: str) -> Iterator[str]:
        path = self._path(name)
        assert path is not None
        for imported in _imported_names(path.read_bytes()):
            # Importing a.b.c runs the files of a and a.b as well.
            parts = imported.split(".")
            parents = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
            yield from (parent for parent in parents if self._path(parent) is not None)


# The caches are by a file's content: a closure of a hundred modules is asked for once a stage, and parsing is slow.


@cache
def _imported_names(text: bytes) -> tuple[str, ...]:
    """Names of the package that a file imports, in its order."""
    found: list[str] = []
    for node in _without_type_checking(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found += [name for name in names if name.split(".")[0] == PACKAGE]
    return tuple(found)


def _without_type_checking(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes except those in ``if TYPE_CHECKING``."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending += node.orelse
            continue
        yield node
        pending += ast.iter_child_nodes(node)


@cache
def _dump(text: bytes) -> str:
    """The syntax tree of a file without docstrings, comments and positions."""
    return ast.dump(_without_docstrings(ast.parse(text)))


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:]
    return tree


@cache
def _dump_of_settings(text: bytes) -> str:
    """The syntax trees of all methods of the classes in a file except validators, in the form of ``_dump``."""
    tree = ast.parse(text)
    methods = [
        node
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef) and "validator" not in "".join(map(ast.unparse, node.decorator_list))
    ]
    return "\n".join(ast.dump(_without_docstrings(node)) for node in methods)


@cache
def installed() -> Source:
    """The source folder of the running package."""
    return Source(package_folder())


@cache
def code_version(*modules: str, within: str = PACKAGE) -> str:
    """``Source.version`` of the running package."""
    return installed().version(*modules, within=within)


def stage_version(stage: Stage, source: Source | None = None) -> str:
    """A hash (12 hex digits) of the stage's code and of the contracts of the tables that it reads and writes."""
    code = code_version(stage.module) if source is None else source.version(stage.module)
    contracts = [contract_without_explanations(table) for table in sorted({*stage.reads, *stage.writes})]
    return hashlib.sha256(json.dumps([code, contracts], sort_keys=True).encode()).hexdigest()[:12]


@cache
def contract_without_explanations(table: str) -> Any:
    """The parts of a table's contract that can change rows: columns, constraints and row rules."""
    text = (resource_folder("schemas") / f"{table}.yaml").read_text(encoding="utf-8")
    return _without_explanations(yaml.safe_load(text))


def _without_explanations(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_explanations(value) for key, value in node.items() if key not in EXPLANATIONS}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_without_explanations(value) for value in node]
    return node
