"""What dual-writing costs: wall time of MLflow's log calls, plain against the composite URI.

Each column is a process with a run of its own. They take turns: some calls in one, as many in the next, in an order
that changes, so that whatever the machine does besides falls upon all of them alike. What a turn has left to be
delivered in the background is delivered before the next one begins: it would be counted there. Each time is divided by
the plain one of its turn; "plain again" is a second plain process, whose ratio shows how far noise goes. Needs
``databand[mlflow,tracker]`` and full MLflow; everything runs on loopback and in a temporary folder.

    python benchmarks/mlflow_overhead.py --calls 500 --batches 20 --turns 5 --stores sqlite
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

from harness import environment, free_port, serving, table

STORES = ("sqlite", "http")
TRACKERS = ("embedded", "http", "50 ms away", "dead")
PLAIN = "plain"
CONTROL = "plain again"
METRICS_OF_A_BATCH = 1_000
# One way: an answer is 50 ms away.
DELAY = 0.025
# Seconds between two turns.
PAUSE = 0.3
# Seconds that a tracker has at most to take what a turn has logged; the dead one takes nothing.
PATIENCE = 60
KINDS = ("calls", "batches")


def work() -> None:
    """Log in this process, under the tracking URI of its environment, as stdin says, and print the seconds.

    A line of stdin is a kind and a number: ``calls 500`` of ``mlflow.log_metric`` or ``batches 20`` of ``log_batch``.
    """
    import mlflow
    from mlflow.entities import Metric

    mlflow.set_experiment("overhead")
    client = mlflow.MlflowClient()
    done = dict.fromkeys(KINDS, 0)
    with mlflow.start_run() as run:
        mlflow.log_metric("warm up", 0)
        client.log_batch(run.info.run_id, [Metric("warm up", n, 0, n) for n in range(METRICS_OF_A_BATCH)])
        print("ready", flush=True)
        for line in sys.stdin:
            kind, number = line.split()
            steps = range(done[kind], done[kind] + int(number))
            done[kind] = steps.stop
            if kind == "calls":
                start = time.perf_counter()
                for step in steps:
                    mlflow.log_metric("loss", 1 / (step + 1), step=step)
            else:
                batches = [[Metric(f"m{n}", n / 7, step, step) for n in range(METRICS_OF_A_BATCH)] for step in steps]
                start = time.perf_counter()
                for batch in batches:
                    client.log_batch(run.info.run_id, batch)
            print(time.perf_counter() - start, flush=True)
            deliver()
            print("ready", flush=True)
    for key, expected in (("loss", done["calls"]), ("m7", done["batches"])):
        stored = len(client.get_metric_history(run.info.run_id, key))
        if stored != expected:
            message = f"{stored} of {expected} points of {key} are stored."
            raise RuntimeError(message)


def deliver() -> None:
    """Let the tracker take what was logged; plain MLflow has none."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if uri.startswith("dbnd"):
        from dbnd._context.registry import current_config, get_client
        from dbnd_mlflow import parse_composite_uri

        get_client(parse_composite_uri(uri).databand_url, current_config()).flush(PATIENCE)


async def delayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand data on in order, each piece ``DELAY`` seconds later: bandwidth is not what is limited."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        data = b"more"
        while data:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            queue.put_nowait((loop.time() + DELAY, data))

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
def delaying_proxy(target: int) -> Iterator[str]:
    """The URL of a proxy to a loopback port that takes ``DELAY`` seconds either way."""
    loop = asyncio.new_event_loop()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(delayed(reader, far_writer), delayed(far_reader, writer))

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
    """A process that logs when it is its turn.

    Args:
        uri: Its tracking URI.
        home: Its folder, which takes its errors, too.
    """

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
        message = f"A measurement failed:\n{self._errors.read_text()}"
        raise RuntimeError(message)

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
            message = f"A measurement failed:\n{self._errors.read_text()}"
            raise RuntimeError(message)

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
    far = stack.enter_context(delaying_proxy(port))
    return {"http": near, "50 ms away": far, "dead": f"http://127.0.0.1:{free_port()}"}


def run(options: argparse.Namespace, folder: Path) -> dict[tuple[str, str, str], list[float]]:
    """Seconds of each turn, by store, kind and column."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from dbnd_mlflow import build_composite_uri

    empty = folder / "empty.db"
    SqlAlchemyStore(f"sqlite:///{empty}", str(folder / "artifacts")).engine.dispose()  # type: ignore[no-untyped-call]
    found: dict[tuple[str, str, str], list[float]] = {}
    columns = [PLAIN, CONTROL, *options.trackers]
    with contextlib.ExitStack() as stack:
        urls = tracker_urls(stack, folder)
        for store in options.stores:
            if store == "http":
                port = free_port()
                command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
                command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
                shutil.copy(empty, folder / "server.db")
                url = f"http://127.0.0.1:{port}"
                stack.enter_context(serving(command, url, "/health", folder / "mlflow-server"))
            with contextlib.ExitStack() as living:
                workers = {}
                for column in columns:
                    home = folder / f"{store}-{columns.index(column)}"
                    home.mkdir()
                    shutil.copy(empty, home / "store.db")
                    inner = url if store == "http" else f"sqlite:///{home / 'store.db'}"
                    tracker = urls.get(column, f"sqlite:///{home / 'tracker.db'}")
                    uri = inner if column in {PLAIN, CONTROL} else build_composite_uri(tracker, inner)
                    workers[column] = Worker(uri, home)
                    living.callback(workers[column].kill)
                for kind in KINDS:
                    number = getattr(options, kind) // options.turns
                    for turn in range(options.turns if number else 0):
                        # Not at random in each run: two runs of the same options differ by noise alone.
                        for column in random.Random(turn).sample(columns, len(columns)):
                            time.sleep(PAUSE)
                            seconds = workers[column].turn(kind, number)
                            found.setdefault((store, kind, column), []).append(seconds)
                    print(f"{store} store: {kind} are measured", file=sys.stderr)
                for worker in workers.values():
                    worker.end()
    return found


def ratios(options: argparse.Namespace, found: dict[tuple[str, str, str], list[float]]) -> str:
    """The median ratios, composite to plain, with the plain seconds beside them."""
    titles = {
        "calls": f"{options.calls} x log_metric",
        "batches": f"{options.batches} x log_batch({METRICS_OF_A_BATCH})",
    }
    rows = [("store", "what", "plain [s]", CONTROL, *options.trackers)]
    for store in options.stores:
        for kind, title in titles.items():
            if (store, kind, PLAIN) not in found:
                continue
            plain = found[store, kind, PLAIN]
            its_ratios = [
                statistics.median(t / p for t, p in zip(found[store, kind, column], plain, strict=True))
                for column in (CONTROL, *options.trackers)
            ]
            rows.append((store, title, f"{sum(plain):.2f}", *(f"{ratio:.3f}" for ratio in its_ratios)))
    return f"{table(rows)}\nMedians of {options.turns} turns: time / plain time of the same turn."


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5_000, help="calls of mlflow.log_metric (default: 5000)")
    parser.add_argument("--batches", type=int, default=200, help="calls of log_batch, 1000 metrics each (default: 200)")
    parser.add_argument("--turns", type=int, default=10, help="into how many turns they are divided (default: 10)")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--trackers", nargs="+", choices=TRACKERS, default=list(TRACKERS))
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
