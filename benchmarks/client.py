"""What the client costs: a log call beside those of its peers, points per second, time until a point is visible.

Everything runs in processes of their own, on loopback and in a temporary folder; rounds are interleaved, and ratios are
medians of the rounds' own ratios. Peers that are not installed are named and left out: ``nox -s benchmark-client``
brings them all.

    python benchmarks/client.py --rounds 3 --calls 2000 --points 200000 --iterations 100
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from client_loggers import FLOOR, LOGGERS, OURS, call_times, installed
from harness import environment, free_port, serving, table

# Seconds that any one measurement may take.
LIMIT = 1_800
# Steps of the task that log, or do not, before it is the turn of the others.
STEPS_OF_A_BLOCK = 100
# One core for the client, the others for a server.
CLIENT_CORE, *SERVER_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
Measured = dict[str, float]


def throughput(points: int) -> Measured:
    """Points per second from the first call until the tracker has the last one, with the client on one core."""
    from dbnd import dbnd_tracking, get_databand_context, log_metric

    os.sched_setaffinity(0, {CLIENT_CORE})
    with dbnd_tracking("benchmark"):
        client = get_databand_context().client
        log_metric("warm up", 0)
        assert client.flush(60)
        start = time.perf_counter()
        for step in range(points):
            log_metric("loss", step / 7, step=step)
        called = time.perf_counter()
        assert client.flush(LIMIT)
        end = time.perf_counter()
    return {"points/s": points / (end - start), "calls/s": points / (called - start)}


def visibility(iterations: int) -> Measured:
    """Seconds from the start of a log call until a reader of the tracker finds the point; the process is else idle."""
    from dbnd import current_task_run, dbnd_tracking, get_databand_context, log_metric
    from dbnd._context.registry import create_reader

    times = []
    with dbnd_tracking("benchmark"):
        get_databand_context().client.flush(60)  # the tracker knows of the run
        reader = create_reader(get_databand_context().config)
        task_run = current_task_run().uid
        for number in range(iterations):
            # At any phase of whatever rhythm the sender has.
            time.sleep(0.05 + number % 10 / 50)
            key = f"m{number}"
            start = time.perf_counter()
            log_metric(key, number)
            while not next(reader.points(task_run, key), None):
                time.sleep(0.001)
            times.append(time.perf_counter() - start)
        reader.close()
    return {"median": statistics.median(times), "worst": max(times)}


def turns_of_a_millisecond() -> int:
    """Turns of a step's loop that take a millisecond on this machine."""
    turns, times = 10_000, []
    for _ in range(100):
        start = time.perf_counter()
        sum(n * n for n in range(turns))
        times.append(time.perf_counter() - start)
    return round(turns / 1000 / statistics.median(times))


