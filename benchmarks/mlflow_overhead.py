"""What dual-writing costs: wall time of MLflow's log calls, plain against the composite URI.

Every measurement is a fresh process with a run of its own; plain and composite ones are interleaved, in an order that
rotates from round to round, and each composite time is divided by the plain one of its round. Needs
``databand[mlflow,tracker]`` and full MLflow; everything runs on loopback and in a temporary folder. The figures
say something only if nothing else runs there.

    python benchmarks/mlflow_overhead.py --calls 500 --batches 20 --rounds 1 --stores sqlite
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import environment, free_port, serving, table

STORES = ("sqlite", "http")
TRACKERS = ("embedded", "http", "50 ms away", "dead")
PLAIN = "plain"
METRICS_OF_A_BATCH = 1_000
# One way: an answer is 50 ms away.
DELAY = 0.025
# Seconds that any one measurement may take.
LIMIT = 1_800


@dataclass(frozen=True)
class Times:
    """Seconds of one measurement.

    Args:
        calls: All calls of ``mlflow.log_metric``.
        batches: All calls of ``log_batch``.
    """

    calls: float
    batches: float


def work(calls: int, batches: int) -> None:
    """Measure in this process, under the tracking URI of its environment, and print the times as JSON."""
    import mlflow
    from mlflow.entities import Metric

    mlflow.set_experiment("overhead")
    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        mlflow.log_metric("warm up", 0)
        client.log_batch(run.info.run_id, [Metric("warm up", n, 0, n) for n in range(METRICS_OF_A_BATCH)])
        start = time.perf_counter()
        for step in range(calls):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        single = time.perf_counter() - start
        metrics = [[Metric(f"m{n}", n / 7, step, step) for n in range(METRICS_OF_A_BATCH)] for step in range(batches)]
        start = time.perf_counter()
        for batch in metrics:
            client.log_batch(run.info.run_id, batch)
        many = time.perf_counter() - start
    stored = len(client.get_metric_history(run.info.run_id, "loss"))
    if stored != calls:
        message = f"{stored} of {calls} points are stored."
        raise RuntimeError(message)
    print(json.dumps({"calls": single, "batches": many}))


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


def measure(options: argparse.Namespace, uri: str, home: Path) -> Times:
    """One measurement in a process of its own, whose output stands in ``home`` if it fails."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(Path(__file__).absolute()), "--worker"]
    command += ["--calls", str(options.calls), "--batches", str(options.batches)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
        env=environment(home, MLFLOW_TRACKING_URI=uri, GIT_PYTHON_REFRESH="quiet"),
    )
    if done.returncode:
        message = f"A measurement failed:\n{done.stderr}"
        raise RuntimeError(message)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    return Times(**json.loads(line))


def tracker_urls(stack: contextlib.ExitStack, folder: Path) -> dict[str, str]:
    """The trackers by the names of their columns; that of the embedded one is made for each measurement."""
    port = free_port()
    command = [str(Path(sysconfig.get_path("scripts")) / "dbnd"), "tracker", "start", "--port", str(port)]
    near = stack.enter_context(
        serving(command, f"http://127.0.0.1:{port}", "/api/v1/auth/ping", folder / "tracker-server")
    )
    far = stack.enter_context(delaying_proxy(port))
    return {"http": near, "50 ms away": far, "dead": f"http://127.0.0.1:{free_port()}"}


def run(options: argparse.Namespace, folder: Path) -> dict[tuple[str, str], list[Times]]:
    """All measurements: those of each store and column, in the order of the rounds."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from dbnd_mlflow import build_composite_uri

    empty = folder / "empty.db"
    SqlAlchemyStore(f"sqlite:///{empty}", str(folder / "artifacts")).engine.dispose()  # type: ignore[no-untyped-call]
    found: dict[tuple[str, str], list[Times]] = {}
    with contextlib.ExitStack() as stack:
        urls = tracker_urls(stack, folder)
        servers: dict[str, str] = {}
        if "http" in options.stores:
            port = free_port()
            command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
            command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
            shutil.copy(empty, folder / "server.db")
            url = f"http://127.0.0.1:{port}"
            servers["http"] = stack.enter_context(serving(command, url, "/health", folder / "mlflow-server"))
        columns = [PLAIN, *options.trackers]
        for number in range(options.rounds):
            turn = number % len(columns)
            for store in options.stores:
                for column in columns[turn:] + columns[:turn]:
                    home = folder / f"{number}-{store}-{columns.index(column)}"
                    home.mkdir()
                    inner = servers.get(store)
                    if inner is None:
                        shutil.copy(empty, home / "store.db")
                        inner = f"sqlite:///{home / 'store.db'}"
                    tracker = urls.get(column, f"sqlite:///{home / 'tracker.db'}")
                    uri = inner if column == PLAIN else build_composite_uri(tracker, inner)
                    times = measure(options, uri, home)
                    found.setdefault((store, column), []).append(times)
                    print(
                        f"round {number + 1}, {store} store, {column}: {times.calls:.2f} s, {times.batches:.2f} s",
                        file=sys.stderr,
                    )
                    shutil.rmtree(home)
    return found


def ratios(options: argparse.Namespace, found: dict[tuple[str, str], list[Times]]) -> str:
    """The median ratios, composite to plain, with the plain seconds beside them."""
    kinds = (
        ("calls", f"{options.calls} x log_metric"),
        ("batches", f"{options.batches} x log_batch({METRICS_OF_A_BATCH})"),
    )
    rows = [("store", "what", "plain [s]", *options.trackers)]
    for store in options.stores:
        for kind, title in kinds:
            if not getattr(options, kind):
                continue
            plain = [getattr(times, kind) for times in found[store, PLAIN]]
            found_ratios = [
                statistics.median(getattr(t, kind) / p for t, p in zip(found[store, column], plain, strict=True))
                for column in options.trackers
            ]
            rows.append((store, title, f"{statistics.median(plain):.2f}", *(f"{ratio:.3f}" for ratio in found_ratios)))
    return f"{table(rows)}\nMedians of {options.rounds} rounds: time under the composite URI / plain time."


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5_000, help="calls of mlflow.log_metric (default: 5000)")
    parser.add_argument("--batches", type=int, default=200, help="calls of log_batch, 1000 metrics each (default: 200)")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each column (default: 2)")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--trackers", nargs="+", choices=TRACKERS, default=list(TRACKERS))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print the table."""
    options = parsed()
    if options.worker:
        work(options.calls, options.batches)
        return
    with tempfile.TemporaryDirectory(prefix="mlflow-overhead-") as name:
        print(ratios(options, run(options, Path(name))))


if __name__ == "__main__":
    main()
