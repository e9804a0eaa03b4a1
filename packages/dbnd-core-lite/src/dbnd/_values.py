"""Python values as the tracker takes them: metric values, params and previews in text form."""

from __future__ import annotations

import hashlib
import json
import numbers
import reprlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from dbnd._masking import MARGIN, mask_value

# Limits of the wire protocol, in characters.
MAX_TEXT: Final = 5_000
MAX_PREVIEW: Final = 10_000
# Beyond this magnitude the original client sends an integer as JSON.
MAX_INT: Final = 10**15

_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = MAX_PREVIEW
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = _REPR.maxfrozenset = 100


def metric_value(value: object) -> tuple[str, Any]:
    """The member of a metric that holds ``value``, and ``value`` as JSON can carry it.

    Returns:
        One of "value_int", "value_float", "value_str" and "value_json", and the value.
    """
    kind = type(value)
    if kind is float:
        return "value_float", value
    if kind is int:
        return _integer(value)  # type: ignore[arg-type]
    return _other(value)


def _integer(value: int) -> tuple[str, Any]:
    return ("value_int" if abs(value) <= MAX_INT else "value_json"), value


def _other(value: Any) -> tuple[str, Any]:  # noqa: ANN401, C901, PLR0911  one return for each kind of value
    if value is None:
        return "value_str", "None"
    if isinstance(value, bool):
        return "value_int", int(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (datetime, date)):
        return "value_str", value.isoformat()
    if isinstance(value, timedelta):
        return "value_str", str(value)
    if isinstance(value, numbers.Integral):
        return _integer(int(value))
    if isinstance(value, (numbers.Real, Decimal)):
        return "value_float", float(value)
    if isinstance(value, (Mapping, list, tuple, AbstractSet)):
        return _json(value)
    # numpy and torch scalars and arrays of one element know their value; larger arrays raise here.
    item = getattr(value, "item", None)
    if item is not None:
        try:
            return metric_value(item())
        except (TypeError, ValueError, RuntimeError):
            pass
    return "value_str", shorten(str(value), MAX_TEXT)


def _text(value: str) -> tuple[str, Any]:
    if len(value) <= MAX_TEXT and value[:1] in _JSON_START:
        try:
            return "value_json", json.loads(value)
        except ValueError:
            return "value_str", value
    return "value_str", shorten(value, MAX_TEXT)


# Text that can be JSON at all; json.loads would also take the bare words NaN and Infinity.
_JSON_START: Final = frozenset('-0123456789"[{tfn')


def _json(value: object) -> tuple[str, Any]:
    text = json.dumps(value, default=_jsonable, skipkeys=True)
    if len(text) > MAX_TEXT:
        return "value_str", shorten(text, MAX_TEXT)
    return "value_json", json.loads(text)


def _jsonable(value: object) -> object:
    if isinstance(value, AbstractSet):
        return sorted(value, key=str)
    if isinstance(value, Mapping):
        return dict(value)
    _, simple = metric_value(value)
    return simple


def param_text(name: str, value: object) -> str:
    """A param as text of at most 5,000 characters, masked where its name or its text tells a secret."""
    return masked(value if isinstance(value, str) else preview(value), MAX_TEXT, name=name)


def masked(text: str, limit: int, *, name: str = "") -> str:
    """``text`` without its secrets (see ``mask_value``), cut to ``limit`` characters."""
    return shorten(mask_value(name, text, limit), limit, left_out=max(len(text) - limit - MARGIN, 0))


def preview(value: object) -> str:
    """A short text form of any value; never more work than some hundred elements."""
    if isinstance(value, str):
        return shorten(value, MAX_PREVIEW)
    try:
        text = str(value) if hasattr(value, "dtype") or hasattr(value, "dtypes") else _REPR.repr(value)
    except Exception as error:  # noqa: BLE001  a user's __repr__ may raise anything, and tracking must not fail his task
        text = f"<{type(value).__name__} whose text form raises {type(error).__name__}>"
    return shorten(text, MAX_PREVIEW)


def shorten(text: str, limit: int, *, left_out: int = 0) -> str:
    """``text``, cut to ``limit`` characters with a note of how much of it is shown.

    Args:
        text: What is to be shortened.
        limit: Longest result.
        left_out: Characters that stood behind ``text``.
    """
    length = len(text) + left_out
    if length <= limit:
        return text
    note = f"... ({limit} of {length})"
    head = limit - len(note)
    return f"{text[:head]}... ({head} of {length})"[:limit]


def describe(value: object) -> dict[str, Any]:
    """Facts about a value: type, and for tables columns, dtypes and shape."""
    facts: dict[str, Any] = {"type": type(value).__name__}
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
        facts["shape"] = list(shape)
    columns, dtypes = getattr(value, "columns", None), getattr(value, "dtypes", None)
    if columns is not None and dtypes is not None and hasattr(dtypes, "items"):
        facts["columns"] = [str(column) for column in columns]
        facts["dtypes"] = {str(column): str(dtype) for column, dtype in dtypes.items()}
    return facts


def text_hash(text: str) -> str:
    """md5 of ``text`` in hex, as the protocol names values."""
    return hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
