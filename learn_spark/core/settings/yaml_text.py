"""YAML of people as plain values, with bounds: a short text must not become a tree that fills the memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from learn_spark.core.errors import SettingsError
from learn_spark.core.settings.secrets import without_secrets

MOST_CHARACTERS = 1 << 20
MOST_NODES = 100_000  # with every alias written out
MOST_DEPTH = 50


class _Loader(yaml.SafeLoader):
    """A YAML loader that reads ``1e-3`` as a number (YAML 1.1: a string), refuses repeated keys, and keeps bounds."""

    def get_single_node(self) -> Any:
        root = super().get_single_node()
        if root is not None:
            _check_size(root)
        return root

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth = getattr(self, "_depth", 0) + 1
        if self._depth > MOST_DEPTH:
            raise _refused(f"values are nested more than {MOST_DEPTH} deep", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            try:
                repeated = key in seen
            except TypeError:
                raise _refused("a key must be a plain value, not a list or a section", key_node.start_mark) from None
            if repeated:
                raise _refused(f"the key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# Dates are read as text; settings that are times parse it.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_yaml(path: Path) -> Any:
    """The values of a YAML file. Raises SettingsError as ``parse_yaml``, and for a file that cannot be read."""
    try:
        if (size := path.stat().st_size) > 4 * MOST_CHARACTERS:
            raise SettingsError(f"{path} has {size:,} bytes; at most {4 * MOST_CHARACTERS:,} are read as settings")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The values of a YAML document; ``where`` names it in errors.

    Raises SettingsError for what is not YAML, for objects of Python, and for a text beyond the bounds: MOST_CHARACTERS,
    MOST_DEPTH, and MOST_NODES with every alias written out (nested aliases make a few lines a billion values).
    """
    if len(text) > MOST_CHARACTERS:
        raise SettingsError(f"{where} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read as settings")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where} is not valid YAML: {' '.join(without_secrets(str(error)).split())}") from None
    except (ValueError, KeyError, TypeError) as error:
        # A tag such as !!int before a text raises what Python's int raises.
        raise SettingsError(f"{where} is not valid YAML: a value is not what it is tagged as: {error}") from None


def _refused(why: str, mark: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, why, mark)


def _check_size(root: yaml.Node) -> None:
    """Raise ConstructorError where the tree has more than MOST_NODES nodes, or one contains itself."""
    sizes: dict[int, int | None] = {}  # None: it is being counted

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise _refused("an alias (*) is used inside of what it names", node.start_mark)
            return known
        sizes[id(node)] = None
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        total = 1 + sum(size(part) for part in parts)
        if total > MOST_NODES:
            raise _refused(f"with its aliases (*) written out it has more than {MOST_NODES:,} values", node.start_mark)
        sizes[id(node)] = total
        return total

    size(root)
