"""Where a run can be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from dbnd._run import Run
    from dbnd._tracking.client import TrackingAPIClient


def page_url(client: TrackingAPIClient, run: Run) -> str | None:
    """The address of the run's page, without credentials, or None where no server serves one."""
    parts = urlsplit(client.url)
    if parts.scheme not in {"http", "https"}:
        return None
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}/app/jobs/{quote(run.job_name, safe='')}/{run.uid}"


def show_command(run: Run) -> str:
    """The command that shows the run."""
    return f"dbnd runs show {run.uid[:8]}"
