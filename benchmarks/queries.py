"""How fast stored runs are read: the tracker beside MLflow's server, over the same runs, params and points.

10,000 runs have 10 metrics of 90 points each, and one of them a metric of a million points more. The databases are
filled by bulk SQL; what is measured are answers over HTTP, in turn, of which the median counts. The first answers, from
what nobody has read before, stand beside it.

    python benchmarks/queries.py --scale 0.05
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from harness import mlflow, postgresql, seal, tracker
from sqlalchemy import Connection, create_engine, insert, make_url, text

from dbnd_tracker._storage.database import open_database
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries, Param, Run, TaskRun
from dbnd_tracker._storage.writer import Writer

RUNS, KEYS, POINTS, LONG = 10_000, 10, 90, 1_000_000
JOBS = 20
SAMPLES = 1_000
PAGE = 100
LONG_KEY = "long"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
START_MS = int(START.timestamp() * 1000)
# Rows of one statement or one COPY.
CHUNK = 100_000


@dataclass(frozen=True)
class Data:
    """What both databases hold: some runs, and ``long`` points of the long metric of the last one."""

    runs: int
    long: int

    def uid(self, run: int) -> str:
        """The uid of a run."""
        return str(uuid.UUID(int=run + 1, version=4))

    def value(self, run: int, key: int, step: int) -> float:
        """The value of a point."""
        return (run * 31 + key * 7 + step) % 9973 / 9973

    def long_values(self) -> list[float]:
        """The values of the long metric: a curve with noise."""
        dice = random.Random(5)
        return [1 / (1 + step / 5_000) + dice.random() / 10 for step in range(self.long)]


def fill_tracker(url: str, data: Data) -> None:
    """Fill the tracker's database."""
    database = open_database(url)

    def facts(writer: Writer) -> None:
        session = writer.session
        runs, tasks, attempts, params = [], [], [], []
        for run in range(data.runs):
            uid = data.uid(run)
            start = START + timedelta(minutes=run)
            job = f"job_{run % JOBS}"
            ids = {"id": run + 1, "uid": uid}
            runs.append(
                ids
                | {"root_run_uid": uid, "job_name": job, "project_name": "bench", "name": f"run_{run}", "user": "ada"}
                | {"state": "success", "start_time": start, "end_time": start + timedelta(seconds=50)}
                | {"is_archived": False, "sends_heartbeat": False, "environment": {"cmd_line": "python train.py"}}
            )
            flags = dict.fromkeys(("is_system", "is_reused", "is_skipped", "is_dynamic"), False)
            tasks.append(ids | {"run_uid": uid, "name": job, "task_id": job, "is_root": True} | flags)
            attempts.append(
                ids | {"task_run_uid": uid, "run_id": run + 1, "number": 1, "state": "success", "start_time": start}
            )
            for name, value in params_of(run):
                params.append({"attempt_id": run + 1, "source": "mlflow.param", "name": name, "value": value})
        for table, rows in ((Run, runs), (TaskRun, tasks), (Attempt, attempts), (Param, params)):
            session.execute(insert(table), rows)
        keys = [f"metric_{key}" for key in range(KEYS)] + [LONG_KEY]
        session.execute(insert(MetricKey), [{"id": place, "name": name} for place, name in enumerate(keys, start=1)])
        session.execute(insert(MetricSeries), list(_series(data)))

    database.write(facts)
    rows = iter(_tracker_points(data))
    while part := list(itertools.islice(rows, CHUNK)):
        database.write(lambda writer, part=part: insert_rows(writer.session.connection(), "metrics", part))
    with database.read() as session:
        analyze(session.connection())
        session.commit()
    database.close()


def params_of(run: int) -> list[tuple[str, str]]:
    """Names and values of a run's params."""
    return [("lr", str(0.001 * (1 + run % 50))), ("depth", str(run % 12)), ("model", "forest")]


def _series(data: Data) -> Iterator[dict[str, Any]]:
    for run in range(data.runs):
        for key in range(KEYS):
            values = [data.value(run, key, step) for step in range(POINTS)]
            yield sums(1 + run * KEYS + key, run + 1, 1 + key, values)
    yield sums(1 + data.runs * KEYS, data.runs, 1 + KEYS, data.long_values())


def sums(series: int, attempt: int, key: int, values: list[float]) -> dict[str, Any]:
    """The tracker's row of a series."""
    last = len(values) - 1
    return {
        "id": series,
        "attempt_id": attempt,
        "key_id": key,
        "source": "mlflow",
        "points": len(values),
        "last_timestamp_us": 1000 * (START_MS + last),
        "last_step": last,
        "last_kind": 0,
        "last_value": values[last],
        "min_value": min(values),
        "max_value": max(values),
        "only_ints": False,
    }


