"""The filters of ``dbnd runs list``: options as conditions of the read API."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from dbnd import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbnd_tracker._queries import Condition


def where_text(texts: Sequence[str]) -> str:
    """The conditions of all ``--where`` as one.

    Raises:
        UsageError: One of them cannot be understood.
    """
    from dbnd.plugins import together
    from dbnd_tracker._queries.expressions import ExpressionError
    from dbnd_tracker._queries.grammar import joined, parse_expression

    for text in texts:
        try:
            found = parse_expression(text)
        except ExpressionError as error:
            raise UsageError(together(f"--where: {error}".split("\n"), "\n")) from None
        if found is None:
            msg = "--where is empty; it needs a condition such as 'metrics.loss < 0.5'."
            raise UsageError(msg)
    return joined(list(texts))


def checked(option: str, name: str, op: str, value: str) -> Condition:
    """The condition that an option says.

    Raises:
        UsageError: The value is none that can be compared, such as a state that does not exist.
    """
    from dbnd_tracker._queries import Condition, QueryError

    found = Condition(name, op, value)
    try:
        found.comparison()
    except QueryError as error:
        msg = f"{option} {value[:80]!r}: {error}"
        raise UsageError(msg) from None
    return found


def time_condition(option: str, op: str, text: str) -> Condition:
    """The condition on the start of a run that an option says.

    Args:
        option: The option, for the message.
        op: Operator of the condition.
        text: An age such as 90m, 12h, 7d or 2w, or a date or time in ISO 8601; local time unless it says otherwise.

    Raises:
        UsageError: ``text`` is neither.
    """
    from dbnd.plugins import parse_duration
    from dbnd_tracker._queries import Condition

    age = parse_duration(text)
    try:
        if age is not None:
            time = datetime.now(timezone.utc) - age
        else:
            time = datetime.fromisoformat(text.strip())
            time = time if time.tzinfo else time.astimezone()
        time = time.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        msg = f"{option} {text!r} is neither an age, such as 12h or 7d, nor a time, such as 2026-03-04T05:06."
        raise UsageError(msg) from None
    return Condition("start_time", op, time.isoformat())
