"""What ``dbnd mlflow import`` brings over: what MLflow has, once, whoever has brought the rest; in one process."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from unittest import mock

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from kit.reports import deliver
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.utils.search_utils import SearchUtils

from dbnd import dbnd_tracking
from dbnd._cli.sync import sync
from dbnd._context.registry import create_reader, create_transport, load_config
from dbnd._tracking.contracts import UnreachableError
from dbnd_mlflow import build_composite_uri
from dbnd_mlflow._commands import cli, comparison, importer, mlflow_store
from dbnd_mlflow._reporting.derived import uid_of

pytest.importorskip("dbnd_tracker")
FIRST = 1_600_000_000_000  # ms


@pytest.fixture
def tracker(home, monkeypatch, inner_uri):
    """The embedded tracker's URL, as the commands and clients find it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", inner_uri)
    url = f"sqlite:///{home / 'dbnd/tracker.db'}"
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", url)
    return url


@pytest.fixture
def own(tracker, inner_uri):
    """A client of the store that is imported from."""
    return MlflowClient(tracking_uri=inner_uri)


@pytest.fixture
def live(tracker, inner_uri):
    """A client by which the same store is tracked; ``deliver`` waits until the tracker has what it was told."""
    return MlflowClient(tracking_uri=build_composite_uri(tracker, inner_uri))


def command(*args):
    done = CliRunner().invoke(cli.mlflow, list(args), catch_exceptions=False)
    return done.exit_code, json.loads(done.stdout)


@pytest.fixture
def import_(inner_uri):
    """How many of how many runs an import has brought over."""

    def run(*args):
        code, facts = command("import", "--from", inner_uri, "--json", *args)
        assert code == 0
        return facts["imported"], facts["runs"]

    return run


def verify(*args):
    return command("verify", "--json", *args)[1]


@pytest.fixture
def reader(tracker):
    config = load_config()
    with contextlib.closing(create_transport(tracker, config)) as transport:
        transport.check()  # a file that does not exist yet has no runs for whoever has opened it
    with contextlib.closing(create_reader(config)) as opened:
        yield opened


def names(reader):
    return sorted(run.name for run in reader.runs("", 100).data)


def log(client, run_id, steps, timestamp=FIRST, key="loss"):
    client.log_batch(run_id, [Metric(key, float(step), timestamp + step, step) for step in steps])


def points(tracker):
    with contextlib.closing(sqlite3.connect(tracker.removeprefix("sqlite:///"))) as database:
        return database.execute("SELECT count(*) FROM metrics").fetchone()[0]


def test_late_points_are_brought_over_by_the_next_import(own, import_, tracker):
    run_id = own.create_run("0").info.run_id
    log(own, run_id, range(5))
    assert import_() == (1, 1)
    log(own, run_id, range(5, 8), timestamp=FIRST - 1000)
    own.set_terminated(run_id)
    assert import_() == (1, 1)
    log(own, run_id, [-3], timestamp=FIRST - 5000)  # after its end, and neither the last step nor the last time
    assert import_() == (1, 1)
    assert (verify(), points(tracker)) == ([], 9)
    assert import_() == (0, 1)


@pytest.mark.parametrize("order", ["live, import", "import, live", "both at once"])
def test_importing_and_logging_live_in_any_order_gives_each_point_once(own, live, import_, tracker, order):
    run_id = live.create_run("0", run_name="r").info.run_id
    for number in range(2):
        steps = range(number * 4, number * 4 + 4)
        at = FIRST - number * 1000
        if order == "import, live":
            log(own, run_id, steps, at)
            import_()
            log(live, run_id, [100 + number])
            deliver()
        else:
            log(live, run_id, steps, at)
            if order == "live, import":
                deliver()
            import_()  # the journal may be on its way
            log(own, run_id, [100 + number])
    live.set_terminated(run_id)
    deliver()
    import_()
    assert verify() == []
    assert points(tracker) == 10
    assert import_() == (0, 1)