def task(steps: int, turns: int) -> Measured:
    """What a point for each of so many steps adds to a task: its time as a multiple of that of the steps alone.

    After each four blocks of steps that log comes one that does not, so that the machine's pace is the same for both.
    All that happens in the background, and all waiting for the interpreter, counts as time of the steps that log.
    ``processor`` is the same of the processor time of the whole process.
    """
    from dbnd import dbnd_tracking, log_metric

    is_tracked = "DBND__CORE__DATABAND_URL" in os.environ
    alone = 0.0
    with dbnd_tracking("benchmark") if is_tracked else contextlib.nullcontext():
        start, processor = time.perf_counter(), time.process_time()
        for block in range(max(1, steps // (4 * STEPS_OF_A_BLOCK)) * 5):
            is_alone = block % 5 == 4
            block_start = time.thread_time()
            for step in range(STEPS_OF_A_BLOCK):
                loss = sum(n * n for n in range(turns)) / (step + 1)
                if is_tracked and not is_alone:
                    log_metric("loss", loss, step=block * STEPS_OF_A_BLOCK + step)
            if is_alone:
                alone += time.thread_time() - block_start
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return {"seconds": (seconds / alone - 1) / 4, "processor": (processor / alone - 1) / 4}


class Rounds:
    """Runs measurements in fresh processes, whose homes are in ``folder``, and keeps what they found by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.found: dict[str, list[Measured]] = defaultdict(list)

    def measure(self, name: str, kind: str, argument: object, tracker: str | None) -> None:
        """Run one measurement, by a key of ``KINDS`` and the argument of its function, and keep it under ``name``.

        ``tracker`` is the URL of the tracker: "embedded" for a file of the measurement's own, None for none.
        """
        self._count += 1
        home = self._folder / f"home-{self._count}"
        home.mkdir()
        store = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
            "TRACKIO_DIR": str(home),
            "WANDB_DIR": str(home),
        }
        env = environment(home, WANDB_SILENT="true", **store)
        if tracker is not None:
            url = f"sqlite:///{home / 'tracker.db'}" if tracker == "embedded" else tracker
            env |= {"DBND__CORE__DATABAND_URL": url, "DBND__CORE__FLUSH_TIMEOUT": "60"}
        done = subprocess.run(
            [sys.executable, str(Path(__file__).absolute()), "--worker", kind, json.dumps(argument)],
            capture_output=True,
            text=True,
            check=False,
            cwd=home,
            timeout=LIMIT,
            stdin=subprocess.DEVNULL,
            env=env,
        )
        if done.returncode:
            raise RuntimeError(f"The measurement {name} failed:\n{done.stderr}")
        measured = json.loads(done.stdout.splitlines()[-1])
        self.found[name].append(measured)
        print(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in measured.items()), file=sys.stderr)
        shutil.rmtree(home)

    def median(self, name: str, key: str) -> float:
        """Median of one figure over the rounds."""
        return statistics.median(measured[key] for measured in self.found[name])

    def ratio(self, name: str, key: str, base: str) -> float:
        """Median of the rounds' ratios of one figure to that of ``base`` in the same round."""
        pairs = zip(self.found[name], self.found[base], strict=True)
        return statistics.median(mine[key] / other[key] for mine, other in pairs)


KINDS = {
    "calls": lambda argument: call_times(*argument),
    "throughput": throughput,
    "visibility": visibility,
    "task": lambda argument: task(*argument),
}


def turned(names: Iterable[str], number: int) -> list[str]:
    """The names in an order that differs from round to round."""
    listed = list(names)
    turn = number % len(listed)
    return listed[turn:] + listed[:turn]


def run(options: argparse.Namespace, rounds: Rounds, folder: Path) -> None:
    """All measurements."""
    port = free_port()
    command = [str(Path(sysconfig.get_path("scripts")) / "dbnd"), "tracker", "start", "--port", str(port)]
    dead = f"http://127.0.0.1:{free_port()}"
    loggers = [name for name in LOGGERS if installed(name)]
    steps = options.steps, turns_of_a_millisecond()
    with serving(
        command, f"http://127.0.0.1:{port}", "/api/v1/auth/ping", folder / "tracker", cores=SERVER_CORES
    ) as near:
        for number in range(options.rounds):
            for name in turned(loggers, number):
                rounds.measure(name, "calls", [name, options.calls], near if name == OURS else None)
            for name, tracker in (("embedded", "embedded"), ("http", near)):
                rounds.measure(f"throughput, {name}", "throughput", options.points, tracker)
                rounds.measure(f"visibility, {name}", "visibility", options.iterations, tracker)
            trackers = {"untracked": None, "dead tracker": dead, "embedded": "embedded", "http": near}
            for name in turned(trackers, number):
                rounds.measure(f"task, {name}", "task", steps, trackers[name])


def report(options: argparse.Namespace, rounds: Rounds) -> str:
    """The tables."""
    calls = [("one log call", "p50 [us]", "p99 [us]", "p50 / floor", "p50 / ours")]
    calls += [
        (
            name,
            f"{rounds.median(name, 'p50'):,.2f}",
            f"{rounds.median(name, 'p99'):,.2f}",
            f"{rounds.ratio(name, 'p50', FLOOR):,.2f}",
            f"{rounds.ratio(name, 'p50', OURS):,.2f}",
        )
        for name in LOGGERS
        if name in rounds.found
    ]
    trackers = [("tracker", "points/s, end to end", "log calls/s", "log to visible [s]", "worst [s]")]
    trackers += [
        (
            name,
            f"{rounds.median(f'throughput, {name}', 'points/s'):,.0f}",
            f"{rounds.median(f'throughput, {name}', 'calls/s'):,.0f}",
            f"{rounds.median(f'visibility, {name}', 'median'):.3f}",
            f"{max(measured['worst'] for measured in rounds.found[f'visibility, {name}']):.3f}",
        )
        for name in ("embedded", "http")
    ]
    tasks = [("a task of a point a millisecond", "time / without points", "processor time / without points")]
    tasks += [
        (
            name,
            f"{rounds.median(f'task, {name}', 'seconds'):.3f}",
            f"{rounds.median(f'task, {name}', 'processor'):.3f}",
        )
        for name in ("untracked", "dead tracker", "embedded", "http")
    ]
    missing = [name for name in LOGGERS if not installed(name)]
    said = [f"Not installed, and so not measured: {', '.join(missing)}."] if missing else []
    where = f"Medians of {options.rounds} rounds, the client of points/s on core {CLIENT_CORE}, the server elsewhere."
    return "\n\n".join([table(calls), table(trackers), table(tasks), *said, where])


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each thing (default: 5)")
    parser.add_argument("--calls", type=int, default=5_000, help="log calls of each logger (default: 5000)")
    parser.add_argument("--points", type=int, default=500_000, help="points of the throughput (default: 500000)")
    parser.add_argument("--iterations", type=int, default=200, help="points that are waited for (default: 200)")
    parser.add_argument("--steps", type=int, default=5_000, help="steps of a millisecond of the task (default: 5000)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure and print the tables."""
    options = parsed()
    if options.worker:
        kind, argument = options.worker
        with contextlib.redirect_stdout(sys.stderr):  # where peers talk
            measured: Any = KINDS[kind](json.loads(argument))  # type: ignore[operator]
        print(json.dumps(measured))
        return
    with tempfile.TemporaryDirectory(prefix="client-benchmark-") as name:
        rounds = Rounds(Path(name))
        run(options, rounds, Path(name))
        print(report(options, rounds))


if __name__ == "__main__":
    main()
