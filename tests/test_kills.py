"""What had been accepted when a process or the tracker was killed is in the tracker, exactly once."""

from __future__ import annotations

import random
import time

import pytest
from kit.progress import TELLING, Progress, wait_until

LOGGING_UNTIL_ENOUGH = f"""{TELLING}
import time
with dbnd_tracking("restarts"):
    began()
    n = 0
    while not os.path.exists(os.environ["ENOUGH"]):
        for n in range(n, n + 10):
            log_metric("n", n, step=n)
            returned()
        n += 1
        time.sleep(0.005)
"""


@pytest.mark.timeout(600)
def test_exactly_once_while_the_tracker_is_killed_20_times(warm, tracker, proxy, tmp_path, report):
    enough = tmp_path / "enough"
    progress = Progress(tmp_path / "progress")
    env = {"DBND__CORE__DATABAND_URL": proxy.url, "DBND__CORE__FLUSH_TIMEOUT": "60"}
    process = warm.python(
        LOGGING_UNTIL_ENOUGH, tmp_path / "log", PROGRESS=str(progress.path), ENOUGH=str(enough), **env
    )
    for _ in range(20):
        # Batches that come while the tracker lives, so that each kill may hit one of them.
        batches = len(proxy.batches)
        wait_until(lambda seen=batches: len(proxy.batches) > seen, lambda: process.output)
        time.sleep(random.uniform(0, 0.1))
        tracker.kill()
        proxy.refuse()
        time.sleep(random.uniform(0, 0.2))
        proxy.target = tracker.start()
        proxy.listen()
    enough.touch()
    assert process.wait() == 0, process.output
    accepted = progress.returned
    values = tracker.values(progress.task_run, "n")
    twice = len(values) - len(set(values))
    report(f"The tracker killed 20 times: {accepted} accepted, {accepted - len(set(values))} lost, {twice} twice.")
    assert values == list(range(accepted))
    assert tracker.starts == 21