def test_what_was_lost_of_a_run_that_was_tracked_is_brought_over(own, live, import_, tracker):
    with mock.patch.dict("os.environ", {"MLFLOW_TRACKING_URI": live.tracking_uri}):
        mlflow.set_tracking_uri(live.tracking_uri)
        with mlflow.start_run(run_name="r") as run:
            log(live, run.info.run_id, range(20))
            mlflow.log_params({"a": 1, "b": 2})
            mlflow.set_tags({"t": 1, "u": 2})
            mlflow.log_input(mlflow.data.from_numpy(np.ones(3), source="s3://b/x.npy", name="x"))
    deliver()
    assert import_() == (0, 1)
    with contextlib.closing(sqlite3.connect(tracker.removeprefix("sqlite:///"))) as database, database:
        database.execute("DELETE FROM metrics WHERE step > 17")
        database.execute("UPDATE metric_series SET points = 18")
        for table, condition in (("params", "name = 'a'"), ("tags", "name = 't'"), ("dataset_operations", "1")):
            database.execute(f"DELETE FROM {table} WHERE {condition}")
    assert {d["what"] for d in verify()} == {"metric", "param", "tag", "dataset"}
    assert import_() == (1, 1)
    assert verify() == []
    assert import_() == (0, 1)


def test_what_has_changed_is_brought_up_to_date_and_what_only_the_tracker_has_stays(own, live, import_, reader):
    run_id = live.create_run("0", run_name="old", tags={"t": "1"}).info.run_id
    live.set_tag(run_id, "only", "here")
    deliver()
    own.delete_tag(run_id, "only")
    own.set_tag(run_id, "t", "2")
    own.log_inputs(run_id, [])
    own.set_tag(run_id, "mlflow.note.content", "described")
    own.set_tag(run_id, "mlflow.source.name", "/code/train.py")
    own.update_run(run_id, name="new")
    own.set_terminated(run_id)
    assert import_() == (1, 1)
    (difference,) = verify()
    assert (difference["what"], difference["name"], difference["mlflow"]) == ("tag", "only", "(none)")
    (run,) = reader.runs("", 10).data
    assert (run.name, run.description, run.job_name, run.state) == ("new", "described", "train.py", "success")
    own.set_tag(run_id, "mlflow.source.name", "/code/other.py")
    assert {d["what"] for d in verify()} == {"tag", "job"}
    assert import_() == (1, 1)
    (run,) = reader.runs("", 10).data
    assert run.job_name == "other.py"
    # Reopened, and ended in another way.
    own.update_run(run_id, status="RUNNING")
    assert import_() == (1, 1)
    assert reader.task_run(uid_of(run_id))["state"] == "running"
    own.set_terminated(run_id, "KILLED")
    assert import_() == (1, 1)
    assert [d["what"] for d in verify()] == ["tag"]


def test_a_nested_run_is_found_by_an_experiment_that_is_not_its_parents(own, import_, tracker, reader):
    above, other = own.create_experiment("above"), own.create_experiment("other")
    parent = own.create_run(above).info.run_id
    own.create_run(other, tags={"mlflow.parentRunId": parent})
    assert import_() == (2, 2)
    assert [row.run_uid for row in reader.runs("experiment = 'other'", 10).data] == [uid_of(parent)]
    assert import_() == (0, 2)
    with contextlib.closing(sqlite3.connect(tracker.removeprefix("sqlite:///"))) as database, database:
        database.execute("DELETE FROM tags WHERE name = 'dbnd.experiment'")  # as imports did before
    assert import_() == (1, 2)
    assert [row.run_uid for row in reader.runs("experiment = 'other'", 10).data] == [uid_of(parent)]