def _tracker_points(data: Data) -> Iterable[dict[str, Any]]:
    for run in range(data.runs):
        for key in range(KEYS):
            for step in range(POINTS):
                yield row_of(1 + run * KEYS + key, step, data.value(run, key, step))
    for step, value in enumerate(data.long_values()):
        yield row_of(1 + data.runs * KEYS, step, value)


def row_of(series: int, step: int, value: float) -> dict[str, Any]:
    """The tracker's row of a point."""
    time_us = 1000 * (START_MS + step)
    number = {"series_id": series, "number": step + 1}
    return {**number, "step": step, "timestamp_us": time_us, "value": value, "kind": 0}


def fill_mlflow(url: str, data: Data) -> None:
    """Fill the database of an MLflow server that has made its tables."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(parsed)
    with engine.begin() as connection:
        runs = [
            {
                "run_uuid": data.uid(run).replace("-", ""),
                "name": f"run_{run}",
                "source_type": "LOCAL",
                "source_name": "train.py",
                "user_id": "ada",
                "status": "FINISHED",
                "start_time": START_MS + 60_000 * run,
                "end_time": START_MS + 60_000 * run + 50_000,
                "lifecycle_stage": "active",
                "artifact_uri": f"mlflow-artifacts:/0/{run}",
                "experiment_id": 0,
            }
            for run in range(data.runs)
        ]
        insert_rows(connection, "runs", runs)
        uids = [run["run_uuid"] for run in runs]
        params = [{"key": k, "value": v, "run_uuid": uid} for run, uid in enumerate(uids) for k, v in params_of(run)]
        insert_rows(connection, "params", params)
        tags = [
            {"key": key, "value": value, "run_uuid": uid}
            for run, uid in enumerate(uids)
            for key, value in (("mlflow.runName", f"run_{run}"), ("mlflow.user", "ada"), ("job", f"job_{run % JOBS}"))
        ]
        insert_rows(connection, "tags", tags)
        last = POINTS - 1
        latest = [
            point_of(f"metric_{key}", data.value(run, key, last), last, uid)
            for run, uid in enumerate(uids)
            for key in range(KEYS)
        ]
        insert_rows(
            connection, "latest_metrics", [*latest, point_of(LONG_KEY, data.long_values()[-1], data.long - 1, uids[-1])]
        )
    # In the order of the table's key, and with its other index made at the end: what filling costs is not measured.
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX index_metrics_run_uuid"))
        rows = iter(_mlflow_points(data, uids))
        while part := list(itertools.islice(rows, CHUNK)):
            insert_rows(connection, "metrics", part)
        connection.execute(text("CREATE INDEX index_metrics_run_uuid ON metrics (run_uuid)"))
        analyze(connection)
    engine.dispose()


def _mlflow_points(data: Data, uids: list[str]) -> Iterator[dict[str, Any]]:
    for step, value in enumerate(data.long_values()):
        yield point_of(LONG_KEY, value, step, uids[-1])
    for key in range(KEYS):
        for step in range(POINTS):
            for run, uid in enumerate(uids):
                yield point_of(f"metric_{key}", data.value(run, key, step), step, uid)


def point_of(key: str, value: float, step: int, uid: str) -> dict[str, Any]:
    """MLflow's row of a point."""
    point = {"key": key, "value": value, "timestamp": START_MS + step, "step": step, "is_nan": False}
    return {**point, "run_uuid": uid}


def analyze(connection: Connection) -> None:
    """Count the rows for the planner, as PostgreSQL does by itself; of an SQLite file nobody does it."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("ANALYZE"))


def insert_rows(connection: Connection, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert rows of the same columns."""
    names = ", ".join(rows[0])
    driver: Any = connection.connection.dbapi_connection
    values = (tuple(row.values()) for row in rows)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("SELECT 1")
        driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' for _ in rows[0])})", values)
        return
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
        for row in values:
            copy.write_row(row)


@dataclass(frozen=True)
class Question:
    """A request, and what counts in its answer that which is asked for."""

    method: str
    path: str
    body: Any
    count: Callable[[Any], int]


