"""Python values as the tracker takes them: metric values, params and previews in text form."""

from __future__ import annotations

import json
import math
import numbers
import reprlib
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Final, TypeVar

from pydantic_core import to_json

from dbnd._base.masking import MARGIN, mask_value
from dbnd._terminal import console

T = TypeVar("T")

# Limits of the wire protocol, in characters.
MAX_TEXT: Final = 5_000
MAX_PREVIEW: Final = 10_000
# Beyond this magnitude the original client sends an integer as JSON.
MAX_INT: Final = 10**15

# What any Python, and any tracker, reads back: integers of so many bits (640 digits, the least that Python's limit on
# digits can be set to), and containers in each other so deep.
_MAX_BITS: Final = 2125
MAX_DEPTH: Final = 64
# Elements that are looked at in a container, and in its short text form.
_MAX_ELEMENTS: Final = 100_000
_MAX_SHOWN: Final = 1_000
_INT64: Final = 1 << 63
# Text that can be JSON at all; json.loads would also take the bare words NaN and Infinity. It takes long to refuse one.
_JSON_START: Final = frozenset('-0123456789"[{')
_JSON_WORDS: Final = frozenset({"true", "false", "null"})


class UnfitError(ValueError):
    """A value cannot be kept as it is; the text says why, as the end of a sentence."""


def storable(text: str) -> str:
    """``text`` as a database can keep it: halves of surrogate pairs become question marks, and NUL becomes U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def metric_value(value: object) -> tuple[str, Any]:
    """The member of a metric that holds ``value``, and ``value`` as JSON can carry it.

    The member is one of "value_int", "value_float", "value_str" and "value_json".
    """
    kind = type(value)
    if kind is float:
        return "value_float", value
    if kind is int:
        return _integer(value)  # type: ignore[arg-type]
    if kind is str:
        return _text(value)  # type: ignore[arg-type]
    return of_user(_other, value, otherwise=lambda: _short_text(preview(value)))


def of_user(call: Callable[[Any], T], value: object, *, otherwise: Callable[[], T]) -> T:
    """What ``call`` makes of an object of the user's, whose methods may raise anything."""
    try:
        return call(value)
    except Exception:  # noqa: BLE001  tracking must neither fail the training nor lose what is logged along with it
        return otherwise()


def _short_text(text: str) -> tuple[str, str]:
    return "value_str", shorten(text, MAX_TEXT)


def _integer(value: int) -> tuple[str, Any]:
    if -MAX_INT <= value <= MAX_INT:
        return "value_int", value
    return _json(value)


def _text(value: str) -> tuple[str, Any]:
    if len(value) <= MAX_TEXT and (value[:1] in _JSON_START or value.rstrip(" \t\n\r") in _JSON_WORDS):
        try:
            return "value_json", plain(json.loads(value))
        except (ValueError, RecursionError):
            pass
    return _short_text(value if type(value) is str else str.__str__(value))


def _other(value: Any) -> tuple[str, Any]:  # noqa: C901, PLR0911  one return for each kind of value
    if isinstance(value, bool):
        return "value_int", int(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, date):
        return "value_str", value.isoformat()
    # As numbers, dates and durations of NumPy (kinds M and m) would have lost the unit.
    if isinstance(value, timedelta) or getattr(getattr(value, "dtype", None), "kind", None) in {"m", "M"}:
        return _short_text(str(value))
    if isinstance(value, numbers.Integral):
        return _integer(int(value))
    if isinstance(value, (numbers.Real, Decimal)):
        return "value_float", float(value)
    if isinstance(value, (Mapping, list, tuple, AbstractSet)):
        return _json(value)
    # numpy and torch scalars and arrays of one element know their value; larger arrays raise here.
    if (item := getattr(value, "item", None)) is not None:
        try:
            simple = item()
        except (TypeError, ValueError, RuntimeError):
            pass
        else:
            if not hasattr(simple, "item"):
                return metric_value(simple)
    return _short_text(preview(value) if isinstance(value, (bytes, bytearray, array, deque)) else str(value))


def _json(value: object) -> tuple[str, Any]:
    try:
        simple = plain(value, most=_MAX_ELEMENTS)
    except UnfitError as why:
        console.warn_once(f"A logged value is kept in a short text form, because {why}. This is said once.")
        return _short_text(preview(value))
    # The text that counts has spaces and escapes, at most 3 characters for each byte of this, and takes long to make.
    if len(to_json(simple, inf_nan_mode="constants")) * 3 <= MAX_TEXT:
        return "value_json", simple
    text = json.dumps(simple)
    return ("value_json", simple) if len(text) <= MAX_TEXT else _short_text(text)


