"""MLflow's datasets as operations of the tracker."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import datetime
from typing import Any, Final

from dbnd.plugins import mask_text, mask_url
from dbnd.tracking import DatasetOperation, Source

# Where sources of MLflow's own, and those that are like them, say what they are. The first one counts.
_PLACES: Final = ("uri", "url", "path", "delta_table_name", "table_name", "dataset_name", "dataset_id")
# What else they say: part of it tells one dataset from another, as the files of a loader do; these tell its versions,
# which the digest does as well, and lineage goes by what stays.
_VERSIONS: Final = frozenset({"delta_table_version", "delta_table_id", "is_databricks_uc_table"})
# A path that is a text, such as a query, is no longer than this: the rest is told by a hash.
_LONGEST: Final = 200
_BYTES: Final = ("size_in_bytes", "dataset_size", "features_nbytes", "num_elements")
# Tag of an input that says what the dataset was read for, such as training.
_CONTEXT: Final = "mlflow.data.context"
_ROWS: Final = ("num_rows", "approx_count", "features_cardinality")


def dataset_operation(given: Any, timestamp: datetime) -> DatasetOperation:
    """The reading of an MLflow dataset at a time, as an input of a run says it."""
    dataset = given.dataset
    context = next((tag.value for tag in given.tags if tag.key == _CONTEXT), None)
    schema, profile = _object(dataset.schema), _object(dataset.profile)
    # Tensors have another spec than columns.
    spec = schema.get("mlflow_colspec")
    columns = spec if isinstance(spec, list) else []
    dtypes = {str(column.get("name", number)): str(column.get("type")) for number, column in enumerate(columns)}
    shape = profile.get("features_shape")
    if not (isinstance(shape, list) and shape and all(isinstance(size, int) for size in shape)):
        rows = next((profile[name] for name in _ROWS if isinstance(profile.get(name), int)), None)
        shape = [rows, len(dtypes) or None]
    size = next((profile[name] for name in _BYTES if profile.get(name) is not None), None)
    return DatasetOperation(
        path=path_of(dataset),
        operation="read",
        source=Source.METRIC,
        schema={
            "type": dataset.source_type,
            "columns": list(dtypes),
            "dtypes": dtypes,
            "shape": shape,
            # As the original: of a table in memory it says how many cells there are.
            "size.bytes": _total(size),
        },
        rows=shape[0],
        columns=shape[1] if len(shape) == 2 else None,
        preview=None,
        timestamp=timestamp,
        name=dataset.name,
        digest=dataset.digest,
        context=mask_text(context) if context else None,
    )


def path_of(dataset: Any) -> str:
    """What tells a dataset from any other of its kind, as far as its source says it.

    A file or a table is named as its source names it, and what selects a part of it follows like the query of a URL. A
    dataset that was made in memory has nothing but its name and the digest of its content.
    """
    source = _json(dataset.source)
    if isinstance(source, dict):
        known = {name: value for name, value in source.items() if value not in (None, "", "None", [], {})}
        place = next((name for name in _PLACES if isinstance(known.get(name), str)), None)
        if place is not None:
            rest = {name: known[name] for name in sorted(known) if name != place and name not in _VERSIONS}
            query = "&".join(f"{name}={_text(value)}" for name, value in rest.items())
            joint = "&" if "?" in known[place] else "?"
            return mask_url(f"{known[place]}{joint}{_short(mask_text(query))}" if query else known[place])
        if isinstance(known.get("sql"), str):
            return _short(mask_text(" ".join(known["sql"].split())))
        # The code that has made it: its tags tell which.
        source = None if dataset.source_type == "code" else known
    return _short(mask_text(_text(source))) if source else f"{dataset.name}#{dataset.digest}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))


def _short(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}…#{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:12]}"


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:  # a source in text form
        return text


def _object(text: str | None) -> dict[str, Any]:
    value = _json(text)
    return value if isinstance(value, dict) else {}


def _total(size: object) -> int | None:
    """A size in all: of several tensors MLflow tells one each."""
    sizes = list(size.values()) if isinstance(size, dict) else [size]
    numbers = [each for each in sizes if isinstance(each, (int, float)) and math.isfinite(each)]
    return int(sum(numbers)) if numbers and len(numbers) == len(sizes) else None
