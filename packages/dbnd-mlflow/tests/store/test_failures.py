"""What fails shows no password, and fails as it does without us."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3

import mlflow
import pytest
from kit.reports import outcome
from kit.servers import free_port
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd_mlflow import build_composite_uri

pytestmark = pytest.mark.usefixtures("unflushed")

_SECRETS = ("hunter2", "hunter3", "hunter%40", "hunter@")


@pytest.mark.parametrize("embedded", [False, True])
def test_passwords_of_both_halves_appear_nowhere(mlflow_server, tracker_url, home, python, embedded):
    """MLflow itself names its server, in the link to a run, and a dataset's source, in a warning; all else is ours."""
    if embedded:
        pytest.importorskip("dbnd_tracker")
    inner = mlflow_server.replace("http://", "http://user:hunter2%40x@")
    tracker = f"sqlite:///{home / 'dbnd/tracker.db'}" if embedded else tracker_url.replace("//", "//u:hunter3@")
    code = (
        "import mlflow, numpy as np, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "mlflow.set_experiment('secret')\n"
        "with mlflow.start_run(run_name='r') as run:\n"
        "    mlflow.log_metric('m', 1)\n"
        "    mlflow.log_param('p', mlflow.get_tracking_uri())\n"
        "    mlflow.log_text('x', 'a.txt')\n"
        "    mlflow.log_input(mlflow.data.from_numpy(np.ones(2), source='https://u:hunter2@h/x.npy'))\n"
        "print(sorted(mlflow.MlflowClient().get_run(run.info.run_id).data.tags.items()))\n"
        "raise ValueError('at the end')\n"
    )
    uri = build_composite_uri(tracker, inner)
    done = python(code, MLFLOW_TRACKING_URI=uri, DBND__CORE__FLUSH_TIMEOUT="10")
    assert "ValueError: at the end" in done.stderr
    said = [
        line for line in (done.stdout + done.stderr).splitlines() if "View run" not in line and "View exp" not in line
    ]
    assert not [line for line in said if any(secret in line for secret in _SECRETS)]
    kept = [path for path in (home / "dbnd").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if any(secret.encode() in path.read_bytes() for secret in _SECRETS)]
    kinds = {path.suffix for path in kept}
    assert (".db" if embedded else ".journal") in kinds


@pytest.mark.parametrize("inner", ["nonsense://user:hunter2@h", "http://user:hunter2@127.0.0.1:9"])
def test_errors_about_uris_show_no_more_than_natively(inner, tracker_url, python):
    """MLflow names the user's own URI in its errors; the tracker's password and the composite URI are in none."""
    uri = build_composite_uri(tracker_url.replace("//", "//u:hunter3@"), inner)
    native, ours = (python("import mlflow; mlflow.start_run()", MLFLOW_TRACKING_URI=each) for each in (inner, uri))
    assert (native.returncode, ours.returncode) == (1, 1)
    assert ours.stderr.splitlines()[-1] == native.stderr.splitlines()[-1]
    assert "hunter3" not in ours.stderr
    assert "duplicate_tracking_to" not in ours.stderr.splitlines()[-1]