class Asker:
    """Asks one server over a connection that it keeps."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=600)

    def ask(self, question: Question, wanted: int) -> float:
        """Ask, check the count, and return the seconds until the answer was there."""
        body = None if question.body is None else json.dumps(question.body)
        started = time.perf_counter()
        self._connection.request(question.method, question.path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        took = time.perf_counter() - started
        if answer.status != http.client.OK:
            sys.exit(f"{question.path} answered {answer.status}: {content[:300]!r}")
        found = question.count(json.loads(content))
        if found != wanted:
            sys.exit(f"{question.path} found {found} and not {wanted}.")
        return took


def questions(data: Data) -> dict[str, tuple[Question, Question, int]]:
    """By name, what the tracker and MLflow's server are asked, and how many things both must answer."""
    last, middle = data.uid(data.runs - 1), data.uid(data.runs // 2)
    last_id, middle_id = last.replace("-", ""), middle.replace("-", "")
    search, bulk = "/api/2.0/mlflow/runs/search", "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
    page = {"experiment_ids": ["0"], "max_results": PAGE, "order_by": ["attributes.start_time DESC"]}

    def runs(answer: Any) -> int:
        return len(answer.get("runs", []))  # MLflow leaves out what is empty

    def entries(answer: Any) -> int:
        return len(answer["data"])

    def metrics(answer: Any) -> int:
        return len(answer["metrics"])

    def mine(path: str, **query: Any) -> Question:
        return Question("GET", f"/api/v1/{path}?{urlencode(query)}", None, entries)

    def its(**more: str) -> Question:
        return Question("POST", search, {**page, **more}, runs)

    above = [{"name": "metrics.metric_3", "op": "gt", "val": "0.5"}, {"name": "params.depth", "op": "eq", "val": "7"}]
    history = "task-runs/{}/metrics/history"
    matching = sum(1 for run in range(data.runs) if data.value(run, 3, POINTS - 1) > 0.5 and run % 12 == 7)
    return {
        "list of the newest 100 runs": (mine("runs", limit=PAGE), its(), min(PAGE, data.runs)),
        "100 runs by a metric and a param": (
            mine("runs", limit=PAGE, filter=json.dumps(above)),
            its(filter="metrics.metric_3 > 0.5 AND params.depth = '7'"),
            min(PAGE, matching),
        ),
        "one run": (
            Question("GET", f"/api/v1/runs/{middle}", None, lambda run: len(run["task_runs"][0]["metrics"])),
            Question(
                "GET",
                f"/api/2.0/mlflow/runs/get?run_id={middle_id}",
                None,
                lambda one: len(one["run"]["data"]["metrics"]),
            ),
            KEYS,
        ),
        f"a history of {POINTS} points": (
            mine(history.format(middle), key="metric_3", samples=SAMPLES),
            Question(
                "GET", f"/api/2.0/mlflow/metrics/get-history?run_id={middle_id}&metric_key=metric_3", None, metrics
            ),
            POINTS,
        ),
        f"a history of {data.long:,} points, down-sampled to {SAMPLES:,}": (
            mine(history.format(last), key=LONG_KEY, samples=SAMPLES),
            Question(
                "GET",
                f"{bulk}?{urlencode({'run_ids': last_id, 'metric_key': LONG_KEY, 'max_results': SAMPLES})}",
                None,
                metrics,
            ),
            SAMPLES,
        ),
    }


def compare(kind: str, tracker_url: str, mlflow_url: str, data: Data, rounds: int) -> None:
    """Print the times of both servers."""
    mine, its = Asker(tracker_url), Asker(mlflow_url)
    print(f"\n## {kind}: {data.runs:,} runs, {data.runs * KEYS * POINTS + data.long:,} points\n")
    print("| what | tracker ms | mlflow server --workers 1 ms | ratio | ratio of the first answers |")
    print("|---|---|---|---|---|")
    for name, (first, second, wanted) in questions(data).items():
        times = [(mine.ask(first, wanted), its.ask(second, wanted)) for _ in range(rounds + 1)]
        a, b = (1000 * statistics.median(part) for part in zip(*times[1:], strict=True))
        print(f"| {name} | {a:,.1f} | {b:,.1f} | {a / b:.3f} | {times[0][0] / times[0][1]:.3f} |")
        sys.stdout.flush()


def main() -> None:
    """Fill, ask and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full number of runs and points")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--databases", default="sqlite,postgresql")
    options = parser.parse_args()
    data = Data(max(JOBS, int(RUNS * options.scale)), max(2 * SAMPLES, int(LONG * options.scale)))
    with (
        tempfile.TemporaryDirectory(prefix="queries-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        for kind in options.databases.split(","):
            if kind == "sqlite":
                mine, its = (f"sqlite:///{folder / quote(file)}" for file in ("tracker.db", "mlflow.db"))
            else:
                cluster = stack.enter_context(postgresql(folder / "postgresql"))
                mine, its = cluster.create(), cluster.create()
            with mlflow(its, folder, 1) as mlflow_url:
                started = time.perf_counter()
                fill_tracker(mine, data)
                seal(mine)
                fill_mlflow(its, data)
                print(f"\n{kind}: filled in {time.perf_counter() - started:.0f} s", file=sys.stderr)
                with tracker(mine, folder) as tracker_url:
                    compare(kind, tracker_url, mlflow_url, data, options.rounds)


if __name__ == "__main__":
    main()
