"""Points that were archived are the points that were logged, for the tracker and for others who read Parquet."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from kit.payloads import Tracker
from sqlalchemy import event, func, select

from dbnd._tracking.contracts import Batch, UnreachableError
from dbnd_tracker._embedded import EmbeddedTransport
from dbnd_tracker._errors import StorageError
from dbnd_tracker._queries.points.arrays import SeriesCache
from dbnd_tracker._queries.points.metrics import find_series
from dbnd_tracker._queries.points.series import chart_sample
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.database import open_database
from dbnd_tracker._storage.points.models import Segment
from dbnd_tracker._storage.upkeep import archiving
from dbnd_tracker._storage.upkeep.archiving import archive_run
from dbnd_tracker._storage.upkeep.deletion import delete_wholly
from dbnd_tracker._storage.upkeep.sealing import seal_all

pq = pytest.importorskip("pyarrow.parquet")

VALUES = [0.5, math.nan, 3, 2**60 + 1, "text", math.inf, True, None, [1, "é"], *(i / 7 for i in range(30))]
ENDED = "2026-03-05T05:06:07+00:00"


@pytest.fixture
def archived(database_url: str, tmp_path: Path) -> Any:
    """A tracker with an archive, on each database."""
    database = open_database(database_url, TrackerSettings(archive=tmp_path / "archive"))
    yield Tracker(database)
    database.close()


def _logged(tracker: Tracker, make_run: Any) -> tuple[Any, Any]:
    run = make_run(job="nightly")
    task = run.task()
    tracker.call("init_run", run.init(start_time="2026-03-04T05:06:07+00:00"))
    tracker.call("add_task_runs", run.add(task))
    points = [task.metric("m", value_json=value, step=None if i == 2 else i) for i, value in enumerate(VALUES)]
    tracker.call("log_metrics", task.metrics(*points))
    tracker.call("log_metrics", task.floats("other", 20))
    tracker.call("log_metrics", task.floats("few", 1))
    tracker.call("set_run_state", run.state("SUCCESS", ENDED))
    seal_all(tracker.database)
    return run, task


def _archive(tracker: Tracker, run: Any) -> int:
    assert tracker.database.archive
    return archive_run(tracker.database, tracker.database.archive, run.uid, lambda *_: json.dumps({"name": run.name}))


def _file(tracker: Tracker, run: Any) -> Path:
    assert tracker.database.archive
    return tracker.database.archive / "month=2026-03" / f"{run.uid}.parquet"


def _bytes(tracker: Tracker) -> int:
    with tracker.database.read() as session:
        return int(session.scalar(select(func.sum(func.length(Segment.data)))) or 0)


def _everything(tracker: Tracker, task: Any) -> str:
    histories = [tracker.history(task, key) for key in ("m", "other", "few")]
    with tracker.database.read() as session:
        series = find_series(session, task.uid, "m")
        assert series is not None
        charts = [chart_sample(session, SeriesCache(), series, axis=axis, values=4) for axis in ("step", "time")]
    return repr((histories, tracker.history(task, "m", limit=9, after=5), charts))


def test_everything_is_read_from_the_archive_as_it_was(archived: Any, make_run: Any, small_segments: None) -> None:
    run, task = _logged(archived, make_run)
    before = _everything(archived, task)
    assert _archive(archived, run) == len(VALUES) + 20
    assert _bytes(archived) == 0
    assert _everything(archived, task) == before
    assert _archive(archived, run) == 0
    assert [path.name for path in _file(archived, run).parent.iterdir()] == [f"{run.uid}.parquet"]


@pytest.mark.alike
def test_pages_and_exports_show_what_they_showed(
    archived: Any, make_run: Any, small_segments: None, serve: Any
) -> None:
    run, task = _logged(archived, make_run)
    paths = [
        f"/app/jobs/nightly/{run.uid}",
        f"/app/series?task={task.uid}&key=m",
        *(f"/api/v1/runs/{run.uid}/export?format={form}" for form in ("json", "csv")),
    ]

    def shown() -> list[str]:
        answers = [serve(archived.database).get(path) for path in paths]
        assert [answer.status_code for answer in answers] == [200] * len(paths)
        return [answer.text for answer in answers]

    before = shown()
    _archive(archived, run)
    assert shown() == before


def test_what_comes_later_is_archived_with_the_rest(archived: Any, make_run: Any, small_segments: None) -> None:
    run, task = _logged(archived, make_run)
    _archive(archived, run)
    archived.call("log_metrics", task.metrics(*(task.metric("m", value=i, step=i) for i in range(100, 120))))
    assert [point.step for point in archived.history(task, "m")][-21:] == [len(VALUES) - 1, *range(100, 120)]
    archived.call("set_run_state", run.state("SUCCESS", "2026-03-06T05:06:07+00:00"))
    seal_all(archived.database)
    before = _everything(archived, task)
    assert _archive(archived, run) == 20
    assert _bytes(archived) == 0
    assert _everything(archived, task) == before
    assert pq.read_metadata(_file(archived, run)).num_rows == len(VALUES) + 20 + 1 + 20


def test_a_point_that_was_archived_is_known_when_it_comes_again(
    archived: Any, database_url: str, small_segments: None, tmp_path: Path
) -> None:
    run, task = archived.started()
    points = [task.metric("m", "mlflow", value=i % 3, step=i % 7) for i in range(20)]
    archived.call("log_metrics", task.metrics(*points))
    archived.call("set_run_state", run.state("SUCCESS", ENDED))
    seal_all(archived.database)
    assert _archive(archived, run) == 20
    transport = EmbeddedTransport(database_url, TrackerSettings(archive=tmp_path / "archive"))
    transport.send(Batch("log_metrics", task.metrics(*points), "a" * 32, 1, 20))
    transport.close()
    assert len(archived.history(task, "m")) == 20
    transport = EmbeddedTransport(database_url)
    with pytest.raises(UnreachableError, match=r"set tracker\.archive"):  # so that they are sent again
        transport.send(Batch("log_metrics", task.metrics(*points), "b" * 32, 1, 20))
    transport.close()


@pytest.mark.parametrize("place", ["write_archive", "UPDATE segments"])
def test_who_is_killed_in_between_has_lost_nothing(
    archived: Any, make_run: Any, small_segments: None, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    run, task = _logged(archived, make_run)
    before = _everything(archived, task), _bytes(archived)

    def fail(*arguments: Any) -> None:
        if place.startswith("write") or arguments[2].startswith(place):
            raise KeyboardInterrupt

    engine = archived.database._engine
    with monkeypatch.context() as patched:
        if place.startswith("write"):
            patched.setattr(archiving, place, fail)
        else:
            event.listen(engine, "before_cursor_execute", fail)
        with pytest.raises(KeyboardInterrupt):
            _archive(archived, run)
    if place.startswith("UPDATE"):
        event.remove(engine, "before_cursor_execute", fail)
        assert _file(archived, run).exists()
    assert (_everything(archived, task), _bytes(archived)) == before
    folder = _file(archived, run).parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{run.uid}.1.part").touch()  # as of one that is killed with -9
    assert _archive(archived, run) == len(VALUES) + 20
    assert _everything(archived, task) == before[0]
    assert list(folder.iterdir()) == [_file(archived, run)]
    (folder / f".{run.uid}.2.part").touch()
    delete_wholly(archived.database, [run.uid])
    assert not list(folder.iterdir())


def test_points_that_are_sealed_meanwhile_stay(
    archived: Any, make_run: Any, small_segments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, task = _logged(archived, make_run)
    write = archiving.write_archive

    def write_and_log(*given: Any) -> Path:
        path = write(*given)
        archived.call("log_metrics", task.metrics(*(task.metric("m", value=i, step=i) for i in range(100, 120))))
        archived.call("set_run_state", run.state("SUCCESS", "2026-03-06T05:06:07+00:00"))
        seal_all(archived.database)
        return path

    monkeypatch.setattr(archiving, "write_archive", write_and_log)
    assert _archive(archived, run) == len(VALUES) + 20
    assert _bytes(archived) > 0
    assert len(archived.history(task, "m")) == len(VALUES) + 20


def test_of_two_that_archive_a_run_the_one_with_fewer_points_leaves_the_other_one_s(
    archived: Any, make_run: Any, small_segments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, task = _logged(archived, make_run)
    write = archiving.write_archive
    begun = []

    def be_overtaken(*given: Any) -> Any:
        path = write(*given)
        if not begun:
            begun.append(path)
            archived.call("log_metrics", task.metrics(*(task.metric("m", value=i, step=i) for i in range(100, 120))))
            archived.call("set_run_state", run.state("SUCCESS", "2026-03-06T05:06:07+00:00"))
            seal_all(archived.database)
            assert _archive(archived, run) == len(VALUES) + 20 + 20
        return path

    monkeypatch.setattr(archiving, "write_archive", be_overtaken)
    assert _archive(archived, run) == 0
    assert _bytes(archived) == 0
    assert len(archived.history(task, "m")) == len(VALUES) + 20
    assert len(list(_file(archived, run).parent.iterdir())) == 1


def test_the_file_of_a_run_goes_with_it(
    archived: Any, make_run: Any, small_segments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = _logged(archived, make_run)
    _archive(archived, run)
    assert delete_wholly(archived.database, [run.uid]) == 1
    assert not _file(archived, run).exists()

    run, _ = _logged(archived, make_run)
    write = archiving.write_archive

    def write_and_delete(*given: Any) -> Path:
        path = write(*given)
        delete_wholly(archived.database, [run.uid])
        return path

    monkeypatch.setattr(archiving, "write_archive", write_and_delete)
    assert _archive(archived, run) == 0  # it was deleted while its file was written
    assert not _file(archived, run).exists()


def test_only_files_of_known_runs_are_deleted(archived: Any, make_run: Any, small_segments: None) -> None:
    run, task = _logged(archived, make_run)
    _archive(archived, run)
    other_tracker_s = _file(archived, run).with_name(f"{make_run().uid}.parquet")
    other_tracker_s.touch()
    for uid in ("*", "?" * len(run.uid), other_tracker_s.stem):
        assert delete_wholly(archived.database, [uid]) == 0
    assert other_tracker_s.exists()
    assert len(archived.history(task, "m")) == len(VALUES)

    left = _file(archived, run).read_bytes()
    delete_wholly(archived.database, [run.uid])
    _file(archived, run).write_bytes(left)  # as of a process that was killed before it deleted it
    assert delete_wholly(archived.database, [run.uid]) == 0
    assert not _file(archived, run).exists()


def test_a_run_that_becomes_a_part_of_another_one_keeps_its_points(
    archived: Any, make_run: Any, small_segments: None
) -> None:
    trial, sweep = make_run(), make_run()
    trial.root.uid = trial.uid
    tracker_calls = [("init_run", trial.init()), ("log_metrics", trial.root.floats("m", 20))]
    for call, body in (*tracker_calls, ("set_run_state", trial.state("SUCCESS", ENDED)), ("init_run", sweep.init())):
        archived.call(call, body)
    seal_all(archived.database)
    assert _archive(archived, trial) == 20
    of_sweep = trial.root.info(run_uid=sweep.uid)
    archived.call("add_task_runs", {"task_runs_info": sweep.infos(of_sweep, children=((sweep.root, trial.root),))})
    assert len(archived.history(trial.root, "m")) == 20

    archived.call("log_metrics", sweep.root.floats("m", 20))
    archived.call("set_run_state", sweep.state("SUCCESS", ENDED))
    seal_all(archived.database)
    assert _archive(archived, sweep) == 20
    assert [len(archived.history(task, "m")) for task in (trial.root, sweep.root)] == [20, 20]
    delete_wholly(archived.database, [sweep.uid])
    assert not list(archived.database.archive.rglob("*.parquet"))


def test_a_run_stays_while_its_file_would(
    archived: Any, database_url: str, tmp_path: Path, make_run: Any, small_segments: None
) -> None:
    (run, task), (plain, _) = _logged(archived, make_run), _logged(archived, make_run)
    _archive(archived, run)
    for archive, reason in ((None, "set tracker.archive to its folder"), (tmp_path / "away", "away .* is not there")):
        other = Tracker(open_database(database_url, TrackerSettings(archive=archive)))
        with pytest.raises(StorageError, match=f"points of the run {run.uid} are in the archive, .*: .*{reason}"):
            delete_wholly(other.database, [plain.uid, run.uid])
        other.database.close()
    assert len(archived.history(task, "m")) == len(VALUES)
    other = Tracker(open_database(database_url))
    assert delete_wholly(other.database, [plain.uid]) == 1
    other.database.close()


@pytest.mark.alike
def test_what_is_missing_is_said(archived: Any, database_url: str, make_run: Any, small_segments: None) -> None:
    run, task = _logged(archived, make_run)
    _archive(archived, run)
    other = Tracker(open_database(database_url))
    with pytest.raises(StorageError, match=r"run .* are in the archive: set tracker.archive to its folder"):
        other.history(task, "m")
    assert len(other.history(task, "few")) == 1
    other.database.close()
    path = _file(archived, run)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match="cannot be read"):
        archived.history(task, "m")
    path.unlink()
    with pytest.raises(StorageError, match=r"are not in .*archive \(tracker.archive\), where they should be"):
        archived.history(task, "m")


def test_an_export_whose_file_is_cut_off_or_missing_does_not_begin(
    archived: Any, make_run: Any, small_segments: None, serve: Any
) -> None:
    run, _ = _logged(archived, make_run)
    _archive(archived, run)
    path = _file(archived, run)
    path.write_bytes(path.read_bytes()[:-100])

    def refused() -> list[str]:
        client = serve(archived.database)
        answers = [client.get(f"/api/v1/runs/{run.uid}/export?format={form}") for form in ("json", "csv", "parquet")]
        assert [answer.status_code for answer in answers] == [503] * 3
        return [answer.json()["detail"] for answer in answers]

    assert all(f"{path} of the archive cannot be read" in detail for detail in refused())
    path.unlink()
    assert all("(tracker.archive), where they should be" in detail for detail in refused())


@pytest.mark.alike
def test_pyarrow_pandas_and_duckdb_read_the_files(archived: Any, make_run: Any, small_segments: None) -> None:
    run, task = _logged(archived, make_run)
    _archive(archived, run)
    folder = archived.database.archive
    about = json.loads(pq.read_schema(_file(archived, run)).metadata[b"databand.run"])
    assert about == {"name": run.name}
    rows = pq.read_table(folder).to_pylist()
    assert len(rows) == len(VALUES) + 21
    first = rows[0]
    assert first.pop("timestamp") == datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=timezone.utc)
    assert first.pop("series_id") > 0
    assert first == {
        "run_uid": run.uid,
        "run_name": run.name,
        "job_name": "nightly",
        "task_run_uid": task.uid,
        "task": task.name,
        "metric": "m",
        "number": 1,
        "step": 0,
        "value": 0.5,
        "type": "float",
        "text": None,
        "month": "2026-03",
    }
    assert [row["number"] for row in rows if row["metric"] == "m"] == list(range(1, len(VALUES) + 1))
    assert rows[2]["step"] is None
    assert [(row["value"], row["text"], row["type"]) for row in rows[3:5]] == [
        (None, str(2**60 + 1), "json"),
        (None, "text", "str"),
    ]
    assert math.isnan(rows[1]["value"])

    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(folder)
    assert frame[frame.metric == "m"].value.max() == math.inf
    assert len(frame) == len(rows)

    duckdb = pytest.importorskip("duckdb")
    [(month,)] = duckdb.sql(f"SELECT DISTINCT month FROM '{folder}/*/*.parquet' WHERE month = '2026-03'").fetchall()
    assert month == "2026-03"
    query = f"SELECT metric, count(*), max(step) FROM '{folder}/*/*.parquet' GROUP BY metric ORDER BY metric"
    assert duckdb.sql(query).fetchall() == [("few", 1, 0), ("m", len(VALUES), len(VALUES) - 1), ("other", 20, 19)]


def test_spark_reads_the_files(archived: Any, make_run: Any, small_segments: None) -> None:
    sql = pytest.importorskip("pyspark.sql")
    run, _ = _logged(archived, make_run)
    _archive(archived, run)
    spark = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    frame = spark.read.parquet(str(archived.database.archive))
    assert frame.where("metric = 'm' AND month = '2026-03'").count() == len(VALUES)
    assert frame.agg({"timestamp": "min"}).collect()[0][0] is not None
    spark.stop()


@pytest.mark.alike
def test_the_command_archives_what_is_old_enough(
    sqlite_tracker: Any, make_run: Any, dbnd: Any, tmp_path: Path, small_segments: None
) -> None:
    run, task = _logged(sqlite_tracker, make_run)
    young, its = sqlite_tracker.started()
    sqlite_tracker.call("log_metrics", its.floats("m", 30))
    sqlite_tracker.call("set_run_state", young.state("SUCCESS", datetime.now(timezone.utc).isoformat()))
    before = sqlite_tracker.history(task, "m")
    given = ("tracker", "archive", "--older-than", "30d", "--database", str(sqlite_tracker.database.path))
    refused = dbnd(*given)
    assert refused.returncode == 2
    assert "add --to FOLDER, or set tracker.archive" in refused.stderr
    done = dbnd(*given, "--to", str(tmp_path / "old"), "--vacuum", "--json")
    assert json.loads(done.stdout) == {
        "folder": str(tmp_path / "old"),
        "run_uids": [run.uid],
        "points": len(VALUES) + 20,
    }
    about = json.loads(pq.read_schema(tmp_path / "old/month=2026-03" / f"{run.uid}.parquet").metadata[b"databand.run"])
    metrics = [metric["key"] for each in about["task_runs"] for metric in each["metrics"]]
    assert (about["run_uid"], sorted(metrics)) == (run.uid, ["few", "m", "other"])
    sqlite_tracker.database.close()
    opened = Tracker(open_database(str(tmp_path / "tracker.db"), TrackerSettings(archive=tmp_path / "old")))
    assert repr(opened.history(task, "m")) == repr(before)
    assert len(opened.history(its, "m")) == 30
    opened.database.close()