def test_a_tag_that_a_run_sets_during_the_import_is_not_set_back(own, live, import_, reader, monkeypatch):
    run_id = live.create_run("0", tags={"t": "1"}).info.run_id
    deliver()
    own.set_tag(run_id, "t", "2")
    send = importer.Importer._send

    def and_then_live(self, call, body):
        if call == "log_metrics" and "t" in str(body) and live.get_run(run_id).data.tags["t"] == "2":
            live.set_tag(run_id, "t", "3")
            deliver()
        send(self, call, body)

    monkeypatch.setattr(importer.Importer, "_send", and_then_live)
    assert import_() == (1, 1)
    assert {tag["name"]: tag["value"] for tag in reader.task_run(uid_of(run_id))["tags"]}["t"] == "3"


def test_runs_that_are_deleted_for_good_during_the_import_keep_no_other_from_it(own, inner_uri, import_, monkeypatch):
    runs = [own.create_run("0").info.run_id for _ in range(3)]
    place = importer.Importer._place

    def and_then_delete(self, run, known):
        if run.info.run_id == runs[1]:
            _get_store(inner_uri)._hard_delete_run(runs[1])
        return place(self, run, known)

    monkeypatch.setattr(importer.Importer, "_place", and_then_delete)
    assert import_() == (2, 3)


def test_an_import_that_is_killed_anywhere_is_completed_by_the_next(own, import_, tracker, monkeypatch):
    monkeypatch.setattr(importer, "_CHUNK", 3)
    parent = own.create_run("0", run_name="parent").info.run_id
    child = own.create_run("0", run_name="child", tags={"mlflow.parentRunId": parent}).info.run_id
    for run_id in (parent, child):
        log(own, run_id, range(7))
        own.log_param(run_id, "p", 1)
        own.set_terminated(run_id)
    send = importer.Importer._send
    calls = []

    def dying(self, call, body):
        if len(calls) == limit:
            raise UnreachableError("killed")
        calls.append(call)
        send(self, call, body)

    monkeypatch.setattr(importer.Importer, "_send", dying)
    limit = 0
    while CliRunner().invoke(cli.mlflow, ["import", "--from", own.tracking_uri, "--json"]).exit_code != 0:
        limit += 1
        calls.clear()
        assert limit < 40
    assert limit > 3
    assert verify() == []
    assert points(tracker) == 14
    assert import_() == (0, 2)


def test_two_imports_at_once_bring_each_point_once(own, import_, tracker, monkeypatch):
    run_id = own.create_run("0").info.run_id
    log(own, run_id, range(10))
    own.set_terminated(run_id)
    points_of_tracker = comparison.points_of_tracker
    others = []

    def and_another_import(found):
        has = points_of_tracker(found)
        if not others:
            others.append(None)
            others.append(import_())
        return has

    import_()
    log(own, run_id, range(10, 20))
    monkeypatch.setattr(comparison, "points_of_tracker", and_another_import)
    assert import_() == (1, 1)
    assert others[1] == (1, 1)
    assert (verify(), points(tracker)) == ([], 20)


def has_pages(client, run_id):
    """Whether the points of a metric can be asked for a part at a time."""
    with contextlib.suppress(MlflowException, TypeError):
        token = SearchUtils.create_page_token(0).decode()
        return bool(client._tracking_client.store.get_metric_history(run_id, "loss", max_results=1, page_token=token))
    return False


def test_an_import_that_finds_nothing_new_reads_no_point(own, import_, monkeypatch):
    for number in range(3):
        run_id = own.create_run("0", run_name=f"r{number}").info.run_id
        log(own, run_id, range(50))
        own.set_terminated(run_id)
    assert import_() == (3, 3)

    def reads(*_):
        raise AssertionError

    if has_pages(own, run_id):
        monkeypatch.setattr(mlflow_store.OwnStore, "history", reads)
    monkeypatch.setattr("dbnd_tracker._reader.DatabaseReader.points", reads)
    assert import_() == (0, 3)


def test_odd_values_are_brought_over_once(own, live, import_, tracker):
    run_id = live.create_run("0").info.run_id
    values = [math.nan, math.inf, -math.inf, 0.0, 1e308]
    live.log_batch(run_id, [Metric("odd", value, FIRST, n) for n, value in enumerate(values)])
    import_()
    deliver()
    import_()
    assert (verify(), points(tracker)) == ([], 5)