def test_an_error_of_ours_about_a_uri_shows_no_password(python):
    uri = "dbnd://u:hunter3@h?duplicate_tracking_to=dbnd%253A%252F%252Fu%253Ahunter2%2540h"
    done = python("import mlflow; mlflow.start_run()", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 1
    assert "is a databand URI itself" in done.stderr
    assert "hunter" not in done.stderr


def test_a_server_that_is_down_fails_as_natively(tracker_url, journalled):
    inner = f"http://127.0.0.1:{free_port()}"
    found = []
    for uri in (inner, build_composite_uri(tracker_url, inner)):
        mlflow.set_tracking_uri(uri)
        client = MlflowClient()
        found.append(
            [
                outcome(client.create_run, "0"),
                outcome(client.get_run, "0" * 32),
                outcome(client.log_metric, "0" * 32, "m", 1, timestamp=5, step=1),
                outcome(client.log_batch, "0" * 32, [Metric("m", 1, 5, 1)]),
                outcome(client.search_experiments),
                outcome(client.create_registered_model, "m"),
                outcome(mlflow.set_experiment, "e"),
                outcome(mlflow.start_run, run_name="r", experiment_id="0"),
            ]
        )
    assert found[1] == found[0]
    assert all(isinstance(each, tuple) for each in found[1])
    assert journalled() == []


@pytest.mark.parametrize("kind", ["no database", "newer schema"])
def test_a_broken_database_fails_as_natively(tracker_url, tmp_path, empty_database, kind):
    path = tmp_path / "broken.db"
    if kind == "no database":
        path.write_bytes(b"this is no database" * 100)
    else:
        shutil.copy(empty_database, path)
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("UPDATE alembic_version SET version_num = 'from the future'")
            database.commit()
    inner = f"sqlite:///{path}"
    found = [
        outcome(lambda uri=uri: MlflowClient(tracking_uri=uri).search_experiments())
        for uri in (inner, build_composite_uri(tracker_url, inner))
    ]
    assert isinstance(found[0], tuple)
    assert found[1] == found[0]


def test_a_database_that_breaks_later_fails_as_natively(tracker_url, tmp_path, empty_database, journalled):
    found = []
    for side in ("a", "b"):
        path = shutil.copy(empty_database, tmp_path / f"{side}.db")
        inner = f"sqlite:///{path}"
        client = MlflowClient(tracking_uri=inner if side == "a" else build_composite_uri(tracker_url, inner))
        run_id = client.create_run("0", run_name="r").info.run_id
        before = len(journalled())
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("DROP TABLE latest_metrics")
            database.commit()
        kind, message = outcome(client.log_metric, run_id, "m", 1, timestamp=5, step=1)
        found.append((kind, message.replace(run_id, "<run>")))
        assert len(journalled()) == before
    assert found[1] == found[0]


def test_what_mlflow_refuses_is_no_business_of_ours(tracker_url, any_inner, capfd):
    """A warning of ours would say MLflow's own error again, and use up the message of the minute."""
    store = _get_store(build_composite_uri(tracker_url, any_inner))
    unknown, batch = "0" * 32, [Metric("m", 1, 5, 1)]
    refused = [
        outcome(store.log_batch, unknown, batch, [Param("p", "1")], [RunTag("t", "1")]),
        outcome(store.log_metric, unknown, batch[0]),
        outcome(store.set_tag, unknown, RunTag("t", "1")),
        outcome(store.delete_tag, unknown, "t"),
        outcome(store.update_run_info, unknown, RunStatus.FINISHED, 5, None),
        outcome(store.delete_run, unknown),
        outcome(store.create_run, "0", "u", 1, ["no tag"], "r"),
        outcome(store.create_run, "0"),
        outcome(store.delete_experiment, "77"),
        outcome(store.rename_experiment, "77", "x"),
    ]
    assert all(isinstance(each, tuple) for each in refused)
    assert "dbnd:" not in capfd.readouterr().err


@pytest.mark.parametrize("writes", ["direct", "keep", "deferred"])
@pytest.mark.parametrize("point", [("no number", 5, 1), (None, 5, 1), (1.0, "no time", 1), (1.0, 5, "x")])
def test_a_batch_with_a_point_that_is_not_of_numbers_is_no_business_of_ours(
    tracker_url, inner_uri, journalled, capfd, point, writes
):
    value, timestamp, step = point
    store = _get_store(build_composite_uri(tracker_url, inner_uri, writes))
    run_id = store.create_run("0", "u", 1, [], "r").info.run_id
    before = len(journalled())
    refused = outcome(store.log_batch, run_id, [Metric("m", 1, 5, 1), Metric("n", value, timestamp, step)], [], [])
    assert isinstance(refused, tuple)
    assert "could not be reported" not in capfd.readouterr().err
    assert len(journalled()) == before


def test_a_parent_that_does_not_exist_is_no_business_of_ours(tracker_url, inner_uri, journalled, capfd):
    """MLflow takes it. The run stands for itself, as it does in an import: below nothing nobody would find it."""
    client = MlflowClient(tracking_uri=build_composite_uri(tracker_url, inner_uri))
    run = client.create_run("0", tags={"mlflow.parentRunId": "0" * 32})
    assert "cannot be" not in capfd.readouterr().err
    (init,) = [body["init_args"] for call, body in journalled() if call == "init_run"]
    assert init["run_uid"].replace("-", "") == run.info.run_id
