"""Objects as notebooks show them: a small table with links, in which everything is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

_CELL: Final = 'style="text-align: left"'
Row = tuple[str, "str | None"]


def html_table(title: str, rows: Iterable[Row]) -> str:
    """A table of labels and texts; an address of the web is a link, and rows without a text are left out."""
    shown = "".join(
        f"<tr><th {_CELL}>{html.escape(label)}</th><td {_CELL}>{_linked(text)}</td></tr>"
        for label, text in rows
        if text
    )
    return f"<table><caption {_CELL}>{html.escape(title)}</caption><tbody>{shown}</tbody></table>"


def web_url(value: object) -> str | None:
    """``value`` if it is an address that a page may link to: one of the web, and no script."""
    try:
        return value if isinstance(value, str) and urlsplit(value).scheme in {"http", "https"} else None
    except ValueError:  # such as a bracket without its other half
        return None


def _linked(text: str) -> str:
    escaped = html.escape(text)
    if not web_url(text) or not text.isprintable():
        return escaped
    return f'<a href="{escaped}" target="_blank" rel="noopener noreferrer">{escaped}</a>'
