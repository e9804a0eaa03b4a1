"""Objects as notebooks show them: a small table of facts, with links; everything in it is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dbnd._facts import utc_now
from dbnd._terminal.text import duration

if TYPE_CHECKING:
    from dbnd._run import Run
    from dbnd._tracking.client import TrackingAPIClient

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


def run_facts(run: Run) -> list[Fact]:
    """What there is to say of a run, whether it goes on or has ended."""
    end = run.end_time or utc_now()
    return [
        ("Run", run.name),
        ("Job", run.job_name),
        ("Project", run.project_name),
        ("State", run.state.value),
        ("Started", run.start_time.astimezone().strftime("%Y-%m-%d %H:%M:%S")),
        ("Took", duration((end - run.start_time).total_seconds())),
        ("Uid", run.uid),
        ("Tracked", run.place or "no"),
        *((name, url) for name, url in (run.root.links.items() if run.root else ())),
    ]


def client_facts(client: TrackingAPIClient | None) -> list[Fact]:
    """What there is to say of the tracker."""
    if client is None:
        return [("Tracker", "none: install dbnd-tracker or set core.databand_url")]
    unsent = f"{client.unsent} events" if client.unsent else None
    return [("Tracker", client.name), ("Unsent", unsent), ("Trouble", client.trouble)]
