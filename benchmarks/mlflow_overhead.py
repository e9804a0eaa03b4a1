"""What dual-writing costs: wall time of MLflow's log calls, plain against the composite URI.

Each column is a process with a run of its own. They take turns: some calls in one, as many in the next, in an order
that changes, so that whatever the machine does besides falls upon all of them alike. What a turn has left to be
delivered in the background is delivered before the next one begins: it would be counted there. A training is a run of
its own, and ends when everything is delivered to both sides. Each time is divided by the plain one of its turn; "plain
again" is a second plain process, whose ratio shows how far noise goes.

The columns are trackers, with writes straight to MLflow's store; and ``keep`` and ``deferred``
(``mlflow_tracking.store_writes``), with the embedded tracker. Needs ``databand[mlflow,tracker]`` and full MLflow;
everything runs on loopback and in a temporary folder.

    python benchmarks/mlflow_overhead.py --scale 0.1 --turns 5 --stores http --columns embedded keep deferred
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness import environment, free_port, serving, table

if TYPE_CHECKING:
    from mlflow import MlflowClient

STORES = ("sqlite", "http", "20 ms away")
WRITES = ("keep", "deferred")
COLUMNS = ("embedded", "http", "50 ms away", "dead", *WRITES)
PLAIN = "plain"
CONTROL = "plain again"
METRICS_OF_A_BATCH = 1_000
# Seconds between two turns.
PAUSE = 0.3
# Seconds that a tracker or a store has at most to take the next of what a turn has logged; a dead one takes nothing.
PATIENCE = 60
# What is measured, and how much of it, over all turns; of trainings, in each of them.
KINDS = {"calls": 5_000, "batches": 200, "training": 5_000}
TRAININGS = 3


def work() -> None:
    """Log in this process, under the tracking URI of its environment, as stdin says, and print the seconds.

    A line of stdin is a kind and a number: ``calls 500`` of ``mlflow.log_metric``, ``batches 20`` of ``log_batch``, or
    a ``training 500`` of that many calls.
    """
    import mlflow
    from mlflow.entities import Metric

    mlflow.set_experiment("overhead")
    client = mlflow.MlflowClient()
    done = dict.fromkeys(KINDS, 0)
    with mlflow.start_run() as run:
        mlflow.log_metric("warm up", 0)
        client.log_batch(run.info.run_id, [Metric("warm up", n, 0, n) for n in range(METRICS_OF_A_BATCH)])
        deliver()
        print("ready", flush=True)
        for line in sys.stdin:
            kind, number = line.split()
            steps = range(done[kind], done[kind] + int(number))
            done[kind] = steps.stop
            batches = [[Metric(f"m{n}", n / 7, step, step) for n in range(METRICS_OF_A_BATCH)] for step in steps]
            start = time.perf_counter()
            if kind == "batches":
                for batch in batches:
                    client.log_batch(run.info.run_id, batch)
            else:
                with mlflow.start_run(nested=True) if kind == "training" else contextlib.nullcontext(run) as current:
                    for step in steps:
                        mlflow.log_metric("loss", 1 / (step + 1), step=step)
                if kind == "training":
                    deliver()
            print(time.perf_counter() - start, flush=True)
            deliver()
            if kind == "training":
                check(client, current.info.run_id, "loss", len(steps))
            print("ready", flush=True)
    check(client, run.info.run_id, "loss", done["calls"])
    check(client, run.info.run_id, "m7", done["batches"])


def check(client: MlflowClient, run_id: str, key: str, expected: int) -> None:
    """Raise an error if the store has not exactly what was logged."""
    stored = len(client.get_metric_history(run_id, key))
    if stored != expected:
        raise RuntimeError(f"{stored} of {expected} points of {key} are stored.")


def deliver() -> None:
    """Let the tracker and the store take what was logged; plain MLflow has nothing left."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if uri.startswith("dbnd"):
        from dbnd._context.registry import current_config, get_client
        from dbnd_mlflow import parse_composite_uri
        from dbnd_mlflow._durable.store import outboxes

        get_client(parse_composite_uri(uri).databand_url, current_config()).flush(PATIENCE)
        for outbox in outboxes():
            if not outbox.flush(PATIENCE, longest=600) or outbox.refused or outbox.dropped:
                raise RuntimeError(f"The store has not taken everything: {outbox.trouble}")


async def delayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Hand data on in order, each piece ``delay`` seconds later: bandwidth is not what is limited."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        data = b"more"
        while data:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            queue.put_nowait((loop.time() + delay, data))

    reading = loop.create_task(read())
    with contextlib.suppress(OSError):
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
    reading.cancel()
    writer.close()


