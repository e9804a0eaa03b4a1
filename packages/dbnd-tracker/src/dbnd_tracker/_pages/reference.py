"""The page about the HTTP interface, made from its OpenAPI document.

FastAPI's own page loads its scripts from another host; no request of ours leaves the machine.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Field(NamedTuple):
    """A parameter, or a key of a body."""

    name: str
    place: str
    """Where it stands: "path", "query", "header" or "body"."""
    kind: str
    """Its type, as JSON Schema names it; "uuid", "date-time" and the like where there is such a format."""
    is_required: bool
    description: str


class Operation(NamedTuple):
    method: str
    path: str
    summary: str
    description: str
    fields: tuple[Field, ...]


def operations(document: Mapping[str, Any]) -> dict[str, list[Operation]]:
    """The operations of an OpenAPI document by tag, in the document's order."""
    groups: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method, entry in methods.items():
            description = inspect.cleandoc(entry.get("description", ""))
            fields = tuple(_fields(entry, document))
            found = Operation(method.upper(), path, entry.get("summary", ""), description, fields)
            groups.setdefault(entry.get("tags", ["other"])[0], []).append(found)
    return groups


def _fields(entry: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Field]:
    for parameter in entry.get("parameters", []):
        description = parameter.get("description", "")
        is_required = parameter.get("required", False)
        yield Field(parameter["name"], parameter["in"], _kind(parameter.get("schema", {})), is_required, description)
    schema: Any = entry.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][_kind(schema)]
    for name, value in schema.get("properties", {}).items():
        is_required = name in schema.get("required", [])
        yield Field(name, "body", _kind(value), is_required, value.get("description", ""))


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kinds = [_kind(choice) for choice in schema.get("anyOf", schema.get("oneOf", []))]
    if kinds:
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if schema.get("type") == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    kind = schema.get("format") or schema.get("type", "any")
    return kind if isinstance(kind, str) else " or ".join(kind)
