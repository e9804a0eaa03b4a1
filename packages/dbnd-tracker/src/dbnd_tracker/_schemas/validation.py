"""Validation of a body by its schema: what is wrong as one sentence, and which keys no schema knows."""

from __future__ import annotations

import functools
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar, get_args

from pydantic import AliasChoices, BaseModel, ValidationError

from dbnd.plugins import first_problem
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._schemas.fields import Allowance

M = TypeVar("M", bound=BaseModel)

_LOG: Final = logging.getLogger("dbnd_tracker")
# A client that makes up keys without end must not fill the memory: past this they are only counted.
_REMEMBERED: Final = 1_000
_LONGEST_KEY: Final = 80


def validated(call: str, model: type[M], body: object) -> M:
    """What was parsed from the body of ``call``, as ``model``; PayloadError where it is not of that form."""
    try:
        found = model.model_validate(body, context=Allowance())
    except ValidationError as error:
        path, reason = first_problem(error)
        where = ".".join(map(str, path)) or "its top"
        raise PayloadError(f"The body of {call} is wrong at {where}: {reason}.") from None
    UNKNOWN_KEYS.note(call, model, body)
    return found


def unknown_keys(model: type[BaseModel], body: object) -> Iterator[str]:
    """The keys in ``body``, which ``model`` has validated, that the schema does not know, as dotted paths."""
    if isinstance(body, list):
        for member in body:
            yield from unknown_keys(model, member)
    elif isinstance(body, dict):
        known = _known(model)
        for key, value in body.items():
            if key not in known:
                yield key[:_LONGEST_KEY]
            elif (inner := known[key]) is not None:
                yield from (f"{key}.{deeper}" for deeper in unknown_keys(inner, value))


@functools.cache
def _known(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """The keys of ``model``, each with the schema of what stands there when that is one, too."""
    found: dict[str, type[BaseModel] | None] = {}
    for name, field in model.model_fields.items():
        inner = next(_models(field.annotation), None)
        alias = field.validation_alias
        found |= dict.fromkeys(map(str, alias.choices) if isinstance(alias, AliasChoices) else [name], inner)
    return found


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


class UnknownKeys:
    """How many unknown keys each call has had."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._said: set[tuple[str, str]] = set()

    def note(self, call: str, model: type[BaseModel], body: object) -> None:
        """Count the unknown keys of a body that ``model`` has validated, and log those that were not seen before."""
        count, new = 0, set[tuple[str, str]]()
        for key in unknown_keys(model, body):
            count += 1
            if len(new) <= _REMEMBERED:
                new.add((call, key))
        if not count:
            return
        with self._lock:
            self._counts[call] += count
            new -= self._said
            if len(self._said) + len(new) > _REMEMBERED:
                return
            self._said |= new
        for _, key in sorted(new):
            _LOG.warning("The body of %s has a key that is not known and not kept: %r.", call, key)

    def counts(self) -> Mapping[str, int]:
        """How many there were, by call."""
        with self._lock:
            return dict(self._counts)


UNKNOWN_KEYS: Final = UnknownKeys()
"""Those of this process."""
