"""The page about the HTTP interface, made from its OpenAPI document.

FastAPI's own page loads its scripts from another host; no request of ours leaves the machine.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, or a key of a body.

    Args:
        name: Its name.
        place: Where it stands: "path", "query", "header" or "body".
        kind: Its type, as JSON Schema names it; "uuid", "date-time" and the like where there is such a format.
        is_required: Whether it may not be missing.
        description: What it is for.
    """

    name: str
    place: str
    kind: str
    is_required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path."""

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
            tag = (entry.get("tags") or ["other"])[0]
            found = Operation(
                method.upper(),
                path,
                entry.get("summary", ""),
                inspect.cleandoc(entry.get("description", "")),
                (*_parameters(entry), *_body(entry, document)),
            )
            groups.setdefault(tag, []).append(found)
    return groups


def _parameters(entry: Mapping[str, Any]) -> Iterator[Field]:
    for parameter in entry.get("parameters", []):
        description = parameter.get("description", "")
        is_required = parameter.get("required", False)
        yield Field(parameter["name"], parameter["in"], _kind(parameter.get("schema", {})), is_required, description)


def _body(entry: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Field]:
    schema: Any = entry.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    for part in schema.get("$ref", "").split("/")[1:]:
        document = document[part]
    schema = document if "$ref" in schema else schema
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