def test_a_run_of_a_task_is_brought_to_where_its_late_events_go(tracker, inner_uri, import_, reader):
    conf = {
        "core": {"databand_url": tracker, "flush_timeout": 0},
        "mlflow_tracking": {"databand_tracking": True, "duplicate_tracking_to": inner_uri},
    }
    is_down = mock.patch("dbnd_tracker._embedded.EmbeddedTransport.send", side_effect=UnreachableError("it is down"))
    with is_down:
        with dbnd_tracking("job", conf=conf), mlflow.start_run(run_name="r"):
            mlflow.log_metric("m", 1)
            tags = mlflow.active_run().data.tags
        deliver()
    assert import_() == (1, 1)
    assert reader.task_run(tags["dbnd.task_run_uid"])["name"] == "r"
    assert verify() == []
    assert CliRunner().invoke(sync, []).exit_code == 0  # what waited in the journal
    assert reader.task_run(tags["dbnd.task_run_uid"])["name"] == "job"
    assert verify() == []
    (run,) = reader.runs("", 10).data
    assert (run.run_uid, run.name, run.state) == (tags["dbnd.run_uid"], run.name, "success")
    assert import_() == (0, 1)


class TestParents:
    @pytest.fixture
    def run(self, own):
        def create(name, parent=None, experiment="0", start=1):
            tags = {"mlflow.parentRunId": parent} if parent else {}
            run_id = own.create_run(experiment, run_name=name, tags=tags, start_time=start * 86_400_000).info.run_id
            own.set_terminated(run_id)
            return run_id

        return create

    def placed(self, reader, *run_ids):
        """Which task run stands below which, and under which run; each can be found there."""
        found = []
        for run_id in run_ids:
            (at,) = [
                (run.name, {t.task_run_uid: t.name for t in detail.task_runs}.get(task.parent_task_run_uid))
                for run in reader.runs("", 100).data
                for detail in [reader.run(run.run_uid)]
                for task in detail.task_runs
                if task.task_run_uid == uid_of(run_id)
            ]
            found.append(at)
        return found

    def test_what_runs_are_nested_in_is_imported_though_it_was_not_asked_for(self, own, run, import_, reader):
        other = own.create_experiment("other")
        grandparent = run("grandparent")
        parent = run("parent", grandparent, other, start=20)
        child = run("child", parent, start=30)
        assert import_("--since", "1970-01-25") == (3, 3)
        assert names(reader) == ["grandparent"]
        assert self.placed(reader, grandparent, parent, child) == [
            ("grandparent", None),
            ("grandparent", "grandparent"),
            ("grandparent", "parent"),
        ]
        assert import_("--experiment", "other") == (0, 2)
        assert import_() == (0, 3)
        assert verify() == []

    def test_the_command_says_that_there_is_a_parent_more(self, run, own):
        run("child", run("parent"), start=30)
        args = ["import", "--from", own.tracking_uri, "--since", "1970-01-25", "--json"]
        done = CliRunner().invoke(cli.mlflow, args)
        facts = json.loads(done.stdout)
        assert (facts["runs"], facts["imported"], facts["parents"]) == (2, 2, 1)
        assert "1 of the 2 are what the runs that you asked for are nested in" in done.stderr

    def test_a_parent_that_comes_later_in_the_list(self, run, import_, reader):
        parent = run("parent", start=9)
        child = run("child", parent)
        assert import_() == (2, 2)
        assert self.placed(reader, parent, child) == [("parent", None), ("parent", "parent")]

    def test_a_parent_that_was_deleted(self, own, run, import_, reader):
        parent = run("parent")
        child = run("child", parent)
        own.delete_run(parent)
        assert import_() == (2, 2)
        assert self.placed(reader, parent, child) == [("parent", None), ("parent", "parent")]
        assert verify() == verify(parent) == []

    @pytest.mark.parametrize("name", ["0" * 32, "no such run"])
    def test_a_parent_that_does_not_exist(self, run, import_, reader, name):
        child = run("child", name)
        assert import_() == (1, 1)
        assert self.placed(reader, child) == [("child", None)]
        assert verify() == []

    def test_runs_that_name_each_other_or_themselves(self, own, run, import_, reader):
        a = run("a")
        b = run("b", a)
        own.set_tag(a, "mlflow.parentRunId", b)
        alone = run("alone")
        own.set_tag(alone, "mlflow.parentRunId", alone)
        below = run("below", a)
        assert import_() == (4, 4)
        assert self.placed(reader, a, b, alone, below) == [("a", None), ("b", None), ("alone", None), ("a", "a")]
        assert import_() == (0, 4)
        assert verify() == []

    def test_a_child_whose_parent_the_tracker_has_lost(self, own, run, import_, reader):
        parent = run("parent")
        child = run("child", parent)
        assert import_() == (2, 2)
        own.set_tag(child, "mlflow.parentRunId", run("another"))
        assert import_()[1] == 3
        assert self.placed(reader, child) == [("another", "another")]
        assert verify() == []

    @pytest.mark.parametrize("is_live", [True, False])
    @pytest.mark.parametrize("change", ["taken back", "of no run"])
    def test_a_run_that_is_nested_no_more_is_one_of_its_own(self, own, live, import_, reader, change, is_live):
        parent = live.create_run("0", run_name="parent").info.run_id
        child = live.create_run("0", run_name="child", tags={"mlflow.parentRunId": parent}).info.run_id
        leaf = live.create_run("0", run_name="leaf", tags={"mlflow.parentRunId": child}).info.run_id
        live.set_terminated(child, "FAILED")
        deliver()
        client = live if is_live else own
        if change == "taken back":
            client.delete_tag(child, "mlflow.parentRunId")
        else:
            client.set_tag(child, "mlflow.parentRunId", "0" * 32)
        deliver()
        is_left = not is_live and change == "taken back"  # what only the tracker has stays there
        assert is_live or import_()[0] > 0
        assert self.placed(reader, parent, child, leaf) == [("parent", None), ("child", None), ("child", "child")]
        assert reader.run_summary(uid_of(child))["state"] == "failed"
        assert [d["what"] for d in verify()] == ["tag"] * is_left
        if is_live:
            live.log_metric(leaf, "m", 1.0)
            live.set_tag(child, "mlflow.runName", "renamed")
            deliver()
        assert [d["what"] for d in verify()] == ["tag"] * is_left
        import_()
        assert import_() == (0, 3)

    def test_a_run_that_moves_within_its_family_has_one_parent(self, own, live, import_, reader):
        a, b = (live.create_run("0", run_name=name).info.run_id for name in "ab")
        live.set_tag(b, "mlflow.parentRunId", a)
        c = live.create_run("0", run_name="c", tags={"mlflow.parentRunId": a}).info.run_id
        live.set_tag(c, "mlflow.parentRunId", b)
        deliver()
        assert self.placed(reader, c) == [("a", "b")]
        own.set_tag(c, "mlflow.parentRunId", a)
        assert import_()[0] > 0
        assert self.placed(reader, c) == [("a", "a")]
        assert verify() == []
        assert import_() == (0, 3)

    def test_a_run_stays_below_a_parent_that_only_the_tracker_has_still(self, live, run, import_, reader):
        child = run("child", run("parent", grandparent := run("grandparent")))
        assert import_() == (3, 3)
        parent = live.get_run(child).data.tags["mlflow.parentRunId"]
        for gone in (parent, grandparent):
            live.delete_run(gone)
            live._tracking_client.store._hard_delete_run(gone)
        deliver()
        assert import_() == (0, 1)
        assert self.placed(reader, child) == [("grandparent", "parent")]
        assert verify() == []


