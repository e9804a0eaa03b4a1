"""Where a run can be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from dbnd._run import Run


def place_of(tracker_url: str, run: Run) -> str:
    """The address of the run's page, without credentials; where no server serves one, the command that shows the run.

    Args:
        tracker_url: URL of the tracker.
        run: The run.
    """
    parts = urlsplit(tracker_url)
    if parts.scheme not in {"http", "https"}:
        return f"dbnd runs show {run.uid[:8]}"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}/app/jobs/{quote(run.job_name, safe='')}/{run.uid}"
