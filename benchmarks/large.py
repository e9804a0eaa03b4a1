"""Runs that are large in themselves, for the benchmark of pages: one of many metrics, and one with many in it."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from queries import KEYS, POINTS, START, START_MS, Data, insert_rows, params_of, point_of, row_of, sums
from sqlalchemy import create_engine, insert

from dbnd_tracker._storage.database import open_database
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries, Param, Run, TaskRelation, TaskRun
from dbnd_tracker._storage.writer import Writer

METRICS, NESTED = 200, 300
WIDE, SWEEP = "wide", "sweep"
# Before all others, so that the first page of the table stays as it is.
_START = START - timedelta(days=1)
_START_MS = START_MS - 86_400_000


def wide_key(number: int) -> str:
    """The key of a metric of the run that has many."""
    return f"group_{number // 20}/metric_{number}"


def nested_uid(number: int) -> str:
    """The uid of a run that is nested."""
    return str(uuid.UUID(int=10**9 + number, version=4))


def _runs(data: Data) -> tuple[str, str]:
    return data.uid(data.runs), data.uid(data.runs + 1)


def _histories(data: Data) -> Iterator[tuple[int, str, int, int, list[float]]]:
    """Of each series: the place of its run, which is 0 for the wide one, its key, the key's number, and its values."""
    for number in range(METRICS):
        yield 0, wide_key(number), number, KEYS + 2 + number, [data.value(1, number, step) for step in range(POINTS)]
    for run in range(NESTED):
        for key in range(KEYS):
            yield 2 + run, f"metric_{key}", key, 1 + key, [data.value(run, key, step) for step in range(POINTS)]


def add_to_tracker(url: str, data: Data) -> None:
    """Add both to a database of ``queries.fill_tracker``."""
    database = open_database(url)
    wide, sweep = _runs(data)
    first = data.runs + 1  # id of the first of the task runs, which are the two roots and those nested
    flags = dict.fromkeys(("is_system", "is_reused", "is_skipped", "is_dynamic"), False)
    ended = {"state": "success", "start_time": _START, "end_time": _START + timedelta(seconds=50)}

    def facts(writer: Writer) -> None:
        runs, tasks, attempts, relations, params = [], [], [], [], []
        for place, (uid, name) in enumerate(((wide, WIDE), (sweep, SWEEP))):
            of_run = {"id": first + place, "uid": uid, "root_run_uid": uid, "job_name": name, "project_name": name}
            runs.append(of_run | {"name": name, "user": "ada", "is_archived": False, "sends_heartbeat": False} | ended)
        own = [(wide, wide, WIDE), (sweep, sweep, SWEEP)]
        own += [(nested_uid(number), sweep, f"trial_{number}") for number in range(NESTED)]
        for place, (uid, run_uid, name) in enumerate(own):
            ids = {"id": first + place, "uid": uid}
            tasks.append(ids | {"run_uid": run_uid, "name": name, "task_id": name, "is_root": place < 2} | flags)
            attempts.append(ids | {"task_run_uid": uid, "run_id": first + min(place, 1), "number": 1} | ended)
            if place >= 2:
                relations.append({"kind": "child", "from_uid": sweep, "to_uid": uid})
                named = {"attempt_id": first + place, "source": "mlflow.param"}
                params += [named | {"name": name, "value": value} for name, value in params_of(place)]
        rows = (Run, runs), (TaskRun, tasks), (Attempt, attempts), (TaskRelation, relations), (Param, params)
        for table, each in rows:
            writer.session.execute(insert(table), each)
        keys = [{"id": KEYS + 2 + number, "name": wide_key(number)} for number in range(METRICS)]
        writer.session.execute(insert(MetricKey), keys)
        series = 2 + data.runs * KEYS
        numbered = [*enumerate(_histories(data), start=series)]
        writer.session.execute(
            insert(MetricSeries),
            [sums(id_, first + place, key, values) for id_, (place, _, _, key, values) in numbered],
        )
        points = [row_of(id_, step, value) for id_, (*_, values) in numbered for step, value in enumerate(values)]
        insert_rows(writer.session.connection(), "metrics", points)

    database.write(facts)
    database.close()


def add_to_mlflow(url: str, server: str, data: Data) -> str:
    """Add both to a database of ``queries.fill_mlflow``; the id of the experiment that has the nested runs."""
    body = json.dumps({"name": SWEEP}).encode()
    asked = urllib.request.Request(
        f"{server}/api/2.0/mlflow/experiments/create", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as answer:
        experiment = str(json.load(answer)["experiment_id"])
    wide, sweep = _runs(data)
    ids = [uid.replace("-", "") for uid in (wide, sweep, *map(nested_uid, range(NESTED)))]
    names = [WIDE, SWEEP, *(f"trial_{number}" for number in range(NESTED))]
    runs: list[dict[str, Any]] = []
    tags: list[dict[str, Any]] = []
    for place, (run_id, name) in enumerate(zip(ids, names, strict=True)):
        times = {"start_time": _START_MS, "end_time": _START_MS + 50_000}
        run = {"run_uuid": run_id, "name": name, "source_type": "LOCAL", "source_name": "train.py", "user_id": "ada"}
        run |= {"status": "FINISHED", "lifecycle_stage": "active", "artifact_uri": f"mlflow-artifacts:/1/{run_id}"}
        runs.append(run | times | {"experiment_id": int(experiment) if place else 0})
        # None is nested: no address unfolds them in MLflow's page, and folded it draws nothing.
        tags.append({"key": "mlflow.runName", "value": name, "run_uuid": run_id})
    histories = [*_histories(data)]
    latest = [point_of(key, values[-1], POINTS - 1, ids[place]) for place, key, _, _, values in histories]
    points = [
        point_of(key, value, step, ids[place])
        for place, key, _, _, values in histories
        for step, value in enumerate(values)
    ]
    params = [
        {"key": key, "value": value, "run_uuid": ids[place]}
        for place in range(2, len(ids))
        for key, value in params_of(place)
    ]
    engine = create_engine(url)
    with engine.begin() as connection:
        for table, rows in (
            ("runs", runs),
            ("tags", tags),
            ("params", params),
            ("latest_metrics", latest),
            ("metrics", points),
        ):
            insert_rows(connection, table, rows)
    engine.dispose()
    return experiment
