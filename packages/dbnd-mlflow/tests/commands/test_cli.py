"""``dbnd mlflow verify`` and ``import``, on an embedded tracker and a served one, with SQLite stores of MLflow."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import sqlite3
from pathlib import Path

import mlflow
import numpy as np
import pytest
from kit.progress import wait_until
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from dbnd_mlflow import build_composite_uri
from dbnd_mlflow._uri import CompositeUri, parse_composite_uri

# A dozen commands, each a process that imports MLflow, on a busy machine.
pytestmark = pytest.mark.timeout(600)

FIRST = 1_600_000_000_000  # ms


@pytest.fixture
def tracker(home):
    """The embedded tracker's URL."""
    return f"sqlite:///{home / 'dbnd/tracker.db'}"


@pytest.fixture
def own(monkeypatch, inner_uri):
    """MLflow's own store, as the environment of the commands names it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", inner_uri)
    return inner_uri


def log_some(name="a", points=50):
    with mlflow.start_run(run_name=name) as run:
        mlflow.log_params({"lr": "1e-3", "n": 10, "long": "x" * 5_500})
        mlflow.set_tags({"team": "ä", "gone": "soon"})
        client = MlflowClient()
        client.log_batch(run.info.run_id, [Metric("loss", 1 / (n + 1), FIRST + n, n) for n in range(points)])
        for value in (math.nan, math.inf, -math.inf):
            mlflow.log_metric("odd", value)
        mlflow.delete_tag("gone")
        mlflow.log_input(mlflow.data.from_numpy(np.ones((2, 2)), source="s3://b/x.npy", name="x"))
        mlflow.log_input(mlflow.data.from_numpy(np.zeros((2, 2)), source="s3://b/x.npy", name="x"))
        mlflow.log_input(mlflow.data.from_numpy(np.ones(3)))
        mlflow.log_text("hello", "notes/hello.txt")
        with mlflow.start_run(run_name=f"{name}-child", nested=True):
            mlflow.log_metric("m", 1)
    return run.info.run_id


def shown(dbnd, run_id):
    done = dbnd("runs", "show", run_id, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """What a test has tracked, for the others to copy."""
    return tmp_path_factory.mktemp("tracked")


class TestVerify:
    @pytest.fixture
    def tracked(self, tracker, own, python, tmp_path, kept):
        """Id of a run with a child that was tracked by the composite URI alone, in a process that has ended."""
        if (kept / "run_id").exists():
            shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
            return (kept / "run_id").read_text()
        uri = build_composite_uri(tracker, own)
        source = Path(__file__).read_text().partition("class TestVerify")[0]
        done = python(f"{source}\nprint('RUN', log_some())", MLFLOW_TRACKING_URI=uri)
        assert done.returncode == 0, done.stderr
        shutil.copytree(tmp_path, kept, dirs_exist_ok=True)
        (kept / "run_id").write_text(done.stdout.split()[-1])
        return done.stdout.split()[-1]

    @pytest.mark.parametrize("selection", ["all", "experiment", "id"])
    def test_two_equal_sides_are_clean(self, dbnd, tracked, selection):
        args = {"all": [], "experiment": ["--experiment", "Default"], "id": [tracked]}[selection]
        done = dbnd("mlflow", "verify", *args)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{1 if selection == 'id' else 2} runs of" in done.stderr
        assert "no difference" in done.stderr

    def test_text_that_no_database_keeps_is_no_difference(self, dbnd, tracker, own, python):
        done = python(
            "import mlflow, numpy\n"
            "with mlflow.start_run():\n"
            "    mlflow.log_param('p', 'a\\0b')\n"
            "    mlflow.set_tag('t', '\\0')\n"
            "    mlflow.log_input(mlflow.data.from_numpy(numpy.zeros(3), name='d\\0'))\n",
            MLFLOW_TRACKING_URI=build_composite_uri(tracker, own),
        )
        assert done.returncode == 0, done.stderr
        done = dbnd("mlflow", "verify", "--json")
        assert (done.returncode, json.loads(done.stdout)) == (0, [])

    def test_each_kind_of_difference_is_found(self, dbnd, tracked, own):
        client = MlflowClient(tracking_uri=own)
        client.log_batch(
            tracked,
            [Metric("loss", 9, FIRST, 99), Metric("new", 1, FIRST, 0)],
            [Param("p", "1")],
            [RunTag("team", "b")],
        )
        client.log_inputs(tracked, client.get_run(tracked).inputs.dataset_inputs)
        (child,) = client.search_runs(["0"], "attributes.run_name = 'a-child'")
        client.set_terminated(child.info.run_id, "FAILED")
        untracked = client.create_run("0", run_name="untracked")
        done = dbnd("mlflow", "verify", "--json")
        assert done.returncode == 1
        found = {(d["what"], d["name"]): (d["mlflow"], d["tracker"]) for d in json.loads(done.stdout)}
        assert set(found) == {
            ("metric", "loss"),
            ("metric", "new"),
            ("param", "p"),
            ("tag", "team"),
            ("status", ""),
            ("end", ""),
            ("run", "untracked"),
        }
        assert found["metric", "loss"][0] == f"9.0 at step 99, {FIRST} ms"
        assert found["tag", "team"] == ("b", "ä")
        assert found["status", ""] == ("FAILED", "success")
        assert untracked.info.run_id in done.stdout
        table = dbnd("mlflow", "verify")
        assert table.returncode == 1
        assert "7 differences" in table.stderr
        assert "9.0 at step 99" in table.stdout

    def test_the_result_is_kept_with_the_task_run_where_that_is_asked_for(self, dbnd, tracked, own):
        def verdicts():
            tags = [tag for task in shown(dbnd, tracked)["task_runs"] for tag in task["tags"]]
            return [tag["value"].split()[1] for tag in tags if tag["name"] == "dbnd.mlflow.verified"]

        assert dbnd("mlflow", "verify").returncode == 0
        assert verdicts() == []
        assert dbnd("mlflow", "verify", "--record").returncode == 0
        assert set(verdicts()) == {"0"}
        client = MlflowClient(tracking_uri=own)
        client.log_batch(tracked, [Metric("loss", 9, FIRST, 99)], [Param("p", "1")], [])
        assert dbnd("mlflow", "verify", tracked, "--record").returncode == 1
        assert verdicts().count("2") == 1
        client.create_run("0", run_name="untracked")
        done = dbnd("mlflow", "verify", "--record", "--json")
        assert len(json.loads(done.stdout)) == 3

    def test_a_point_lost_in_the_tracker_is_found(self, dbnd, tracked, home):
        with sqlite3.connect(home / "dbnd/tracker.db") as connection:
            connection.execute("DELETE FROM metrics WHERE step = 7")
        done = dbnd("mlflow", "verify", tracked, "--json")
        (difference,) = json.loads(done.stdout)
        assert (difference["what"], difference["name"]) == ("metric", "loss")
        assert difference["mlflow"].startswith("0.125 at step 7")

    @pytest.mark.parametrize(
        ("args", "sentence"),
        [
            (["--experiment", "no"], "There is no experiment 'no'"),
            (["0123"], "There is no run '0123' in sqlite:///"),
            (["0123", "--experiment", "no"], "Name runs or the experiment 'no', and not both."),
            (["-c", "mlflow_tracking.nothing=1"], "does not exist"),
        ],
    )
    def test_bad_input_is_one_sentence(self, dbnd, own, args, sentence):
        done = dbnd("mlflow", "verify", *args)
        assert done.returncode in {2, 8}
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


class TestImport:
    @pytest.fixture
    def old_work(self, own):
        mlflow.set_tracking_uri(own)
        mlflow.set_experiment("old work")

    @pytest.fixture
    def run_id(self, old_work):
        return log_some()

    @pytest.fixture
    def import_(self, dbnd, own):
        def run(*args, **env):
            return dbnd("mlflow", "import", "--from", own, *args, **env)

        return run

    def test_everything_is_brought_over_with_its_own_ids_times_steps_and_nesting(self, import_, dbnd, old_work, own):
        run_id = log_some(points=6_000)
        done = import_()
        assert done.returncode == 0, done.stderr
        assert "2 of 2 runs" in done.stderr
        verified = dbnd("mlflow", "verify")
        assert verified.returncode == 0, verified.stdout
        run = shown(dbnd, run_id)
        stored = MlflowClient(tracking_uri=own).get_run(run_id)
        assert run["run_uid"].replace("-", "") == run_id
        assert (run["name"], run["project_name"], run["state"]) == ("a", "old work", "success")
        parent, child = run["task_runs"]
        assert child["parent_task_run_uid"] == parent["task_run_uid"]
        assert child["name"] == "a-child"
        assert {m["key"]: m["points"] for m in parent["metrics"]}["loss"] == 6_000
        assert parent["start_time"].startswith(mlflow_time(stored.info.start_time))
        assert run["end_time"].startswith(mlflow_time(stored.info.end_time))

    def test_repeated_it_changes_nothing(self, import_, dbnd, run_id, home):
        import_()
        before = shown(dbnd, run_id)
        count = points_in(home)
        again = import_()
        assert again.returncode == 0
        assert "0 of 2 runs" in again.stderr
        assert "2 were there already" in again.stderr
        assert shown(dbnd, run_id) == before
        assert points_in(home) == count

    def test_an_import_that_is_killed_goes_on_where_it_stopped(self, dbnd, own, home, warm, tmp_path):
        """Killed while a lock keeps it from going on, after some of its points are in the tracker."""
        mlflow.set_tracking_uri(own)
        client = MlflowClient()
        for number in range(6):
            with mlflow.start_run(run_name=f"r{number}") as run:
                for start in range(0, 2_000, 1_000):
                    points = [Metric("m", n, FIRST + n, n) for n in range(start, start + 1_000)]
                    client.log_batch(run.info.run_id, points)
        process = warm.dbnd("mlflow", "import", "--from", own, log=tmp_path / "log")
        try:
            wait_until(lambda: points_in(home) > 0 or process.poll() is not None, lambda: process.output)
            with contextlib.closing(sqlite3.connect(home / "dbnd/tracker.db", timeout=60)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                process.kill()
                count = connection.execute("SELECT count(*) FROM metrics").fetchone()[0]
        finally:
            process.kill()
        assert 0 < count < 12_000
        done = dbnd("mlflow", "import", "--from", own)
        assert done.returncode == 0, done.stderr
        assert points_in(home) == 12_000
        verified = dbnd("mlflow", "verify")
        assert verified.returncode == 0, verified.stdout
        again = dbnd("mlflow", "import", "--from", own, "--json")
        assert "0 of 6 runs" in again.stderr
        facts = json.loads(again.stdout)
        assert (facts["store"], facts["runs"], facts["imported"]) == (own, 6, 0)

    def test_runs_that_were_tracked_live_are_left_as_they_are(self, import_, dbnd, python, tracker, own, home):
        uri = build_composite_uri(tracker, own)
        code = "import mlflow\nwith mlflow.start_run(run_name='live'): mlflow.log_metric('m', 1)"
        assert python(code, MLFLOW_TRACKING_URI=uri).returncode == 0
        count = points_in(home)
        done = import_()
        assert "0 of 1 runs" in done.stderr
        assert points_in(home) == count

    def test_experiment_and_date_select(self, import_, run_id, own):
        mlflow.set_experiment("other")
        with mlflow.start_run():
            pass
        assert "1 of 1 runs" in import_("--experiment", "other").stderr
        assert "0 of 0 runs" in import_("--since", "2999-01-01").stderr
        assert "There is no experiment 'no'" in import_("--experiment", "no").stderr

    def test_a_served_tracker_takes_it_too(self, import_, dbnd, run_id, tracker_server):
        env = {"DBND__CORE__DATABAND_URL": tracker_server}
        assert "2 of 2 runs" in import_(**env).stderr
        assert dbnd("mlflow", "verify", **env).returncode == 0
        assert "0 of 2 runs" in import_(**env).stderr

    def test_a_tracker_that_is_down_is_one_sentence(self, import_, run_id, tracker_url):
        done = import_(DBND__CORE__DATABAND_URL=tracker_url)
        assert done.returncode == 1
        # MLflow says things of its own there.
        assert len([line for line in done.stderr.splitlines() if line.startswith("dbnd: ")]) == 1
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("kind", ["file", "http"])
    def test_other_stores_are_imported_and_verified(self, kind, dbnd, request, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        source = request.getfixturevalue("mlflow_server") if kind == "http" else (tmp_path / "runs").as_uri()
        mlflow.set_tracking_uri(source)
        mlflow.set_experiment("old work")
        run_id = log_some()
        done = dbnd("mlflow", "import", "--from", source)
        assert done.returncode == 0, done.stderr
        assert "2 of 2 runs" in done.stderr
        monkeypatch.setenv("MLFLOW_TRACKING_URI", source)
        verified = dbnd("mlflow", "verify", "--experiment", "old work")
        assert verified.returncode == 0, verified.stdout
        (parent, _) = shown(dbnd, run_id)["task_runs"]
        names = {artifact["name"]: artifact["path"] for artifact in parent["artifacts"]}
        assert list(names) == ["notes/hello.txt"]
        assert names["notes/hello.txt"].endswith(f"{run_id}/artifacts/notes/hello.txt")

    @pytest.mark.parametrize(
        ("source", "sentence"),
        [
            ("sqlite:///nothing.db", "There is no MLflow store sqlite:///nothing.db: nothing.db does not exist."),
            ("./nothing", "There is no MLflow store ./nothing: nothing does not exist."),
            ("", "--from is empty: name the tracking URI"),
            ("nonsense://u:hunter2@h", "The MLflow store nonsense://***@h cannot be read: "),
            ("http://u:hunter2@127.0.0.1:9", "The MLflow store http://***@127.0.0.1:9 cannot be read: "),
            ("sqlite:///no_database.db", "The MLflow store sqlite:///no_database.db cannot be read: "),
        ],
    )
    def test_a_store_that_cannot_be_read_is_one_sentence(self, source, sentence, dbnd, home):
        Path("no_database.db").write_bytes(b"this is no database" * 100)
        done = dbnd("mlflow", "import", "--from", source, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
        assert done.returncode in {1, 2}
        said = [line for line in done.stderr.splitlines() if line.startswith("dbnd: error:")]
        assert len(said) == 1, done.stderr
        assert sentence in said[0]
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stderr
        assert not Path("nothing.db").exists()

    def test_a_composite_uri_is_refused(self, dbnd):
        done = dbnd("mlflow", "import", "--from", "dbnd://h")
        assert done.returncode == 8
        assert "--from = 'dbnd://h' is a databand URI itself" in done.stderr


def mlflow_time(milliseconds):
    """The first part, to the millisecond, of the ISO form of a time of MLflow."""
    from datetime import datetime, timezone

    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="milliseconds")[:23]


def points_in(home):
    """How many points are in the embedded tracker, which may not have been made yet."""
    try:
        with contextlib.closing(sqlite3.connect(home / "dbnd/tracker.db", timeout=60)) as connection:
            return connection.execute("SELECT count(*) FROM metrics").fetchone()[0]
    except sqlite3.OperationalError:  # no folder, no file, no table yet
        return 0


def test_the_uri_that_tracks_a_script(dbnd, own, tracker, python):
    """The URI, as the command prints it, is all that a script needs; it says once where it is tracked."""
    code = (
        "import mlflow\n"
        "for name in 'ab':\n"
        "    with mlflow.start_run(run_name=name):\n"
        "        mlflow.log_metric('loss', 0.5)\n"
    )
    printed = dbnd("mlflow", "uri")
    assert printed.returncode == 0, printed.stderr
    uri = printed.stdout.strip()
    assert parse_composite_uri(uri) == CompositeUri(tracker, own)
    done = python(code, MLFLOW_TRACKING_URI=uri)
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("dbnd:")]
    found = re.fullmatch(rf"dbnd: Run a of .*, tracked in {tracker} \(`(dbnd runs show [0-9a-f]{{8}})`\)", said)
    assert found is not None, said
    shown = dbnd(*found[1].split()[1:])
    assert re.search("^Run: a$", shown.stdout, re.MULTILINE), shown.stdout + shown.stderr


def test_the_uri_of_a_store_that_is_given(dbnd, home):
    done = dbnd("mlflow", "uri", "sqlite:///a b.db", "--json", "-c", "core.databand_url=https://h:1/x")
    parts = parse_composite_uri(json.loads(done.stdout)["uri"])
    assert parts == CompositeUri("https://h:1/x", f"sqlite:///{Path.cwd()}/a b.db")
    done = dbnd("mlflow", "uri", "http://m/", "-c", "mlflow_tracking.store_writes=keep")
    assert parse_composite_uri(done.stdout.strip()).store_writes == "keep"
    refused = dbnd("mlflow", "uri", "dbnd://h")
    assert refused.returncode == 8
    assert "name your own MLflow store there" in refused.stderr
