"""Validation of a body by its schema, with the first problem as one sentence."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from dbnd.plugins import first_problem
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._schemas.fields import Allowance
from dbnd_tracker._schemas.unknown import UNKNOWN_KEYS

M = TypeVar("M", bound=BaseModel)


def validated(call: str, model: type[M], body: object, *place: str | int) -> M:
    """``body`` as ``model``.

    Args:
        call: Name of the call, for the message.
        model: The schema.
        body: What was parsed from JSON.
        place: Where ``body`` stands in the body of the call.

    Raises:
        PayloadError: It is not of that form.
    """
    try:
        found = model.model_validate(body, context=Allowance())
    except ValidationError as error:
        inner, reason = first_problem(error)
        where = ".".join(map(str, (*place, *inner))) or "its top"
        msg = f"The body of {call} is wrong at {where}: {reason}."
        raise PayloadError(msg) from None
    UNKNOWN_KEYS.note(call, model, body)
    return found