def test_a_run_of_a_task_that_is_nested_in_one_of_another_task(tracker, inner_uri, import_, reader):
    conf = {"mlflow_tracking": {"databand_tracking": True, "duplicate_tracking_to": inner_uri}}
    with dbnd_tracking("driver", conf=conf), mlflow.start_run() as sweep:
        pass
    with dbnd_tracking("worker", conf=conf):
        with mlflow.start_run(tags={"mlflow.parentRunId": sweep.info.run_id}) as trial:
            mlflow.log_metric("m", 1.0)
        worker = mlflow.get_run(trial.info.run_id).data.tags["dbnd.run_uid"]
    deliver()
    for _ in range(2):
        assert [(task.name, task.depth) for task in reader.run(worker).task_runs] == [
            ("worker", 0),
            (trial.info.run_name, 1),
        ]
        assert verify() == []
        import_()
    assert import_() == (0, 2)


def test_a_further_run_of_a_task_that_another_process_renames(tracker, inner_uri, live, reader, seen_nothing):
    conf = {"mlflow_tracking": {"databand_tracking": True, "duplicate_tracking_to": inner_uri}}
    with dbnd_tracking("job", conf=conf):
        for name in ("own", "further"):
            with mlflow.start_run(run_name=name) as run:
                mlflow.log_metric("m", 1.0)
        uid = mlflow.get_run(run.info.run_id).data.tags["dbnd.run_uid"]
    seen_nothing()
    live.set_tag(run.info.run_id, "mlflow.runName", "renamed")
    deliver()
    found = [(task.name, task.depth, task.is_root, task.type) for task in reader.run(uid).task_runs]
    assert found == [("job", 0, True, found[0][3]), ("renamed", 1, False, "mlflow")]
    assert verify() == []