def plain(value: object, *, most: float = math.inf, depth: int = MAX_DEPTH) -> Any:
    """``value`` made of the types that JSON has, of texts that can be stored, and of numbers that can be read back.

    What JSON has no type for gets its text form. It raises UnfitError where there are more than ``most`` elements, all
    levels together, where containers stand in each other deeper than ``depth``, and for huge integers.
    """
    left = most

    def simple(part: Any, depth: int) -> Any:
        nonlocal left
        kind = type(part)
        if kind is str:
            return storable(part)
        if kind is float or kind is bool or part is None:
            return part
        if kind is int:
            if part.bit_length() > _MAX_BITS:
                raise UnfitError("it is an integer of more than 640 digits")
            return part
        is_mapping = isinstance(part, Mapping)
        if not is_mapping and not isinstance(part, (list, tuple, AbstractSet)):
            _, found = metric_value(part)
            return storable(found) if isinstance(found, str) else found
        left -= len(part)
        if left < 0:
            raise UnfitError(f"it has more than {most} elements")
        if not depth:
            raise UnfitError("it is nested too deep, or contains itself")
        if is_mapping:
            return {_name(key): simple(member, depth - 1) for key, member in islice(part.items(), len(part))}
        members = _ordered(part) if isinstance(part, AbstractSet) else part
        # Never more than it says to have: an iterator of the user's need not end.
        return [simple(member, depth - 1) for member in islice(members, len(part))]

    return simple(value, depth)


def _ordered(members: AbstractSet[object]) -> list[object]:
    try:
        return sorted(islice(members, len(members)), key=str)
    except ValueError:  # an integer of more digits than Python writes out
        return sorted(members, key=preview)


def _name(key: object) -> str:
    """A key of a mapping as JSON can have it; those that are no text are written as ``json`` does."""
    if isinstance(key, str):
        return storable(str.__str__(key))
    return json.dumps(key) if key is None or isinstance(key, (bool, float)) else storable(preview(key))


def whole_step(step: Any) -> int | None:
    """A training step of any type of number, as one that the tracker takes: of 64 bits at most.

    What is no number is left out, for the value is worth more than its step.
    """
    if step is None:
        return None
    whole = of_user(int, step, otherwise=lambda: None)
    if whole is None:
        console.warn_once("A training step that is no number is left out; its value is kept. This is said once.")
        return None
    if -_INT64 <= whole < _INT64:
        return whole
    console.warn_once("A training step of more than 64 bits is kept as the nearest that has 64. This is said once.")
    return _within_64_bits(whole)


def _within_64_bits(number: int) -> int:
    return min(max(number, -_INT64), _INT64 - 1)


def param_text(name: str, value: object) -> str:
    """A param as text of at most 5,000 characters, masked where its name or its text tells a secret."""
    return masked(value, MAX_TEXT, name=name)


def masked(value: object, limit: int, *, name: str = "") -> str:
    """The text of a value without its secrets (see ``mask_value``), cut to ``limit`` characters."""
    text = _text_of(value)
    return shorten(mask_value(name, text, limit), limit, left_out=max(len(text) - limit - MARGIN, 0))


def preview(value: object) -> str:
    """A short text form of any value; never more work than some thousand elements."""
    return shorten(_text_of(value), MAX_PREVIEW)


def _text_of(value: object) -> str:
    """The whole of a text of any class, and a short text form of anything else."""
    if type(value) is str:
        return value
    try:
        if isinstance(value, str):
            return str.__str__(value)
        return str(value) if hasattr(value, "dtype") or hasattr(value, "dtypes") else _ShortForm().repr(value)
    except Exception as error:  # noqa: BLE001  a user's __repr__ may raise anything, and tracking must not fail his task
        return f"<{type(value).__name__} whose text form raises {type(error).__name__}>"


class _ShortForm(reprlib.Repr):
    """``repr`` that stops after so many elements, however they stand in each other."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = MAX_PREVIEW
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 100
        self._left = _MAX_SHOWN

    def repr1(self, x: Any, level: int) -> str:
        self._left -= 1
        return "..." if self._left < 0 else super().repr1(x, level)

    def repr_int(self, x: int, level: int) -> str:
        """An integer; Python does not write out a very long one, for that takes quadratic time."""
        if x.bit_length() <= _MAX_BITS:
            return super().repr_int(x, level)
        excess = x.bit_length() - 64
        digits = round(math.log10(abs(x) >> excess) + excess * math.log10(2), 9)
        return f"{'-' if x < 0 else ''}{10 ** (digits % 1):.6f}e+{int(digits)}"

    def repr_bytes(self, x: bytes | bytearray, _: int) -> str:
        """The start of bytes, without a text form of all of them."""
        return repr(x[:MAX_PREVIEW])

    repr_bytearray = repr_bytes


def shorten(text: str, limit: int, *, left_out: int = 0) -> str:
    """``text``, cut to ``limit`` characters with a note of how much is shown; ``left_out`` more stood behind it."""
    length = len(text) + left_out
    if length <= limit:
        return text
    head = limit - len(f"... ({limit} of {length})")
    return f"{text[:head]}... ({head} of {length})"[:limit]


def describe(value: object) -> dict[str, Any]:
    """What there is to say about a value: type, and for tables columns, dtypes and shape."""
    found: dict[str, Any] = {"type": type(value).__name__}
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
        found["shape"] = [_within_64_bits(n) for n in shape]
    columns, dtypes = getattr(value, "columns", None), getattr(value, "dtypes", None)
    if columns is not None and dtypes is not None and hasattr(dtypes, "items"):
        named = list(islice(dtypes.items(), _MAX_SHOWN))
        found["columns"] = [storable(str(column)) for column, _ in named]
        found["dtypes"] = {storable(str(column)): storable(str(dtype)) for column, dtype in named}
    return found
