"""Objects as notebooks show them: a small table of facts, with links; everything in it is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

_CELL: Final = 'style="text-align: left"'
Fact = tuple[str, "str | None"]


def facts_table(title: str, facts: Iterable[Fact]) -> str:
    """A table of ``facts``: each a label and a text, which is a link where it is an address of the web.

    Args:
        title: Stands above them.
        facts: Those without a text are left out.
    """
    rows = "".join(
        f"<tr><th {_CELL}>{html.escape(label)}</th><td {_CELL}>{_linked(text)}</td></tr>"
        for label, text in facts
        if text
    )
    return f"<table><caption {_CELL}>{html.escape(title)}</caption><tbody>{rows}</tbody></table>"


def _linked(text: str) -> str:
    escaped = html.escape(text)
    try:
        is_address = urlsplit(text).scheme in {"http", "https"}
    except ValueError:  # such as a bracket without its other half
        is_address = False
    if not is_address or not text.isprintable():
        return escaped
    return f'<a href="{escaped}" target="_blank" rel="noopener noreferrer">{escaped}</a>'
