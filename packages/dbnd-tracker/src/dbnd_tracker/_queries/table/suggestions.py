"""Values that runs have, for a condition or a filter to offer."""

from __future__ import annotations

import functools
from typing import Any, Final

from sqlalchemy import func, literal, or_, select, union_all
from sqlalchemy.orm import Session

from dbnd_tracker._queries.language.expressions import STATES, Field, lower_forms
from dbnd_tracker._queries.logged import EXPERIMENT_TAG, TABLES, select_logged
from dbnd_tracker._storage.base import NAME_LENGTH
from dbnd_tracker._storage.models import Run, Tag

_CHOSEN: Final[dict[str, Any]] = {"job": Run.job_name, "project": Run.project_name, "user": Run.user}
_SUGGESTED: Final[dict[str, Any]] = {**_CHOSEN, "experiment": Run.project_name, "name": Run.name}
_MAX_CHOICES: Final = 200


def known_values(session: Session, of: Field | str, start: str, limit: int) -> list[str]:
    """Values of a param, tag or attribute such as job that begin with ``start``; none that are long or have numbers."""
    if isinstance(of, Field):
        if of.kind == "metrics":
            return []
        table = TABLES[of.kind]
        query = select_logged(of.kind, *table.values).where(table.name == of.name).distinct()
        column = table.values[0]
    else:
        column = _SUGGESTED.get(of)
        if column is None:
            return [*STATES] if of == "state" else []
        query = select(column).distinct()
        if of == "experiment":
            tagged = select(Tag.value).where(Tag.name == EXPERIMENT_TAG, func.length(Tag.value) <= NAME_LENGTH)
            query = tagged.distinct().union(query)
            return [text for text in session.scalars(query) if text and text.lower().startswith(start.lower())][:limit]
    begins = (func.lower(column).startswith(form, autoescape=True) for form in lower_forms(start))
    query = query.where(or_(*begins), func.length(column) <= NAME_LENGTH).order_by(column).limit(limit)
    return [text for text in session.scalars(query) if text]


def choices(session: Session) -> dict[str, list[str]]:
    """The jobs, projects and users that there are, for a filter to offer."""
    found: dict[str, list[str]] = {name: [] for name in _CHOSEN}
    for name, text in session.connection().execute(_select_choices()):
        if text:
            found[name].append(text)
    return {name: sorted(texts) for name, texts in found.items()}


@functools.cache  # to make a query takes longer than to execute it
def _select_choices() -> Any:
    parts = []
    for name, column in _CHOSEN.items():
        query = select(column).distinct().where(column.is_not(None)).order_by(column).limit(_MAX_CHOICES)
        parts.append(select(literal(name), query.subquery()))
    return union_all(*parts)
