"""A script that makes as many short runs as its argument says."""

from __future__ import annotations

import sys

from dbnd import dbnd_tracking, log_metric

for number in range(int(sys.argv[1])):
    with dbnd_tracking(job_name="many", run_name=f"run {number:02}"):
        log_metric("score", number)
