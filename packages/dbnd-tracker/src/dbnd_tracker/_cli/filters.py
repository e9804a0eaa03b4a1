"""The filters of ``dbnd runs list``: options as conditions."""

from __future__ import annotations

from datetime import datetime, timezone

from dbnd import UsageError


def checked(option: str, text: str) -> str:
    """``text``, the condition that an option says.

    Raises:
        UsageError: It cannot be understood, or compares with what does not exist, such as a state.
    """
    from dbnd.plugins import together
    from dbnd_tracker._queries.expressions import ExpressionError
    from dbnd_tracker._queries.grammar import parse_expression

    try:
        found = parse_expression(text)
    except ExpressionError as error:
        raise UsageError(together(f"{option}: {error}".split("\n"), "\n")) from None
    if found is None:
        msg = f"{option} is empty; it needs a condition such as 'metrics.loss < 0.5'."
        raise UsageError(msg)
    return text


def time_condition(option: str, sign: str, text: str) -> str:
    """The condition on the start of a run that an option says.

    Args:
        option: The option, for the message.
        sign: Operator of the condition.
        text: An age such as 90m, 12h, 7d or 2w, or a date or time in ISO 8601; local time unless it says otherwise.

    Raises:
        UsageError: ``text`` is neither.
    """
    from dbnd.plugins import parse_duration
    from dbnd_tracker._queries.grammar import condition

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
    return condition("start_time", sign, time.isoformat())
