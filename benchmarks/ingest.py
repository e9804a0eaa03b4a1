"""How fast points are taken: the tracker, MLflow's server, and the bare database, side by side.

Each client sends batches of 1,000 points (10 metrics of a run, 100 steps of each) one after the other over a
connection that it keeps, and the next when the last is answered. MLflow's server takes the same points by
``runs/log-batch``. The limit is what one connection inserts into the tracker's own table of points, prepared rows in
transactions of as many points: ``executemany`` on SQLite, ``COPY`` on PostgreSQL. The rounds of all of them are
interleaved; of each the median counts. What is stored is counted at the end.

What a request costs beside its points is seen by calls of one point each, and what is checked before and while points
are taken (who asks, how much it is, what is there already) by the same calls with and without these checks, within one
process.

    python benchmarks/ingest.py --scale 0.1

With ``--stored``, so many points are stored before, those beyond ten million in segments, and what a batch takes is
measured beside the same in an empty database, and nothing else.

    python benchmarks/ingest.py --stored 100000000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gzip
import http.client
import json
import math
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import storage
from fastapi import FastAPI
from harness import mlflow, packages_of, postgresql, tracker
from pydantic import SecretStr
from starlette.types import Message

from dbnd._model.points import group, point, wire_text
from dbnd_tracker._ingest import apply_points, apply_raw
from dbnd_tracker._ingest.limits import check_json
from dbnd_tracker._middleware.bodies import gunzip
from dbnd_tracker._server.app import create_app
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.database import Database, open_database
from dbnd_tracker._storage.points.insertion import insert_points

KEYS, STEPS = 10, 100
POINTS = KEYS * STEPS
CLIENTS = (1, 4, 16)
STORED = 10_000_000
# Points of each series that is stored in segments.
SEALED = 1_000_000
ATTEMPTS = 20
_START_MS = 1_764_000_000_000


@dataclass(frozen=True)
class Request:
    """One batch as it goes over the wire."""

    path: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Measured:
    """One round: its points per second, and the milliseconds within which 99 of 100 batches were taken.

    ``refused`` is how often a server answered that it could not take a batch, which was then sent again.
    """

    rate: float
    p99: float
    refused: int = 0


def values(number: int) -> Iterator[tuple[str, float, int, int]]:
    """Key, value, time in ms and step of the points of a client's batch ``number``."""
    dice = random.Random(number)
    for key in range(KEYS):
        for step in range(number * STEPS, (number + 1) * STEPS):
            yield f"metric_{key}", dice.random(), _START_MS + step, step


def groups(number: int, attempt: str) -> list[Any]:
    """The points in the form that the tracker's client keeps them in."""
    return [group(attempt, "mlflow", (point(key, value, 1000 * ms, step) for key, value, ms, step in values(number)))]


def wire_request(number: int, attempt: str) -> Request:
    """The protocol's form, which every client of a Databand server sends, zipped as they do."""
    body = gzip.compress(wire_text(groups(number, attempt)).encode(), compresslevel=1)
    return Request("/api/v1/tracking/log_metrics", body, {"Content-Encoding": "gzip"})


def compact_request(number: int, attempt: str) -> Request:
    """The form that our own client sends to our own tracker, with the number of the batch."""
    body = gzip.compress(json.dumps({"points": groups(number, attempt)}).encode(), compresslevel=1)
    batch = f"{attempt.replace('-', '')}:{number + 1}-{number + 1}"
    headers = {"Content-Encoding": "gzip", "X-Databand-Points": "1", "X-Databand-Batch": batch}
    return Request("/api/v1/tracking/log_metrics", body, headers)


def small_request(number: int, attempt: str) -> Request:
    """A call of one point, by which it is seen what comes before the points of every call."""
    body = wire_text([group(attempt, "mlflow", [point("loss", number / 7, 1000 * _START_MS, number)])]).encode()
    return Request("/api/v1/tracking/log_metrics", gzip.compress(body, compresslevel=1), {"Content-Encoding": "gzip"})


