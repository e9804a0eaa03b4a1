"""The columns of the table that rows have logged: those asked for, kept or found to tell the rows apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from dbnd.tracking import storable
from dbnd_tracker._queries.language.expressions import KINDS, Field, LoggedKind
from dbnd_tracker._queries.logged import NameCount

KEPT: Final = "databand-columns"
"""The cookie in which a browser keeps the columns that were chosen in it."""
_DEFAULT: Final = 3
"""How many params, and metrics, are shown where no columns were chosen."""
# Of so many it is looked whether any row has a value.
_CANDIDATES: Final = 12
# The address of each column's order names all columns.
_MAX_COLUMNS: Final = 60


class Group(NamedTuple):
    """Neighbouring columns of one kind."""

    kind: str
    size: int


class Columns:
    """The columns of one page.

    Args:
        asked: What the address names; None where it names none.
        kept: What the browser keeps.
        named: What conditions and order name: it is shown in any case.
        names: What the rows of the page logged.
        may_be_empty: Whether some of these names may be logged by nothing but what is nested in rows.
    """

    def __init__(
        self,
        asked: Sequence[str] | None,
        kept: str,
        named: Iterable[Field],
        names: Mapping[Field, NameCount],
        *,
        may_be_empty: bool,
    ) -> None:
        mine = _parsed(storable(unquote(kept)).split("\n")) if asked is None else []
        self.are_kept = any(field.logged in names for field in mine)
        self.are_default = asked is None and not self.are_kept
        most = _CANDIDATES if may_be_empty else _DEFAULT
        chosen = mine if self.are_kept else _telling(names, most) if asked is None else _parsed(asked)
        there = {field.logged for field in chosen}
        extra = [field for field in dict.fromkeys(named) if field.logged not in there]
        self.shown = [*extra, *chosen][:_MAX_COLUMNS]
        """Before ``settle``, of those found to tell the rows apart more than there will be."""
        self._extra = extra
        self._names = names

    def settle(self, values: Mapping[str, Mapping[Field, Any]]) -> None:
        """Show few of the columns that nobody has chosen, those first that are not empty, by the values of the rows.

        What only several runs nested in one have logged is empty until they are unfolded; it may still differ.
        """
        if self.are_default:
            there = {field for of_row in values.values() for field in of_row}
            found = self.shown[len(self._extra) :]
            found.sort(key=lambda field: (not self._names[field].differs, field not in there))
            few = [[field for field in found if field.kind == kind][:_DEFAULT] for kind in ("params", "metrics")]
            self.shown = [*self._extra, *few[0], *few[1]][:_MAX_COLUMNS]

    @property
    def groups(self) -> list[Group]:
        """Neighbouring columns of one kind, for the head that stands above theirs."""
        return [Group(kind.capitalize(), len([*group])) for kind, group in groupby(field.kind for field in self.shown)]

    @property
    def offered(self) -> dict[str, list[Field]]:
        """Further columns that can be chosen, by kind."""
        there = {field.logged for field in self.shown}
        fields = [field for field in self._names if field not in there]
        return {kind: sorted((f for f in fields if f.kind == kind), key=lambda f: f.name) for kind in KINDS}

    def named(self, kind: LoggedKind) -> list[str]:
        """The names of one kind that rows have, shown or offered."""
        fields = [*(field for field in self.shown if field.kind == kind), *self.offered[kind]]
        return [*dict.fromkeys(field.name for field in fields)]


def _parsed(texts: Iterable[str]) -> list[Field]:
    return [*dict.fromkeys(field for text in texts if (field := Field.parse(text)))][:_MAX_COLUMNS]


def _telling(names: Mapping[Field, NameCount], most: int) -> list[Field]:
    """What the columns of a table are of for which none were chosen: what differs between its rows, losses first."""
    ranked = sorted(names, key=lambda field: (not names[field].differs, not field.is_loss))
    params = [field for field in ranked if field.kind == "params"]
    metrics = [field for field in ranked if field.kind == "metrics" and not field.is_system]
    return params[:most] + metrics[:most]
