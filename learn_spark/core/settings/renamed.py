"""Settings that were renamed after version 0.1: the old name is an error that gives the new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from learn_spark.core.errors import SettingsError

RENAMED_KEYS = {
    "space": "embedding_space",
    "search.space": "search.parameters",
    "tower.evidence": "tower.reranker",
    "tower.fusion": "tower.blending",
    "evaluation.evidence": "evaluation.reranker",
    "histories.cut": "histories.split_time",
    "histories.train_behind_cut": "histories.train_after_split",
    "ranking.fusion_dim": "ranking.adaptor_dim",
    "training.refit": "training.rule",
}
RENAMED_VALUES = {("histories.protocol", "time_cut"): "time_split"}


def refuse_old_keys(tree: Mapping[str, Any], where: str) -> None:
    """Raise SettingsError if ``tree`` has an old key or value; the message names each with its new name.

    ``where`` is the file, or the ``--set``, that gives ``tree``.
    """
    keys = [(key, RENAMED_KEYS[key]) for key, _ in _flat(tree) if key in RENAMED_KEYS]
    searched = _searched(tree)
    keys += [(key, new) for key in searched if (new := _new_name(key)) != key]
    values = [
        (f"{key}: {value}", f"{key}: {RENAMED_VALUES[key, value]}")
        for key, value in _flat(tree)
        if isinstance(value, str) and (key, value) in RENAMED_VALUES
    ]
    if keys or values:
        raise SettingsError(f"settings of {where}: {'; '.join(f'{old} is now {new}' for old, new in keys + values)}")


def as_tree(key: str, value: Any) -> dict[str, Any]:
    """The nested mapping of a dotted ``key`` and its value: ("a.b", 1) gives {"a": {"b": 1}}."""
    for part in reversed(key.split(".")):
        value = {part: value}
    tree: dict[str, Any] = value
    return tree


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, value) of ``tree``, sections included."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        yield key, value
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}.")


def _searched(tree: Mapping[str, Any]) -> list[str]:
    """The settings that ``search.parameters`` varies; its keys are dotted names of settings."""
    search = tree.get("search")
    parameters = search.get("parameters") if isinstance(search, Mapping) else None
    return [str(key) for key in parameters] if isinstance(parameters, Mapping) else []


def _new_name(key: str) -> str:
    for old, new in RENAMED_KEYS.items():
        if key == old or key.startswith(f"{old}."):
            return new + key.removeprefix(old)
    return key
