"""Where a run can be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

PATH_STEPS: Final = frozenset({".", ".."})
"""Names of jobs that stand in no path."""

if TYPE_CHECKING:
    from dbnd._model.run import Run


def place_of(tracker_url: str, run: Run) -> str:
    """The address of the run's page, without credentials; where no server serves one, the command that shows the run.

    Args:
        tracker_url: URL of the tracker.
        run: The run.
    """
    return page_url(tracker_url, run.job_name, run.uid) or f"dbnd runs show {run.uid[:8]}"


def page_url(tracker_url: str, job_name: str | None, *uids: str) -> str | None:
    """The address of a page on a tracker, without credentials; None where no server serves one.

    Args:
        tracker_url: URL of the tracker.
        job_name: Name of the job.
        uids: Uid of the run, and of the task run, if the page is one of these.
    """
    parts = urlsplit(tracker_url)
    if parts.scheme not in {"http", "https"}:
        return None
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}{page_path(job_name, *uids)}"


def page_path(job_name: str | None, *uids: str) -> str:
    """The address of a page of a job, a run or a task run, as it is on every tracker."""
    # Browsers take dots for steps from folder to folder. Real clients write "-" where there is no job.
    job = None if job_name in PATH_STEPS else job_name
    return "/".join(("/app/jobs", *(quote(part or "-", safe="", errors="replace") for part in (job, *uids))))
