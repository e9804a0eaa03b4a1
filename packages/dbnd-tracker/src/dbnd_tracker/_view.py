"""What the models of all that is read are made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer


def iso(time: datetime) -> str:
    """``time`` in UTC, in ISO 8601 with microseconds and offset."""
    utc = time if time.tzinfo is timezone.utc else time.astimezone(timezone.utc)
    return utc.isoformat(timespec="microseconds")


Time = Annotated[datetime, PlainSerializer(iso, when_used="json-unless-none")]
Number = int | float | str


class View(BaseModel):
    """Base of what is read."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


@dataclass(slots=True)
class MetricPoint:
    """One point of a metric; no ``View``, which would take three times as long to make."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    step: int | None
    timestamp: int
    """Milliseconds since the epoch."""
    value: Any
    type: str
    """float, int, str or json."""


V = TypeVar("V", bound=View)


def view_of(view: type[V], row: object, **others: Any) -> V:
    """The view of a row: what the row has under the names of its fields, and ``others``."""
    return view(**{name: getattr(row, name) for name in view.model_fields if name not in others}, **others)
