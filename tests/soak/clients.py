"""What the processes of the soak do: log as trainings do, and keep an account of what was accepted.

An account is a file of lines that survives the death of its process. ``run UID TASK_RUN_UID`` says where the points
belong; ``? N KEY VALUE`` stands before a log call, ``+ N`` behind it. What has the second line was accepted.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

# Values that a log call takes, whatever may become of them on their way.
POISON: list[Any] = [
    10**5000,
    -(10**400),
    float("nan"),
    float("inf"),
    "\ud800",
    {"a": "\udfff"},
    "nul \0 nul",
    "\x1b[31mred\x1b[0m",
    "=cmd|' /C calc'!A0",
    [[[[]]]],
    {"list": list(range(200))},
    "x" * 50_000,
    True,
    None,
]


class Account:
    """The account of one process and its children."""

    def __init__(self, path: str, number: int, *, needs_run: bool = True) -> None:
        self._needs_run = needs_run
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._number = number
        self._count = 0
        self._lock = threading.Lock()

    def belongs_to(self, run_uid: str, task_run_uid: str) -> None:
        """Say where the points belong."""
        self._write(f"run {run_uid} {task_run_uid}")

    def entry(self, key: str, value: object = None) -> tuple[str, float]:
        """Announce a point; returns its id, and a value that no other point of the soak has."""
        with self._lock:
            self._count += 1
            number = f"{os.getpid()}.{self._count}"
            unique = float(self._number * 10_000_000 + os.getpid() % 100 * 100_000 + self._count)
        self._write(f"? {number} {key} {json.dumps(unique if value is None else 'any')}")
        return number, unique

    def accepted(self, number: str) -> None:
        """Say that the call has returned; what a thread logs behind the end of its run belongs nowhere."""
        from dbnd import current_task_run

        # A context outlives its run for a moment.
        if not self._needs_run or current_task_run() is not None:
            self._write(f"+ {number}")

    def _write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


def native(number: int, account_file: str, seconds: float) -> None:
    """A script within ``dbnd_tracking``: threads, a forked child, poison."""
    from dbnd import current_task_run, dbnd_tracking

    chance, account = random.Random(number), Account(account_file, number)
    with dbnd_tracking("soak", run_name=f"soak-{number}"):
        task_run = current_task_run()
        assert task_run is not None
        account.belongs_to(task_run.run.uid, task_run.uid)
        end = time.monotonic() + seconds
        if chance.random() < 0.3:
            child = os.fork()
            if child == 0:
                for _ in range(20):
                    _log(account, "of-child", chance)
                sys.exit(0)
            os.waitpid(child, 0)
        threads = [threading.Thread(target=_log_until, args=(end, account, f"thread-{n}", chance)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _log_until(end: float, account: Account, name: str, chance: random.Random) -> None:
    from dbnd import log_metric, log_metrics

    while time.monotonic() < end:
        for key in chance.choices(("loss", "accuracy", name), k=5):
            _log(account, key, chance)
        pair = {key: account.entry(key) for key in "ab"}
        log_metrics({key: value for key, (_, value) in pair.items()})
        for entry, _ in pair.values():
            account.accepted(entry)
        if chance.random() < 0.05:
            key = f"poison-{uuid.uuid4().hex}"
            entry, _ = account.entry(key, "any")
            log_metric(key, chance.choice(POISON))
            account.accepted(entry)
        time.sleep(chance.uniform(0, 0.1))


def _log(account: Account, key: str, chance: random.Random) -> None:
    from dbnd import log_metric

    entry, value = account.entry(key)
    log_metric(key, value, step=chance.randrange(100))
    account.accepted(entry)


def with_mlflow(number: int, account_file: str, seconds: float, store: str) -> None:
    """A training that knows nothing but MLflow and the composite URI."""
    import mlflow

    from dbnd_mlflow import build_composite_uri

    chance, account = random.Random(number), Account(account_file, number, needs_run=False)
    mlflow.set_tracking_uri(build_composite_uri(os.environ["DBND__CORE__DATABAND_URL"], store))
    end = time.monotonic() + seconds
    with mlflow.start_run(run_name=f"soak-{number}") as run:
        uid = str(uuid.UUID(run.info.run_id))
        account.belongs_to(uid, uid)
        mlflow.log_params({"number": number, "text": "\x1b[31m\u2028 = 1"})
        while time.monotonic() < end:
            for key in chance.choices(("loss", "accuracy"), k=3):
                entry, value = account.entry(key)
                # Not in the order of their times, as a worker whose clock is behind has them.
                mlflow.log_metric(
                    key, value, step=chance.randrange(100), timestamp=chance.randrange(10**12, 2 * 10**12)
                )
                account.accepted(entry)
            if chance.random() < 0.05:
                with mlflow.start_run(nested=True, run_name=f"nested-{number}"):
                    mlflow.log_metric("twice", 1.0, step=1, timestamp=10**12)
                    mlflow.log_metric("twice", 1.0, step=1, timestamp=10**12)
            mlflow.set_tag("at", str(time.time()))
            time.sleep(chance.uniform(0, 0.2))


def make_store(path: Path) -> None:
    """An empty MLflow store to copy: making one takes seconds."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{path}")
    mlflow.search_experiments()