def test_texts_that_no_database_keeps_are_the_same_on_both_sides(own, live, import_, reader):
    tags = {f"mlflow.{fact}": f"{fact}\0" for fact in ("runName", "note.content", "user", "source.name")}
    for client in (live, own):
        experiment = client.create_experiment(f"e\0{client is own}")
        client.create_run(experiment, tags=tags)
    deliver()
    import_()
    assert (verify(), import_()) == ([], (0, 2))
    assert {run.name for run in reader.runs("", 10).data} == {"runName\N{REPLACEMENT CHARACTER}"}


def test_a_run_without_views_of_deleted_ones_is_found_by_its_id(own, import_):
    """A run that was deleted in MLflow since is no difference, unless it is asked for."""
    run_id = own.create_run("0").info.run_id
    import_()
    own.delete_run(run_id)
    assert verify() == []
    assert [d["what"] for d in verify(run_id)] == ["stage"]
    assert own.search_runs(["0"], run_view_type=ViewType.DELETED_ONLY)


def test_users_tags_that_begin_as_ours_are_brought_over(own, import_, reader):
    run_id = own.create_run("0", tags={"dbnd.team": "x"}).info.run_id
    own.log_batch(run_id, tags=[RunTag("dbnd.owner", "y")])
    import_()
    tags = {tag["name"]: tag["value"] for tag in reader.task_run(uid_of(run_id))["tags"]}
    assert (tags["dbnd.team"], tags["dbnd.owner"]) == ("x", "y")
    own.set_tag(run_id, "dbnd.team", "z")
    assert [(d["what"], d["name"]) for d in verify()] == [("tag", "dbnd.team")]


def test_runs_that_were_deleted_in_the_tracker_come_back_only_when_that_is_asked_for(own, import_, tracker, dbnd):
    run_id = own.create_run("0", run_name="r").info.run_id
    log(own, run_id, range(3))
    assert import_() == (1, 1)
    assert dbnd("runs", "delete", uid_of(run_id), "--yes", "--force").returncode == 0
    assert import_() == (0, 1)
    assert points(tracker) == 0
    assert import_("--recreate") == (1, 1)
    assert (verify(), points(tracker)) == ([], 3)
