"""Addresses of a tracker's pages."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlsplit

_PATH_STEPS: Final = frozenset({".", ".."})
"""Names of jobs that stand in no path: browsers take them for steps from folder to folder."""


def page_url(tracker_url: str, job_name: str | None, *uids: str) -> str | None:
    """The address of a page on a tracker, without credentials; None where no server serves one.

    ``uids`` are those of the run, and of the task run, if the page is one of these.
    """
    parts = urlsplit(tracker_url)
    if parts.scheme not in {"http", "https"}:
        return None
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}{page_path(job_name, *uids)}"


def page_path(job_name: str | None, *uids: str) -> str:
    """The path of the page of a job, a run or a task run, as it is on every tracker."""
    job = "-" if not job_name or job_name in _PATH_STEPS else job_name  # as real clients write it
    return "/".join(("/app/jobs", *(quote(part, safe="", errors="replace") for part in (job, *uids))))
