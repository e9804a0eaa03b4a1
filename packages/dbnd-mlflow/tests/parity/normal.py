"""What a side has observed, such that two equal sides have observed the same."""

from __future__ import annotations

import contextlib
import math
import re
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from dbnd_mlflow._durable.ids import FIRST_ID, FIRST_MODEL_ID
from parity.scenario import Side

_ID = re.compile(
    r"(?<![0-9A-Za-z])(?:(?:m|tr|a|as|d|s)-)?"
    r"(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16}|\d{17,19})(?![0-9a-f])"
)
_REPLACED = [
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?"), "<time>"),
    (re.compile(r"\b1[6-9]\d{11}(\d{6})?\b"), "<time>"),
    (re.compile(r"(model_size_bytes\D+)\d+"), r"\1<size>"),
    (re.compile(r"0x[0-9a-f]{6,}"), "<address>"),
    (re.compile(r"\bport=\d+"), "port=<port>"),
    (re.compile(r"\b[a-z]+-[a-z]+-\d{1,4}\b"), "<random name>"),
    (re.compile(r"(/tmp|/var|/private)/[^ '\"]*?/tmp\w{8}\b"), "<temporary>"),
]


class Normal:
    """Ids, times and places of one side by neutral names: ids are numbered in the order in which they appear."""

    def __init__(self, side: Side, inner: str) -> None:
        self._places = [(side.uri, "<store>"), (inner, "<store>"), (str(side.folder), "<folder>")]
        self._ids: dict[str, str] = {}
        number = re.escape(side.experiment_id)
        self._experiment = re.compile(
            rf"(?<=/){number}(?=/)|^{number}$|(?<='){number}(?=')|(?<=[:=]){number}\b|(?<=experiments/){number}\b"
        )

    def __call__(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        if isinstance(value, float) and math.isnan(value):
            return "nan"
        if isinstance(value, int | float) and 1e12 < value < 1e17:
            return "<time>"
        if isinstance(value, bool | int | float | None):
            return value
        return (
            self._text(value)
            if isinstance(value, str)
            else [type(value).__name__, self(getattr(value, "__dict__", str(value)))]
        )

    def _text(self, text: str) -> str:
        for place, name in self._places:
            text = text.replace(place, name)
        text = self._experiment.sub("<experiment>", text)
        for pattern, name in _REPLACED:
            text = pattern.sub(name, text)
        return _ID.sub(lambda match: self._ids.setdefault(match[0], f"<id {len(self._ids)}>"), text)


def census(store: Path) -> Counter[str]:
    """How many rows each table of an SQLite store has, or how many files of each name stand in a folder."""
    if store.is_dir():
        names = (path.name for path in store.rglob("*") if path.is_file() and not _ID.search(path.name))
        return Counter(name for name in names if name not in {FIRST_ID, FIRST_MODEL_ID})
    with contextlib.closing(sqlite3.connect(store)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = Counter({name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names})
        # The tags that make creating repeatable, which only the store itself shows.
        for table, column, tag in (("tags", "key", FIRST_ID), ("logged_model_tags", "tag_key", FIRST_MODEL_ID)):
            if table in names:
                query = f'SELECT count(*) FROM "{table}" WHERE "{column}" = ?'
                found[table] -= database.execute(query, (tag,)).fetchone()[0]
        return found
