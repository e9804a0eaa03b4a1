"""The filters of ``dbnd runs list``: options and expressions as conditions of the read API."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from dbnd._errors import UsageError

if TYPE_CHECKING:
    from dbnd_tracker._queries import Condition

_EXPRESSION: Final = re.compile(
    r"""\s*(metrics?|params?|tags?)\.(?:`([^`]+)`|([^\s<>=!~]+))\s*(<=|>=|!=|==?|<|>|~)\s*(?:"(.*)"|'(.*)'|(.*?))\s*"""
)
_OPERATORS: Final = {
    "=": "eq",
    "==": "eq",
    "!=": "ne",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
    "~": "like",
}
_AGE: Final = re.compile(r"(\d+)\s*([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def logged_condition(text: str) -> Condition:
    """The condition that an expression such as ``metrics.loss < 0.5`` or ``params.optimizer = sgd`` says.

    Raises:
        UsageError: It cannot be understood.
    """
    from dbnd_tracker._queries import Condition

    match = _EXPRESSION.fullmatch(text)
    if match is None:
        msg = (
            f"--where {text!r} is not of the form metrics.NAME < NUMBER, params.NAME = VALUE or tags.NAME ~ PATTERN "
            "(operators: = != < <= > >= and ~ with % for any text)."
        )
        raise UsageError(msg)
    kind, quoted, bare, sign, *values = match.groups()
    value = next((value for value in values if value is not None), "")
    return Condition(f"{kind.rstrip('s')}s.{quoted or bare}", _OPERATORS[sign], value)


def time_condition(option: str, op: str, text: str) -> Condition:
    """The condition on the start of a run that an option says.

    Args:
        option: The option, for the message.
        op: Operator of the condition.
        text: An age such as 90m, 12h, 7d or 2w, or a date or time in ISO 8601; local time unless it says otherwise.

    Raises:
        UsageError: ``text`` is neither.
    """
    from dbnd_tracker._queries import Condition

    age = _AGE.fullmatch(text.strip())
    try:
        if age:
            time = datetime.now(timezone.utc) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        else:
            time = datetime.fromisoformat(text.strip())
            time = time if time.tzinfo else time.astimezone()
    except (ValueError, OverflowError):
        msg = f"{option} {text!r} is neither an age, such as 12h or 7d, nor a time, such as 2026-03-04T05:06."
        raise UsageError(msg) from None
    return Condition("start_time", op, time.astimezone(timezone.utc).isoformat())