@contextlib.contextmanager
def delaying_proxy(target: int, away: float) -> Iterator[str]:
    """The URL of a proxy to a loopback port whose answers are ``away`` seconds away, half of them either way."""
    loop = asyncio.new_event_loop()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(delayed(reader, far_writer, away / 2), delayed(far_reader, writer, away / 2))

    async def shut_down() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(shut_down(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Worker:
    """A process that logs when it is its turn; ``home`` takes its errors, too."""

    def __init__(self, uri: str, home: Path) -> None:
        self._errors = home / "errors"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).absolute()), "--worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=home,
                # With hashes of their own, processes that do the same differ by some percent.
                env=environment(home, MLFLOW_TRACKING_URI=uri, GIT_PYTHON_REFRESH="quiet", PYTHONHASHSEED="0"),
            )
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line == "ready\n" or line[0].isdigit():
                return line
        raise RuntimeError(f"A measurement failed:\n{self._errors.read_text()}")

    def turn(self, kind: str, number: int) -> float:
        """Seconds that ``number`` calls of ``kind`` take; when it returns, they are delivered, too."""
        assert self._process.stdin is not None
        print(kind, number, file=self._process.stdin, flush=True)
        seconds = float(self._line())
        self._line()
        return seconds

    def end(self) -> None:
        """Let it check what it has logged, and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait():
            raise RuntimeError(f"A measurement failed:\n{self._errors.read_text()}")

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        self._process.kill()
        self._process.wait()


def tracker_urls(stack: contextlib.ExitStack, folder: Path) -> dict[str, str]:
    """The trackers by the names of their columns; that of the embedded one is made for each measurement."""
    port = free_port()
    command = [str(Path(sysconfig.get_path("scripts")) / "dbnd"), "tracker", "start", "--port", str(port)]
    near = stack.enter_context(
        serving(command, f"http://127.0.0.1:{port}", "/api/v1/auth/ping", folder / "tracker-server")
    )
    far = stack.enter_context(delaying_proxy(port, 0.05))
    return {"http": near, "50 ms away": far, "dead": f"http://127.0.0.1:{free_port()}"}


def store_urls(stores: list[str], stack: contextlib.ExitStack, folder: Path, empty: Path) -> dict[str, str]:
    """The tracking URIs of MLflow's server by the names of its stores."""
    if stores == ["sqlite"]:
        return {}
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    shutil.copy(empty, folder / "server.db")
    url = f"http://127.0.0.1:{port}"
    near = stack.enter_context(serving(command, url, "/health", folder / "mlflow-server"))
    return {"http": near, "20 ms away": stack.enter_context(delaying_proxy(port, 0.02))}


def run(options: argparse.Namespace, folder: Path) -> dict[tuple[str, str, str], list[float]]:
    """Seconds of each turn, by store, kind and column."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from dbnd_mlflow import build_composite_uri

    empty = folder / "empty.db"
    SqlAlchemyStore(f"sqlite:///{empty}", str(folder / "artifacts")).engine.dispose()  # type: ignore[no-untyped-call]
    found: dict[tuple[str, str, str], list[float]] = {}
    columns = [PLAIN, CONTROL, *options.columns]
    with contextlib.ExitStack() as stack:
        trackers = tracker_urls(stack, folder)
        stores = store_urls(options.stores, stack, folder, empty)
        for store in options.stores:
            with contextlib.ExitStack() as living:
                workers = {}
                for column in columns:
                    home = folder / f"{store}-{columns.index(column)}"
                    home.mkdir()
                    shutil.copy(empty, home / "store.db")
                    inner = stores.get(store, f"sqlite:///{home / 'store.db'}")
                    tracker = trackers.get(column, f"sqlite:///{home / 'tracker.db'}")
                    writes = column if column in WRITES else None
                    uri = inner if column in {PLAIN, CONTROL} else build_composite_uri(tracker, inner, writes)
                    workers[column] = Worker(uri, home)
                    living.callback(workers[column].kill)
                for kind in options.kinds:
                    number, turns = amount(kind, options)
                    for turn in range(turns):
                        # Not at random in each run: two runs of the same options differ by noise alone.
                        for column in random.Random(turn).sample(columns, len(columns)):
                            time.sleep(PAUSE)
                            seconds = workers[column].turn(kind, number)
                            found.setdefault((store, kind, column), []).append(seconds)
                    print(f"{store} store: {kind} are measured", file=sys.stderr)
                for worker in workers.values():
                    worker.end()
    return found


def amount(kind: str, options: argparse.Namespace) -> tuple[int, int]:
    """How much a turn does of what is measured, and the number of turns."""
    number = int(KINDS[kind] * options.scale)
    return (number, TRAININGS) if kind == "training" else (max(1, number // options.turns), options.turns)


def ratios(options: argparse.Namespace, found: dict[tuple[str, str, str], list[float]]) -> str:
    """The median ratios, composite to plain, with the plain seconds of a call beside them."""
    rows = [("store", "what", "plain [ms]", CONTROL, *options.columns)]
    for store in options.stores:
        for kind in options.kinds:
            number, turns = amount(kind, options)
            title = {
                "calls": f"{number * turns} x log_metric",
                "batches": f"{number * turns} x log_batch({METRICS_OF_A_BATCH})",
                "training": f"training of {number} calls, delivered",
            }[kind]
            plain = found[store, kind, PLAIN]
            its_ratios = [
                statistics.median(t / p for t, p in zip(found[store, kind, column], plain, strict=True))
                for column in (CONTROL, *options.columns)
            ]
            milliseconds = statistics.median(plain) / number * 1000
            rows.append((store, title, f"{milliseconds:.2f}", *(f"{ratio:.4f}" for ratio in its_ratios)))
    return f"{table(rows)}\nPlain: median of a call. Others: median of time / plain time of the same turn."


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full number of calls")
    parser.add_argument("--turns", type=int, default=10, help="into how many turns they are divided (default: 10)")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print the table."""
    options = parsed()
    if options.worker:
        work()
        return
    with tempfile.TemporaryDirectory(prefix="mlflow-overhead-") as name:
        print(ratios(options, run(options, Path(name))))


if __name__ == "__main__":
    main()