def mlflow_request(number: int, run: str) -> Request:
    """MLflow's own form, as its client sends it."""
    points = [{"key": k, "value": v, "timestamp": ms, "step": step} for k, v, ms, step in values(number)]
    return Request("/api/2.0/mlflow/runs/log-batch", json.dumps({"run_id": run, "metrics": points}).encode(), {})


def send(url: str, batches: list[list[Request]]) -> Measured:
    """Send the batches of each client, all clients at once, and measure."""
    latencies: list[float] = []
    refused: list[int] = []
    failed: list[BaseException] = []
    barrier = threading.Barrier(len(batches) + 1)

    def client(requests: list[Request]) -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)
        try:
            connection.connect()
            barrier.wait()
            for request in requests:
                started = time.perf_counter()
                refused.append(_deliver(connection, request))
                latencies.append(time.perf_counter() - started)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)
            barrier.abort()
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(requests,)) for requests in batches]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    if failed:
        raise failed[0]
    latencies.sort()
    p99 = latencies[math.ceil(0.99 * len(latencies)) - 1]
    return Measured(POINTS * len(latencies) / took, 1000 * p99, sum(refused))


def _deliver(connection: http.client.HTTPConnection, request: Request) -> int:
    """Send a batch until it is taken, as a client must; returns how often it was refused."""
    reason = ""
    for refusals in range(ATTEMPTS):
        headers = {"Content-Type": "application/json", **request.headers}
        try:
            connection.request("POST", request.path, request.body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (http.client.HTTPException, ConnectionError) as error:
            reason = repr(error)
            connection.close()  # the next request opens it again
            continue
        if answer.status == http.client.OK:
            return refusals
        reason = f"{answer.status}: {content[:300]!r}"
    raise RuntimeError(f"{request.path} did not take a batch: {reason}")


class Target:
    """A server, and what was sent to it: ``batches`` in each round, by all clients together.

    ``begin`` makes a run, and ``make`` a client's request of a batch's number and the id of the client's run.
    """

    def __init__(self, url: str, make: Callable[[int, str], Request], begin: Callable[[], str], batches: int) -> None:
        self._url = url
        self._make = make
        self._begin = begin
        self._batches = batches
        self.sent = 0

    def measure(self, clients: int) -> Measured:
        """One round with new runs, after a batch of each client that is not measured."""
        each = max(2, self._batches // clients)
        runs = [self._begin(self._url) for _ in range(clients)]
        batches = [[self._make(number, run) for number in range(each + 1)] for run in runs]
        send(self._url, [requests[:1] for requests in batches])
        measured = send(self._url, [requests[1:] for requests in batches])
        self.sent += POINTS * clients * (each + 1)
        return measured


def post(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to one call."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status != http.client.OK:
        sys.exit(f"{path} answered {answer.status}: {content[:300]!r}")
    answered: dict[str, Any] = json.loads(content)
    return answered


def begin_attempt(url: str) -> str:
    """A new attempt: the tracker takes points of one that it has not heard of."""
    del url
    return str(uuid.uuid4())


def begin_mlflow_run(url: str) -> str:
    """A new run of MLflow's."""
    body = {"experiment_id": "0", "start_time": _START_MS}
    return str(post(url, "/api/2.0/mlflow/runs/create", body)["run"]["info"]["run_id"])


def limit(url: str, batches: int) -> Measured:
    """What one connection inserts into a table of points of its own database."""
    open_database(url).close()
    columns = "series_id, number, step, timestamp_us, value, kind, text"
    rows = [
        [
            (1 + place // STEPS, 1 + step, step, 1000 * ms, value, 0, None)
            for place, (_, value, ms, step) in enumerate(values(number))
        ]
        for number in range(batches)
    ]
    latencies = []
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("PRAGMA synchronous = NORMAL")
        for batch in rows:
            started = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(f"INSERT INTO metrics ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", batch)
            connection.execute("COMMIT")
            latencies.append(time.perf_counter() - started)
        connection.close()
    else:
        import psycopg

        texts = [
            "".join("\t".join(r"\N" if part is None else str(part) for part in row) + "\n" for row in batch).encode()
            for batch in rows
        ]
        with psycopg.connect(url) as driver:
            for data in texts:
                started = time.perf_counter()
                with driver.cursor() as cursor, cursor.copy(f"COPY metrics ({columns}) FROM STDIN") as copy:
                    copy.write(data)
                driver.commit()
                latencies.append(time.perf_counter() - started)
    return Measured(POINTS * batches / sum(latencies), 1000 * sorted(latencies)[math.ceil(0.99 * batches) - 1])


def fill(url: str, points: int) -> None:
    """Store points quickly: ``STORED`` at most as rows of short series, and others as segments of long ones."""
    database = open_database(url)
    losses, at = storage.curves(SEALED)["float32 losses"], storage.times(SEALED)
    for number in range((points - STORED) // SEALED):
        database.write(functools.partial(storage.write_segments, 2_000_000 + number, 0, losses, at))
    per_series = 1_000
    for first in range(0, min(points, STORED) // per_series, 100):
        rows = (
            (1_000_000 + series, 1 + step, step, 1_000 * (_START_MS + step), step / 7, 0, None)
            for series in range(first, first + 100)
            for step in range(per_series)
        )
        columns = tuple(zip(*rows, strict=True))
        database.write(lambda writer, columns=columns: insert_points(writer.session.connection(), columns))
    database.close()


def stored(url: str) -> int:
    """How many points the tracker's sums count, which must be as many as there are rows and sealed ones."""
    from sqlalchemy import text

    database = open_database(url)
    with database.read() as session:
        total = session.scalar(text("SELECT coalesce(sum(points), 0) FROM metric_series"))
        rows = session.scalar(text("SELECT count(*) FROM metrics WHERE series_id < 1000000"))
        rows += session.scalar(text("SELECT coalesce(sum(points), 0) FROM segments"))
    database.close()
    if total != rows:
        sys.exit(f"{url} sums up {total} points and has {rows}.")
    return int(total)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full number of batches and stored points")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--clients", default=",".join(map(str, CLIENTS)))
    parser.add_argument("--beside", metavar="REVISION", help="an older revision, which takes the same points, alone")
    parser.add_argument("--stored", type=int, help="points that are stored before, beside none, in place of all else")
    options = parser.parse_args()
    clients = [int(number) for number in options.clients.split(",")]
    with (
        tempfile.TemporaryDirectory(prefix="ingest-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        create: Callable[[], str]
        for kind in options.databases.split(","):
            if kind == "sqlite":
                create = functools.partial(_sqlite_url, folder)
            else:
                create = stack.enter_context(postgresql(folder / "postgresql")).create
            if options.stored:
                grow(kind, create, folder, options.rounds, options.scale, options.stored)
                continue
            if options.beside:
                older = packages_of(options.beside, folder / f"older-{kind}")
                beside(kind, create, folder, older, clients, options.rounds, options.scale)
                continue
            compare(kind, create, folder, clients, options.rounds, options.scale)
            grow(kind, create, folder, options.rounds, options.scale, max(100_000, int(STORED * options.scale)))
            door(kind, create, folder, options.rounds, options.scale)
            asyncio.run(checks(kind, open_database(create()), options.scale))


def beside(
    kind: str,
    create: Callable[[], str],
    folder: Path,
    older: dict[str, str],
    clients: list[int],
    rounds: int,
    scale: float,
) -> None:
    """Print the tracker's rate and latency as parts of an older revision's, each round beside its own."""
    print(f"\n## {kind}, beside the older revision: {rounds} rounds\n\n| clients | rate | p99 |\n|---|---|---|")
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(tracker(create(), folder, env)) for env in (None, older)]
        now, before = (Target(url, compact_request, begin_attempt, max(16, int(600 * scale))) for url in urls)
        for number in clients:
            pairs = [(now.measure(number), before.measure(number)) for _ in range(rounds)]
            rate = statistics.median(a.rate / b.rate for a, b in pairs)
            p99 = statistics.median(a.p99 / b.p99 for a, b in pairs)
            print(f"| {number} | {rate:.2f} | {p99:.2f} |", flush=True)


def _sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / uuid.uuid4().hex}.db"


def compare(kind: str, create: Callable[[], str], folder: Path, clients: list[int], rounds: int, scale: float) -> None:
    """Print rates and latencies of all on one kind of database."""
    many, few = max(16, int(600 * scale)), max(16, int(64 * scale))
    found: dict[tuple[str, int], list[Measured]] = {}
    with contextlib.ExitStack() as stack:
        mine, one, more = create(), create(), create()
        url = stack.enter_context(tracker(mine, folder))
        url_one = stack.enter_context(mlflow(one, folder, 1))
        url_more = stack.enter_context(mlflow(more, folder, None))
        targets = {
            "tracker, protocol's form": Target(url, wire_request, begin_attempt, many),
            "tracker, own client's form": Target(url, compact_request, begin_attempt, many),
            "mlflow server --workers 1": Target(url_one, mlflow_request, begin_mlflow_run, few),
            "mlflow server (4 workers)": Target(url_more, mlflow_request, begin_mlflow_run, few),
        }
        for number in clients:
            for _ in range(rounds):
                found.setdefault(("limit", number), []).append(limit(create(), many))
                for name, target in targets.items():
                    found.setdefault((name, number), []).append(target.measure(number))
        sent = sum(target.sent for name, target in targets.items() if name.startswith("tracker"))
        if stored(mine) != sent:
            sys.exit(f"{sent} points were sent to the tracker, and {stored(mine)} are stored.")
    print(f"\n## {kind}: {rounds} rounds, {many} batches (MLflow's server {few}) of {POINTS} points\n")
    print("| clients | what | points/s | p99 ms | x MLflow, 1 worker | x MLflow, default | of the limit | refused |")
    print("|---|---|---|---|---|---|---|---|")
    for number in clients:
        rates = {name: statistics.median(m.rate for m in found[name, number]) for name in ("limit", *targets)}
        for name, rate in rates.items():
            p99 = statistics.median(m.p99 for m in found[name, number])
            single, default = list(rates.values())[-2:]
            ratios = f"{rate / single:.1f} | {rate / default:.1f} | {rate / rates['limit']:.2f}"
            refused = sum(m.refused for m in found[name, number])
            print(f"| {number} | {name} | {rate:,.0f} | {p99:,.1f} | {ratios} | {refused} |")
    sys.stdout.flush()


def grow(kind: str, create: Callable[[], str], folder: Path, rounds: int, scale: float, points: int) -> None:
    """Print how much slower ingest is with so many points stored."""
    batches, clients = max(16, int(600 * scale)), 4
    empty, full = create(), create()
    fill(full, points)
    times: dict[str, list[float]] = {}
    with tracker(empty, folder) as first, tracker(full, folder) as second:
        urls = {"empty": first, "full": second}
        for turn in range(rounds):
            for name in ("empty", "full") if turn % 2 else ("full", "empty"):
                measured = Target(urls[name], wire_request, begin_attempt, batches).measure(clients)
                times.setdefault(name, []).append(1 / measured.rate)
    ratio = statistics.median(times["full"]) / statistics.median(times["empty"])
    print(f"\n{kind}: with {points:,} points stored, a batch takes {ratio:.2f} of its time in an empty database.")
    sys.stdout.flush()


def door(kind: str, create: Callable[[], str], folder: Path, rounds: int, scale: float) -> None:
    """Print how many calls of one point are taken."""
    calls, clients = max(64, int(2000 * scale)), 4
    with tracker(create(), folder) as url:
        rates = []
        for _ in range(rounds + 1):  # the first one is not counted
            attempts = [begin_attempt(url) for _ in range(clients)]
            batches = [[small_request(number, attempt) for number in range(calls // clients)] for attempt in attempts]
            rates.append(send(url, batches).rate / POINTS)
    print(f"\n{kind}: {clients} clients make {statistics.median(rates[1:]):,.0f} calls of one point in a second.")
    sys.stdout.flush()


async def checks(kind: str, database: Database, scale: float) -> None:
    """Print what the checks cost: medians of calls that are made in turns, in one process."""
    token = "benchmark-" * 4
    free, guarded = create_app(database), create_app(database, TrackerSettings(token=SecretStr(token)))

    async def apply(request: Request) -> None:
        apply_raw(database, "log_metrics", gzip.decompress(request.body))

    ways: dict[str, Callable[[Request], Awaitable[None]]] = {
        "applied alone": apply,
        "through the door": functools.partial(_ask, free, {}),
        "with a token": functools.partial(_ask, guarded, {"Authorization": f"Bearer {token}"}),
    }
    print(f"\n{kind}, ms of a call | {' | '.join(ways)}\n---|{'---|' * len(ways)}")
    for what, make in {"1 point": small_request, f"{POINTS:,} points": wire_request}.items():
        attempts = {way: str(uuid.uuid4()) for way in ways}
        times: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(max(10, int(300 * scale))):
            for way, call in ways.items():
                request = make(number, attempts[way])
                started = time.perf_counter()
                await call(request)
                times[way].append(1000 * (time.perf_counter() - started))
        print(f"{what} | {' | '.join(f'{statistics.median(found[2:]):.2f}' for found in times.values())}")
    many = json.dumps({"metrics_info": [0] * 900_000, "text": "x" * 10_000_000}).encode()
    packed = gzip.compress(many, compresslevel=1)
    print(
        f"unpacking {len(many) / 1e6:.0f} MB: {_ms(lambda: gunzip(packed, len(many))):.0f} ms, "
        f"by gzip alone {_ms(lambda: gzip.decompress(packed)):.0f} ms; "
        f"counting their values: {_ms(lambda: check_json(many)):.0f} ms"
    )
    print(f"{kind}: a batch of {POINTS:,} points of one metric takes " + ", ".join(_repeats(database, scale)))
    sys.stdout.flush()
    database.close()


async def _ask(app: FastAPI, headers: dict[str, str], request: Request) -> None:
    """One request to the application, without a server."""
    given = {"Host": "localhost", "Content-Length": str(len(request.body)), **request.headers, **headers}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": request.path,
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
    }
    body: list[Message] = [{"type": "http.request", "body": request.body}]
    answer: list[Message] = []

    async def receive() -> Message:
        return body.pop() if body else await asyncio.Future()

    async def send(message: Message) -> None:
        answer.append(message)

    await app(scope, receive, send)
    if answer[0]["status"] != http.client.OK:
        sys.exit(f"{request.path} answered {answer}")


def _repeats(database: Database, scale: float) -> Iterator[str]:
    """How long points take in different orders; those of MLflow are kept once."""
    number = POINTS * max(10, int(300 * scale))
    ordered = range(number)
    shuffled = random.Random(1).sample(ordered, number)
    attempt = str(uuid.uuid4())
    for what, uid, steps in (
        ("in order", attempt, ordered),
        ("again", attempt, ordered),
        ("in any order", "", shuffled),
    ):
        times = []
        owner = uid or str(uuid.uuid4())
        for first in range(0, number, POINTS):
            some = (point("loss", step / 7, 1000 * (_START_MS + step), None) for step in steps[first : first + POINTS])
            groups = [group(owner, "mlflow", some)]
            times.append(_ms(lambda groups=groups: apply_points(database, groups), 1))
        third = len(times) // 3
        early, late = statistics.median(times[:third]), statistics.median(times[-third:])
        yield f"{what} {early:.1f} ms at first and {late:.1f} ms at last"


def _ms(work: Callable[[], object], times: int = 3) -> float:
    """Milliseconds that ``work`` takes, the median of some times."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


if __name__ == "__main__":
    main()
