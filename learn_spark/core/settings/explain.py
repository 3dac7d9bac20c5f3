"""Error messages of wrong settings, one line per error: the setting, the reason, and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from learn_spark.core.settings.kinds import Kinds, all_keys, fields_of, kinds_of, models_of
from learn_spark.core.settings.secrets import hidden

LONGEST = 300  # characters of a wrong value that are quoted


@dataclass(frozen=True)
class _Section:
    """The section of an error: its dotted name, class (None: not a section of settings), kinds and kind."""

    name: str
    model: type[BaseModel] | None
    kinds: Kinds | None = None
    kind: str | None = None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The errors of settings of ``model``, one per line."""
    return "\n".join(_sentence(item, *_place(item["loc"], model), model) for item in error.errors())


def _place(location: Sequence[int | str], model: type[BaseModel]) -> tuple[str, _Section]:
    """(dotted name of the setting, its section) of a location of Pydantic, which also contains kinds."""
    parts: list[str] = []
    section = inner = _Section("", model)
    rest = list(location)
    while rest:
        section = inner
        parts.append(str(rest.pop(0)))
        field = fields_of(section.model).get(parts[-1]) if section.model is not None else None
        inner = _Section(".".join(parts), None)
        if field is not None and (kinds := kinds_of(field)) is not None:
            kind = str(rest.pop(0)) if rest else None
            inner = _Section(inner.name, kinds.classes.get(kind or ""), kinds, kind)
        elif field is not None and len(models := models_of(field)) == 1:
            inner = _Section(inner.name, models[0])
    return ".".join(parts), section


def _sentence(item: Mapping[str, Any], key: str, section: _Section, model: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        return f"{key}: {_no_such_setting(key, section, model)}"
    if item["type"] == "missing":
        return f"{key}: must be given"
    if item["type"] == "value_error":
        return f"{key}: {item['ctx']['error']}" if key else str(item["ctx"]["error"])
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = kinds_of(fields_of(section.model)[key.rpartition(".")[2]]) if section.model is not None else None
        assert kinds is not None
        if item["type"] == "union_tag_not_found":
            return f"{key}.{kinds.key}: must be given, one of {', '.join(kinds.classes)}"
        return (
            f"{key}.{kinds.key}: must be one of {', '.join(kinds.classes)} (got {_got(item['input'][kinds.key], key)})"
        )
    if item["type"] in ("model_type", "model_attributes_type") and item["input"] is None:
        return f"{key}: must be given" + ("; learn-spark init FOLDER describes your files" if key == "source" else "")
    if item["type"] in ("model_type", "model_attributes_type"):
        return f"{key}: must be a section, settings as 'key: value' (got {_got(item['input'], key)})"
    reason = item["msg"][0].lower() + item["msg"][1:]
    return f"{key}: {reason} (got {_got(item['input'], key)})"


def _got(value: Any, key: str = "") -> str:
    """A wrong value for a message: on one line of at most LONGEST characters, without secrets."""
    text = repr(hidden(value, key.rpartition(".")[2]))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def either(names: Sequence[str]) -> str:
    """``names`` as alternatives: a; a or b; a, b or c."""
    return " or ".join([*filter(None, [", ".join(names[:-1])]), *names[-1:]])


def _no_such_setting(key: str, section: _Section, model: type[BaseModel]) -> str:
    name = key.rpartition(".")[2]
    if section.kinds is not None and (having := section.kinds.having(name)):
        which = f"{section.name}.{section.kinds.key}"
        return f"a setting of {which} {either(having)}, and {which} is {section.kind}"
    keys = list(all_keys(model))
    prefix = f"{section.name}." if section.name else ""
    siblings = [prefix + field for field in fields_of(section.model)] if section.model is not None else []
    near = difflib.get_close_matches(key, siblings, 1, 0.5) or difflib.get_close_matches(key, keys, 1, 0.5)
    near = near or [other for other in keys if other.rpartition(".")[2] == name][:1]
    return "there is no such setting" + (f"; did you mean {near[0]}?" if near else "")
