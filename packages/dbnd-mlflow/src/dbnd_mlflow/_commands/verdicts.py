"""What a comparison of the two sides has found, kept with the task run in the tracker, whose page shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbnd.tracking import Batch, group, micros, new_uid, text_point, utc_now

from .._reporting.reporter import TAG, VERIFIED
from .sides import task_run_of

if TYPE_CHECKING:
    from dbnd.tracking import Reader, Transport


def record_verdict(run: Any, differences: int, reader: Reader, transport: Transport) -> None:
    """Tag the task run of an MLflow run with what comparing them has found; a run that was never tracked has none.

    Args:
        run: The MLflow run.
        differences: How many there are.
        reader: Reader of the tracker.
        transport: Way to the tracker.

    Raises:
        TransportError: The tracker does not take it.
    """
    task_run = task_run_of(run, reader)
    if task_run is None or not task_run["attempts"]:
        return
    now = utc_now()
    text = f"{now.isoformat(timespec='seconds')} {differences}"
    verdict = group(task_run["attempts"][-1]["attempt_uid"], TAG, [text_point(VERIFIED, text, micros(now))])
    transport.send(Batch("log_metrics", [verdict], new_uid().hex, 1, 1))
