"""The JSON Schema of OpenLineage's run events and facets, made of the classes of OpenLineage's client.

No package has the specification's own JSON files. The client's classes are generated from them: a class has the names,
the types and the required fields of the definition that its schema URL names. Unlike the specification, the schema
made here allows no field that the definition does not have.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any

import attr
from jsonschema import Draft202012Validator, FormatChecker

# The formats of the specification, which the classes do not have.
FORMATS = {
    "eventTime": {"pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"},
    "runId": {"format": "uuid"},
    **{name: {"pattern": r"^[a-z][a-z0-9+.-]*:\S+$"} for name in ("producer", "_producer", "schemaURL", "_schemaURL")},
}
# Fields with a default in Python alone, which the client fills in.
FILLED_IN = ("_producer", "_schemaURL", "producer", "schemaURL")
TYPES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def errors_of(event: dict[str, Any]) -> list[str]:
    """What the schema of run events refuses in ``event``, each with its place; none: the event is valid."""
    from openlineage.client.event_v2 import RunEvent

    found = _refused("$", event, RunEvent)
    if found:
        return found
    if event["schemaURL"] != RunEvent._get_schema():
        found.append(f"$.schemaURL is not {RunEvent._get_schema()}")
    for place, base, facet in _facets(event):
        cls = _facet_classes().get(facet.get("_schemaURL", ""))
        if cls is None or not issubclass(cls, base):
            found.append(f"{place}._schemaURL names no {base.__name__}: {facet.get('_schemaURL')}")
        else:
            found += _refused(place, facet, cls)
    return found


def _refused(place: str, value: dict[str, Any], cls: type) -> list[str]:
    checker = Draft202012Validator(_schema(cls), format_checker=FormatChecker(["uuid"]))
    return [f"{place}{one.json_path[1:]}: {one.message}" for one in checker.iter_errors(value)]


def _facets(event: dict[str, Any]) -> Iterator[tuple[str, type, dict[str, Any]]]:
    """(place, class that a facet there must have, facet) of an event's facets."""
    from openlineage.client import facet_v2

    places: list[tuple[str, type, dict[str, Any]]] = [
        ("run.facets", facet_v2.RunFacet, event["run"].get("facets", {})),
        ("job.facets", facet_v2.JobFacet, event["job"].get("facets", {})),
    ]
    own = {
        "inputs": ("inputFacets", facet_v2.InputDatasetFacet),
        "outputs": ("outputFacets", facet_v2.OutputDatasetFacet),
    }
    for side, (name, base) in own.items():
        for number, one in enumerate(event.get(side, [])):
            places.append((f"{side}[{number}].facets", facet_v2.DatasetFacet, one.get("facets", {})))
            places.append((f"{side}[{number}].{name}", base, one.get(name, {})))
    for place, base, facets in places:
        for key, facet in facets.items():
            yield f"$.{place}.{key}", base, facet


@cache
def _facet_classes() -> dict[str, type]:
    """Schema URL -> the facet class that the client generated from it."""
    from openlineage.client import facet_v2

    modules = [one for one in vars(facet_v2).values() if isinstance(one, types.ModuleType)]
    classes = [one for module in modules for one in vars(module).values() if isinstance(one, type)]
    return {one._get_schema(): one for one in classes if issubclass(one, facet_v2.BaseFacet)}


@cache
def _schema(cls: type) -> dict[str, Any]:
    """The JSON Schema of objects of a class of the client, with those of the classes of its fields."""
    definitions: dict[str, Any] = {}
    _define(cls, definitions)
    return {"$ref": f"#/$defs/{cls.__name__}", "$defs": definitions}


def _define(cls: type, definitions: dict[str, Any]) -> None:
    if cls.__name__ in definitions:  # a class may have fields of its own class
        return
    definitions[cls.__name__] = {}
    hints, fields = typing.get_type_hints(cls), attr.fields(cls)
    definitions[cls.__name__] |= {
        "type": "object",
        "properties": {one.name: _value(hints[one.name], definitions) | FORMATS.get(one.name, {}) for one in fields},
        "required": [one.name for one in fields if one.default is attr.NOTHING or one.name in FILLED_IN],
        "additionalProperties": False,
    }


def _value(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a value with a type hint. Facets are any objects here: their schema URL names their class."""
    from openlineage.client import facet_v2

    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):  # optional fields are left out, and never null
        kinds = [_value(one, definitions) for one in arguments if one is not types.NoneType]
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if origin is list:
        return {"type": "array", "items": _value(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(arguments[1], definitions)}
    if hint in TYPES:
        return {"type": TYPES[hint]}
    if issubclass(hint, Enum):
        return {"enum": [one.value for one in hint]}
    if issubclass(hint, facet_v2.BaseFacet):
        return {"type": "object"}
    _define(hint, definitions)
    return {"$ref": f"#/$defs/{hint.__name__}"}
