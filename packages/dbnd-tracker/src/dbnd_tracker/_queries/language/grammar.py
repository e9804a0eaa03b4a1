"""The language of conditions on runs, which is that of MLflow's ``search_runs`` with ``or``, ``not`` and parentheses.

Beyond MLflow's, values need quotes only where they hold blanks, quotes or a parenthesis that is not closed, ``~`` is
``like`` and ``==`` is ``=``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, NoReturn

from dbnd.plugins import plain, width
from dbnd.tracking import storable
from dbnd_tracker._queries.language.expressions import (
    ATTRIBUTES,
    Attribute,
    Both,
    Comparison,
    Either,
    Expression,
    Field,
    LoggedKind,
    NoComparisonError,
    Not,
    QueryError,
    comparison,
)

MAX_LENGTH: Final = 10_000
"""Longest condition, in characters."""
MAX_COMPARISONS: Final = 100
MAX_DEPTH: Final = 20
"""How deep parentheses and ``not`` may be nested; at 30, the stack of SQLite's parser overflows."""
MAX_WORDS: Final = 30
"""How many words may be searched for; each is looked for in a dozen places."""

_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_AND, _OR, _NOT = (re.compile(rf"{word}(?![A-Za-z_0-9])", re.IGNORECASE) for word in ("and", "or", "not"))
_OPEN, _CLOSE, _COMMA = (re.compile(re.escape(character)) for character in "(),")
_OPERATOR: Final = re.compile(
    r"<=|>=|!=|==|=|<(?!>)|>|~|(is\s+(not\s+)?null|(not\s+)?(in|like|ilike))(?![A-Za-z_0-9])", re.IGNORECASE
)
# What stands before its name is bounded: it is looked at anew for each word.
_LOOKS_LIKE_CONDITION: Final = re.compile(
    r"""[\s(]{0,100}(not[\s(]+){0,20}([A-Za-z_]+\.(`[^`]*`|"[^"]*"|'[^']*'|[^\s<>=!~'"`]+)|[A-Za-z_]+)\s*"""
    r"(<(?!>)|>|=|!=|~|is\s+(not\s+)?null(?![A-Za-z_0-9])|(not\s+)?(in\s*\(|i?like[\s'\"]))",
    re.IGNORECASE,
)
_BLANK: Final = re.compile(r"\s")
_QUOTES: Final = {quote: re.compile(f"{quote}((?:[^{quote}]|{quote}{quote})*){quote}") for quote in "'\"`"}
_KINDS: Final[dict[str, LoggedKind | None]] = {
    **dict.fromkeys(("metric", "metrics"), "metrics"),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), "params"),
    **dict.fromkeys(("tag", "tags"), "tags"),
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), None),
}
_SIGNS: Final = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ALIASES: Final = {"==": "=", "~": "like"}
_EXAMPLE: Final = "write it like metrics.loss < 0.5 and params.optimizer = \"sgd\" and tags.team like 'a%'"
_SHOWN: Final = 60


def parse_expression(text: str) -> Expression | None:
    """The condition that ``text`` says; None for an empty one.

    Raises:
        QueryError: It cannot be understood; the message shows where, in three lines.
    """
    if not text.strip():
        return None
    if len(text) > MAX_LENGTH:
        raise QueryError(f"The condition has {len(text):,} characters, and {MAX_LENGTH:,} are allowed.")
    return _Parser(storable(text)).parse()


class Asked(NamedTuple):
    """What somebody asks for in one line: ``wine metrics.loss < 0.5``."""

    words: list[str]
    """What is searched for."""
    conditions: list[str]


def parse_query(text: str) -> Asked:
    """Words to search for, of which those in quotes belong together, and conditions, in any order.

    Raises:
        QueryError: What looks like a condition cannot be understood.
    """
    if len(text) > MAX_LENGTH:
        raise QueryError(f"The query has {len(text):,} characters, and {MAX_LENGTH:,} are allowed.")
    return _Parser(storable(text)).parse_query()


def joined(texts: Sequence[str]) -> str:
    """One condition that holds where all of ``texts`` do."""
    return " and ".join(f"({text})" for text in texts) if len(texts) > 1 else "".join(texts)


def condition(name: str, sign: str, value: str) -> str:
    """A condition as text, with the quotes that it needs."""
    kind, dot, field = name.partition(".")
    return f"{kind}.{_quoted(field)} {sign} {_quoted(value)}" if dot else f"run.{_quoted(name)} {sign} {_quoted(value)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def parse_filter(text: str | None, names: Mapping[str, str] | None = None) -> Expression | None:
    """The condition that a list of the original clients says; ``names`` says what some names stand for.

    Raises:
        QueryError: It is no such list, or cannot be understood.
    """
    renamed = names or {}
    found = filter_conditions(text)
    return parse_expression(joined([condition(renamed.get(n, n), _SIGNS.get(op, op), value) for n, op, value in found]))


