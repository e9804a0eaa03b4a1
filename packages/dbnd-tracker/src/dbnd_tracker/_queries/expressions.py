"""Conditions on what runs logged: ``metrics.loss < 0.5 and params.optimizer = "sgd"``.

The syntax is that of MLflow's search, which users know.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from dbnd_tracker._errors import TrackerError

Kind = Literal["metrics", "params", "tags"]
KINDS: Final[tuple[Kind, ...]] = ("metrics", "params", "tags")

_ORDERINGS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARISON: Final = re.compile(
    r"""\s*(?P<kind>metrics?|params?|tags?)\.
        (?:`(?P<tick>[^`]+)`|"(?P<quoted>[^"]+)"|(?P<bare>[^\s<>=!"'`]+))
        \s*(?P<operator><=|>=|!=|=|<|>|(?:like|ilike)\b)\s*
        (?:'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<plain>[^\s"']+))\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_AND: Final = re.compile(r"and\b", re.IGNORECASE)


class ExpressionError(TrackerError):
    """A condition that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Field:
    """Something that runs log, by name: a metric, a param or a tag."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> Field | None:
        """The field that ``text`` names, as ``metrics.loss``, or None when it names none."""
        kind, dot, name = text.partition(".")
        return cls(kind, name) if dot and name and kind in KINDS else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition on a field.

    Args:
        field: What is compared.
        operator: One of < <= > >= = != like ilike.
        value: With what, as it was written.
    """

    field: Field
    operator: str
    value: str

    def holds(self, found: object) -> bool:
        """Whether it holds for a value of a run; for a run that has none it never does."""
        if found is None:
            return False
        if self.operator in _ORDERINGS:
            left, right = as_number(found), self.number
            return left is not None and right is not None and _ORDERINGS[self.operator](left, right)
        if self.operator in {"like", "ilike"}:
            flags = re.DOTALL | (re.IGNORECASE if self.operator == "ilike" else 0)
            pattern = ".*".join(re.escape(part) for part in self.value.split("%"))
            return re.fullmatch(pattern, str(found), flags) is not None
        return self._equals(found) == (self.operator == "=")

    def _equals(self, found: object) -> bool:
        if str(found) == self.value:
            return True
        left = as_number(found)
        return left is not None and left == self.number

    @property
    def number(self) -> float | None:
        """The value as a number, if it is one."""
        return _text_as_number(self.value)


def as_number(value: object) -> float | None:
    """``value`` as a number that has an order, or None: 0.1 is one, and so is the text "1e-3"; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


# One comparison is made with the values of all runs.
_text_as_number: Final = functools.lru_cache(maxsize=256)(as_number)


def parse_expression(text: str) -> list[Comparison]:
    """The conditions that ``text`` joins by ``and``; none for an empty text.

    Raises:
        ExpressionError: It cannot be understood.
    """
    found = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _COMPARISON.match(text, position)
        following = _AND.match(text, match.end()) if match else None
        if match is None or (following is None and match.end() < len(text)):
            msg = (
                f"The condition {text[:200]!r} cannot be understood at {text[position : position + 40]!r}: write it "
                "like metrics.loss < 0.5 and params.optimizer = \"sgd\" and tags.team like 'a%'."
            )
            raise ExpressionError(msg)
        groups = match.groupdict()
        kind = cast("Kind", f"{groups['kind'].lower().rstrip('s')}s")
        name = groups["tick"] or groups["quoted"] or groups["bare"]
        value = next(groups[group] for group in ("single", "double", "plain") if groups[group] is not None)
        found.append(Comparison(Field(kind, name), groups["operator"].lower(), value))
        position = following.end() if following else match.end()
    return found
