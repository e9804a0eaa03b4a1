"""What is known of tables and datasets, as pages show it: shape, columns, name and digest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def shape_text(dimensions: Sequence[int | None] | None) -> str:
    """Sizes such as 300 and 2, with a sign of multiplication between; one that is not known is a question mark."""
    return " \u00d7 ".join("?" if size is None else f"{size:,}" for size in dimensions or ())


def schema_fact(schema: Any, name: str) -> str:
    """What a schema says under ``name``, such as the ``digest`` of a dataset."""
    value = _object(schema).get(name)
    return value if isinstance(value, str) else ""


def columns_of(schema: Any) -> list[tuple[str, str]]:
    """Names and types of the columns that a schema tells; a type that it does not tell is empty."""
    schema = _object(schema)
    dtypes = schema.get("dtypes")
    types = dtypes if isinstance(dtypes, dict) else {}
    columns = schema.get("columns")
    names = columns if isinstance(columns, list) else list(types)
    return [(str(name), str(types.get(str(name), ""))) for name in names]


def _object(schema: Any) -> dict[str, Any]:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError:  # anything may be sent
            return {}
    return schema if isinstance(schema, dict) else {}
