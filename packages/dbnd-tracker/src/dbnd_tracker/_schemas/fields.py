"""The types of fields: uids, times, names and enums as clients send them."""

from __future__ import annotations

import functools
import json
import re
import uuid
from dataclasses import dataclass
from datetime import date, datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Strict,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import core_schema

from dbnd.tracking import RunState, TaskRunState, storable
from dbnd_tracker._storage.base import NAME_LENGTH
from dbnd_tracker._storage.encoding import readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidatorFunctionWrapHandler

    E = TypeVar("E", bound=Enum)

T = TypeVar("T")

SOURCE_LENGTH: Final = 64
"""Longest source of an update that is kept, in characters."""

# With dashes, braces and urn:uuid: in front.
_LONGEST_UID: Final = 64

# The forms that the original schemas take. Not all are ISO 8601: short numbers, 1 to 12 decimals, zone "+HH".
_TIME_FORM: Final = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})[T ](\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,12}))?)?(Z|[+-]\d{2}(?::?\d{2})?)?",
    re.ASCII,
)
_DAY_FORM: Final = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)


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
    message = "a uid of 32 hex digits is needed"
    raise ValueError(message)


class _NotNull:
    """Lets a member be missing, which its default None says, but not be null."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(_given, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler(schema)
        members = [member for member in found.pop("anyOf", []) if member != {"type": "null"}]
        return {**found, **(members[0] if len(members) == 1 else {"anyOf": members} if members else {})}


class _FirstError:
    """Lets a list be refused at its first wrong member, as pydantic's FailFast does, which no union can hold."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return {**handler(source), "fail_fast": True}


def _given(value: object) -> object:
    if value is None:
        message = "null may not stand here"
        raise ValueError(message)
    return value


def _utc(value: object, handler: ValidatorFunctionWrapHandler) -> datetime:
    if not isinstance(value, str):
        message = "a time such as 2024-01-02T03:04:05+00:00 is needed"
        raise ValueError(message)  # noqa: TRY004  pydantic reports ValueErrors
    found = _TIME_FORM.fullmatch(value)
    if not found:
        message = f"{value[:40]!r} is no time such as 2024-01-02T03:04:05+00:00"
        raise ValueError(message)
    try:
        parsed: datetime = handler(value)
    except ValidationError:
        parsed = _loose_time(found)
    if parsed.tzinfo is timezone.utc:
        return parsed
    # Clients label their local times as UTC; one without a label is one of those.
    try:
        return parsed.replace(tzinfo=timezone.utc) if parsed.tzinfo is None else parsed.astimezone(timezone.utc)
    except OverflowError:
        message = "the time lies outside the years 1 to 9999"
        raise ValueError(message) from None


def _loose_time(found: re.Match[str]) -> datetime:
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    microsecond = int((found[7] or "0")[:6].ljust(6, "0"))
    zone = (found[8] or "Z").replace("Z", "+00").replace(":", "").ljust(5, "0")
    return datetime(year, month, day, hour, minute, second, microsecond, datetime.strptime(zone, "%z").tzinfo)


def _day(value: object) -> date:
    """A day, or that of a time: the Java client sends one where the Python client sends a day."""
    if isinstance(value, str):
        if day := _DAY_FORM.fullmatch(value):
            return date(*map(int, day.groups()))
        if time := _TIME_FORM.fullmatch(value):
            return _loose_time(time).date()
    message = "a day such as 2024-01-02 is needed"
    raise ValueError(message)


def from_digits(value: object) -> object:
    """A number that is sent as text, as the Java client does."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _sized(value: int) -> int:
    if readable(value) != value:
        message = "the number has more than 4,200 digits"
        raise ValueError(message)
    return value


def _clean(value: object) -> object:
    return storable(value) if isinstance(value, str) else value


def cut(value: str) -> str:
    return value[:NAME_LENGTH]


def _by_name(enum: type[E]) -> Callable[[object], object]:
    def lookup(value: object) -> object:
        if isinstance(value, str) and value in enum.__members__:
            return enum[value]
        message = f"one of {', '.join(enum.__members__)} is needed"
        raise ValueError(message)

    return lookup


def _plain_source(value: object) -> object:
    """``UpdateSource.dbnd`` (the text of an enum member) as ``dbnd``."""
    return storable(value.removeprefix("UpdateSource."))[:SOURCE_LENGTH] if isinstance(value, str) else value


@dataclass
class Allowance:
    """How many values the texts of one body may still be parsed to: nobody has counted those at the door."""

    values: int = 200_000


def _from_json_text(value: object, info: ValidationInfo) -> object:
    """Schemas travel as objects or, from older clients and for targets, as text that holds one.

    What holds too much for the ``Allowance`` of the body stays text.
    """
    if not isinstance(value, str):
        return value
    allowance: Allowance = info.context or Allowance()
    count = sum(map(value.count, ",[{"))
    if count > allowance.values:
        return {"text": value}
    allowance.values -= count
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return {"text": value}
    return parsed if isinstance(parsed, dict) else {"text": value}


def _readable_inside(value: object) -> object:
    return value if isinstance(value, float) else readable(value)


Flag = Annotated[bool, Strict()]
Integer = Annotated[int, Strict(), AfterValidator(_sized)]


Real = Annotated[float, Strict()]
"""A number; a whole one, too, and NaN and infinities."""
Text = Annotated[str, BeforeValidator(_clean)]
Name = Annotated[str, AfterValidator(cut), BeforeValidator(_clean)]
Uid = Annotated[str, AfterValidator(canonical_uid), WithJsonSchema({"type": "string", "format": "uuid"})]
Time = Annotated[datetime, WrapValidator(_utc, json_schema_input_type=datetime)]
Day = Annotated[date, BeforeValidator(_day, json_schema_input_type=date | datetime)]
Many = Annotated[list[T], _FirstError()]
"""A list that is refused at its first wrong member: an error for each of millions would take gigabytes."""
Omittable = Annotated[T | None, _NotNull()]
"""What may be missing, but not null."""
Source = Annotated[str | None, BeforeValidator(_plain_source)]
Json = Annotated[Any, BeforeValidator(readable)]
"""Any JSON value, as it can be shown."""
Value = Annotated[Any, BeforeValidator(_readable_inside)]
"""The value of a metric: any JSON value, as it can be shown; but a number stays one, NaN and infinities, too."""
JsonObject = Annotated[dict[str, Any], BeforeValidator(readable)]
DataSchema = Annotated[JsonObject | None, BeforeValidator(_from_json_text)]
Dimensions = Many[Integer | None] | None
RunStateName = Annotated[
    RunState,
    BeforeValidator(_by_name(RunState)),
    WithJsonSchema({"type": "string", "enum": list(RunState.__members__)}),
]
TaskRunStateName = Annotated[
    TaskRunState,
    BeforeValidator(_by_name(TaskRunState)),
    WithJsonSchema({"type": "string", "enum": list(TaskRunState.__members__)}),
]
