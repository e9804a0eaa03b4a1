"""The types of fields: uids, times, names and enums as clients send them."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import core_schema

from dbnd.tracking import RunState, TaskRunState, storable
from dbnd_tracker._storage.base import NAME_LENGTH
from dbnd_tracker._storage.encoding import readable

T = TypeVar("T")

_SOURCE_LENGTH: Final = 64
# With dashes, braces and urn:uuid: in front.
_LONGEST_UID: Final = 64

# The forms that the original schemas take. Not all are ISO 8601: short numbers, 1 to 12 decimals, zone "+HH".
_DAY: Final = r"(\d{4})-(\d{1,2})-(\d{1,2})"
_CLOCK: Final = r"(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,12}))?)?(?:Z|([+-]\d{2})(?::?(\d{2}))?)?"
_DAY_FORM: Final = re.compile(_DAY, re.ASCII)
_TIME_FORM: Final = re.compile(f"{_DAY}[T ]{_CLOCK}", re.ASCII)


class Body(BaseModel):
    """Base of everything that clients send: unknown keys are ignored, a null only stands where it is declared."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


@functools.lru_cache(maxsize=8192)
def canonical_uid(text: str) -> str:
    """``text``, any 128 bits in hex, in lower case with dashes; versions of uuids are not looked at.

    Raises:
        ValueError: ``text`` is no uid.
    """
    try:
        if len(text) <= _LONGEST_UID:
            return str(uuid.UUID(text))
    except ValueError:
        pass
    raise ValueError("a uid of 32 hex digits is needed")


def _utc(value: object) -> datetime:
    """A time in UTC. Clients label their local times as UTC; one without a label is one of those."""
    found = _TIME_FORM.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f"{str(value)[:40]!r} is no time such as 2024-01-02T03:04:05+00:00")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    microsecond = int((found[7] or "")[:6].ljust(6, "0"))
    hours, minutes = found[8] or "+00", found[9] or "00"
    zone = timezone(timedelta(hours=int(hours), minutes=int(hours[0] + minutes)))
    try:
        return datetime(year, month, day, hour, minute, second, microsecond, zone).astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("the time lies outside the years 1 to 9999") from None


def _day(value: object) -> date:
    """A day, or that of a time: the Java client sends one where the Python client sends a day."""
    found = isinstance(value, str) and (_DAY_FORM.fullmatch(value) or _TIME_FORM.fullmatch(value))
    if not found:
        raise ValueError("a day such as 2024-01-02 is needed")
    return date(*map(int, found.groups()[:3]))


def from_digits(value: object) -> object:
    """A number that is sent as text, as the Java client does."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _sized(value: int) -> int:
    if readable(value) != value:
        raise ValueError("the number has more than 4,200 digits")
    return value


def _clean(value: object) -> object:
    return storable(value) if isinstance(value, str) else value


def cut(value: str) -> str:
    """A name as long as the database indexes."""
    return value[:NAME_LENGTH]


def stored_source(value: object) -> Any:
    """A source as it is kept; ``UpdateSource.dbnd`` (the text of an enum member) as ``dbnd``."""
    return storable(value.removeprefix("UpdateSource."))[:_SOURCE_LENGTH] if isinstance(value, str) else value


class Allowance:
    """How many values the texts of one body may still be parsed to: nobody has counted those at the door."""

    values = 200_000


def _from_json_text(value: object, info: ValidationInfo) -> object:
    """Schemas travel as objects or, from older clients and for targets, as text that holds one.

    What holds too much for the ``Allowance`` of the body stays text.
    """
    if not isinstance(value, str):
        return value
    allowance: Allowance = info.context or Allowance()
    count = sum(map(value.count, ",[{"))
    parsed = None
    if count <= allowance.values:
        allowance.values -= count
        with contextlib.suppress(ValueError, RecursionError):
            parsed = json.loads(value)
    return parsed if isinstance(parsed, dict) else {"text": value}


def _readable_inside(value: object) -> object:
    return value if isinstance(value, float) else readable(value)


class _FirstError:
    """Lets a list be refused at its first wrong member, as pydantic's FailFast does, which no union can hold."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return {**handler(source), "fail_fast": True}


def _by_name(enum: type[Enum]) -> Callable[[object], object]:
    def value_of(name: object) -> object:
        if isinstance(name, str) and name in enum.__members__:
            return enum[name].value
        raise ValueError(f"one of {', '.join(enum.__members__)} is needed")

    return value_of


def _names(enum: type[Enum]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(enum.__members__)})


Flag = Annotated[bool, Strict()]
Integer = Annotated[int, Strict(), AfterValidator(_sized)]
Real = Annotated[float, Strict()]
"""A number; a whole one, too, and NaN and infinities."""
Text = Annotated[str, BeforeValidator(_clean)]
Name = Annotated[str, AfterValidator(cut), BeforeValidator(_clean)]
Uid = Annotated[str, AfterValidator(canonical_uid), WithJsonSchema({"type": "string", "format": "uuid"})]
Time = Annotated[datetime, BeforeValidator(_utc, json_schema_input_type=datetime)]
Day = Annotated[date, BeforeValidator(_day, json_schema_input_type=date | datetime)]
Many = Annotated[list[T], _FirstError()]
"""A list that is refused at its first wrong member: an error for each of millions would take gigabytes."""
Source = Annotated[str | None, BeforeValidator(stored_source)]
Json = Annotated[Any, BeforeValidator(readable)]
"""Any JSON value, as it can be shown."""
Value = Annotated[Any, BeforeValidator(_readable_inside)]
"""The value of a metric: any JSON value, as it can be shown; but a number stays one, NaN and infinities, too."""
JsonObject = Annotated[dict[str, Any], BeforeValidator(readable)]
DataSchema = Annotated[JsonObject | None, BeforeValidator(_from_json_text)]
Dimensions = Many[Integer | None] | None
RunStateName = Annotated[str, BeforeValidator(_by_name(RunState)), _names(RunState)]
"""The value of a state, which clients send by its name."""
TaskRunStateName = Annotated[str, BeforeValidator(_by_name(TaskRunState)), _names(TaskRunState)]
if TYPE_CHECKING:
    Omittable = Annotated[T | None, ...]
else:
    Omittable = Annotated[T, Field(default=None)]  # pydantic does not validate a default
"""What may be missing, but not null."""


class Timed(Body):
    """Base of what has a time; the Java client writes ``time_stamp``."""

    timestamp: Time | None = Field(default=None, validation_alias=AliasChoices("timestamp", "time_stamp"))