def filter_conditions(text: str | None) -> list[tuple[str, str, str]]:
    """Names, operators and values of a list of the original clients: ``[{"name": "uid", "op": "eq", "val": "..."}]``.

    Raises:
        QueryError: It is no such list.
    """
    try:
        return [(str(c["name"]), str(c.get("op", "eq")), str(c["val"])) for c in json.loads(text or "[]")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        msg = f'filter={str(text)[:80]!r} is not of the form [{{"name": "uid", "op": "eq", "val": "..."}}].'
        raise QueryError(msg) from None


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._comparisons = 0

    def parse_query(self) -> Asked:
        found = Asked([], [])
        while (start := self._next()) < len(self._text):
            word = self._in_quotes() if self._text[start] in "'\"" else None
            if word is None and _LOOKS_LIKE_CONDITION.match(self._text, start):
                self._either(0)
                found.conditions.append(self._text[start : self._at].strip())
                self._take(_AND)
                continue
            if word is None:
                word = _BLANK.split(self._text[start:], maxsplit=1)[0]
                self._at = start + len(word)
            if word and word not in found.words:
                found.words.append(word)
            if len(found.words) > MAX_WORDS:
                raise QueryError(f"There are more than {MAX_WORDS} words to search for.")
        return found

    def parse(self) -> Expression:
        found = self._either(0)
        if self._next() < len(self._text):
            self._fail("`and`, `or` or the end is expected here")
        return found

    def _fail(self, what: str, at: int | None = None) -> NoReturn:
        at = self._at if at is None else at
        start = max(at - _SHOWN // 2, 0)
        first, rest = plain(self._text[start:at]), plain(self._text[at : start + _SHOWN])
        before = "…" if start else ""
        after = "…" if start + _SHOWN < len(self._text) else ""
        caret = " " * width(before + first) + "^"
        raise QueryError(f"The condition cannot be understood: {what}.\n  {before}{first}{rest}{after}\n  {caret}")

    def _next(self) -> int:
        """Where the next thing begins, behind blanks."""
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1
        return self._at

    def _take(self, pattern: re.Pattern[str]) -> str:
        """What stands next, if it is of the form ``pattern``, in lower case; else nothing is taken."""
        match = pattern.match(self._text, self._next())
        if match is None:
            return ""
        self._at = match.end()
        return match[0].lower()

    def _either(self, depth: int) -> Expression:
        parts = [self._both(depth)]
        while self._take(_OR):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _both(self, depth: int) -> Expression:
        parts = [self._one(depth)]
        while self._take(_AND):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _one(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            self._fail(f"it is nested more than {MAX_DEPTH} deep here")
        if self._take(_NOT):
            return Not(self._one(depth + 1))
        opened = self._next()
        if not self._take(_OPEN):
            return self._comparison()
        found = self._either(depth + 1)
        if not self._take(_CLOSE):
            if self._at < len(self._text):
                self._fail("`and`, `or` or `)` is expected here")
            self._fail("this `(` is not closed", opened)
        return found

    def _comparison(self) -> Comparison:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._fail(f"there are more than {MAX_COMPARISONS} comparisons")
        operand = self._operand()
        sign_at = self._next()
        sign = " ".join(self._take(_OPERATOR).split())
        if not sign:
            self._fail("an operator is expected here: < <= > >= = != like, ilike, in or is null")
        sign = _ALIASES.get(sign, sign)
        values = self._values(sign)
        try:
            return comparison(operand, sign, tuple(value for _, value in values))
        except NoComparisonError as error:
            self._fail(str(error), sign_at if error.place is None else values[error.place][0])

    def _operand(self) -> Field | Attribute:
        start = self._next()
        word = self._take(_WORD)
        if not word:
            self._fail(f"a name such as metrics.loss is expected here; {_EXAMPLE}")
        if self._text[self._at : self._at + 1] != ".":
            return self._attribute(word, start)
        if word not in _KINDS:
            self._fail(f"{word!r} is none of metrics, params, tags and attributes; {_EXAMPLE}", start)
        self._at += 1
        start = self._at
        name = self._in_quotes() or self._bare("<>=!\"'`~")
        if not name:
            self._fail(f"a name is expected here; {_EXAMPLE}", start)
        kind = _KINDS[word]
        return self._attribute(name, start) if kind is None else Field(kind, name)

    def _attribute(self, name: str, at: int) -> Attribute:
        attribute = ATTRIBUTES.get(name.lower())
        if attribute is None:
            names = ", ".join(dict.fromkeys(ATTRIBUTES.values()))
            what = f"runs have no {name[:80]!r}; they have {names}, and metrics.NAME, params.NAME and tags.NAME"
            self._fail(f"{what}; {_EXAMPLE}", at)
        return Attribute(attribute)

    def _values(self, sign: str) -> list[tuple[int, str]]:
        """The values that stand next, each with its place."""
        if "null" in sign:
            return []
        if not sign.endswith("in"):
            return [self._value("")]
        if not self._take(_OPEN):
            self._fail("`(` and a list of values are expected here")
        found = [self._value(",")]
        while self._take(_COMMA):
            found.append(self._value(","))
        if not self._take(_CLOSE):
            self._fail("`,` or `)` is expected here")
        return found

    def _value(self, also_ends: str) -> tuple[int, str]:
        start = self._next()
        text = self._in_quotes()
        if text is None:
            text = self._bare("\"'" + also_ends)
            if not text or text.lower() in {"and", "or"}:
                self._fail("a value is expected here", start)
        return start, text

    def _in_quotes(self) -> str | None:
        """The text in quotes that stands here, if one does; a quote in it is written twice."""
        quote = self._text[self._at : self._at + 1]
        if quote not in _QUOTES:
            return None
        match = _QUOTES[quote].match(self._text, self._at)
        if match is None:
            self._fail(f"this {quote} is not closed")
        self._at = match.end()
        return match[1].replace(quote * 2, quote)

    def _bare(self, ends: str) -> str:
        """The text up to a blank, one of ``ends`` or a parenthesis that was not opened in it."""
        start, depth = self._at, 0
        while self._at < len(self._text):
            character = self._text[self._at]
            if character.isspace() or character in ends or (character == ")" and not depth):
                break
            depth += (character == "(") - (character == ")")
            self._at += 1
        return self._text[start : self._at]
