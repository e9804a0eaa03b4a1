from __future__ import annotations

import os

import mlflow
import pytest

from dbnd import ConfigError, dbnd_tracking, new_dbnd_context
from dbnd_mlflow import (
    build_composite_uri,
    disable_dbnd_for_mlflow_tracking,
    enable_dbnd_for_mlflow_tracking,
    parse_composite_uri,
)
from dbnd_mlflow._store.switch import ending_active_runs

ENV = "MLFLOW_TRACKING_URI"


def test_a_context_sets_the_composite_uri_and_restores_what_was_there(conf, tracker_url, inner_uri):
    before = mlflow.get_tracking_uri()
    with new_dbnd_context(conf):
        assert mlflow.get_tracking_uri() == build_composite_uri(tracker_url, inner_uri)
        assert os.environ[ENV] == mlflow.get_tracking_uri()
    assert mlflow.get_tracking_uri() == before
    assert ENV not in os.environ


def test_what_the_user_had_set_is_duplicated_to_and_restored(conf, tmp_path):
    del conf["mlflow_tracking"]["duplicate_tracking_to"]
    own = f"sqlite:///{tmp_path / 'own.db'}"
    mlflow.set_tracking_uri(own)
    environment = os.environ.get(ENV)  # newer MLflows keep it in step
    with new_dbnd_context(conf):
        assert parse_composite_uri(mlflow.get_tracking_uri()).duplicate_tracking_to == own
    assert mlflow.get_tracking_uri() == own
    assert os.environ.get(ENV) == environment


def test_an_environment_variable_of_the_user_is_restored(conf, monkeypatch, inner_uri):
    del conf["mlflow_tracking"]["duplicate_tracking_to"]
    monkeypatch.setenv(ENV, inner_uri)
    with new_dbnd_context(conf):
        assert parse_composite_uri(mlflow.get_tracking_uri()).duplicate_tracking_to == inner_uri
        assert os.environ[ENV] == mlflow.get_tracking_uri()
    assert os.environ[ENV] == inner_uri
    assert mlflow.get_tracking_uri() == inner_uri


def test_the_uri_is_restored_when_the_block_raises(conf):
    before = mlflow.get_tracking_uri()
    with pytest.raises(KeyError), new_dbnd_context(conf):
        raise KeyError
    assert mlflow.get_tracking_uri() == before


def test_nested_contexts_restore_step_by_step(conf):
    with new_dbnd_context(conf):
        outer = mlflow.get_tracking_uri()
        other = {**conf, "core": {**conf["core"], "databand_url": "http://other:1"}}
        with new_dbnd_context(other):
            assert mlflow.get_tracking_uri().startswith("dbnd://other:1?")
        assert mlflow.get_tracking_uri() == outer


def test_runs_of_a_notebook_end_in_any_order(conf):
    before = mlflow.get_tracking_uri()
    first, second = (dbnd_tracking(name, conf=conf).start() for name in ("first", "second"))
    tracked = mlflow.get_tracking_uri()
    first.stop()
    assert mlflow.get_tracking_uri() == tracked != before
    second.stop()
    assert mlflow.get_tracking_uri() == before
    assert ENV not in os.environ


def test_a_run_that_was_active_before_goes_on_after_what_is_tracked_within_it(conf, inner_uri):
    mlflow.set_tracking_uri(inner_uri)
    with mlflow.start_run() as run:
        with dbnd_tracking("job", conf=conf):
            mlflow.log_metric("within", 1)
            mlflow.start_run(nested=True)
        assert mlflow.active_run().info.run_id == run.info.run_id
        with new_dbnd_context(conf), ending_active_runs():
            mlflow.log_metric("task", 1)
        assert mlflow.active_run().info.run_id == run.info.run_id


def test_a_run_that_cannot_be_ended_keeps_nothing_else_from_being_restored(conf, capsys):
    before = mlflow.get_tracking_uri()

    with new_dbnd_context(conf):
        with ending_active_runs():
            mlflow.delete_run(mlflow.start_run().info.run_id)
        mlflow.delete_run(mlflow.start_run().info.run_id)
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None
    assert capsys.readouterr().err.count("which was left open, could not be ended") == 2


def test_a_child_that_inherited_the_composite_uri_keeps_the_users_own_half(conf, monkeypatch, inner_uri):
    del conf["mlflow_tracking"]["duplicate_tracking_to"]
    monkeypatch.setenv(ENV, build_composite_uri("http://parent:1", inner_uri))
    with new_dbnd_context(conf):
        assert parse_composite_uri(mlflow.get_tracking_uri()).duplicate_tracking_to == inner_uri


def test_switched_off_mlflow_is_untouched(conf):
    conf["mlflow_tracking"]["databand_tracking"] = False
    before = mlflow.get_tracking_uri()
    with new_dbnd_context(conf):
        assert mlflow.get_tracking_uri() == before
        assert ENV not in os.environ


def test_switched_off_mlflow_is_not_even_imported(cold_python):
    done = cold_python(
        "import sys\n"
        "from dbnd import dbnd_tracking, task\n"
        "with dbnd_tracking('job', conf={'core.databand_url': 'http://127.0.0.1:9', 'core.flush_timeout': 0}): pass\n"
        "print('MLFLOW', 'mlflow' in sys.modules)\n"
    )
    assert "MLFLOW False" in done.stdout, done.stderr


def test_a_composite_uri_as_the_users_own_is_one_sentence(conf):
    conf["mlflow_tracking"]["duplicate_tracking_to"] = "dbnd://h?duplicate_tracking_to=x"
    with (
        pytest.raises(ConfigError, match=r"mlflow_tracking\.duplicate_tracking_to = .* name your own MLflow store"),
        new_dbnd_context(conf),
    ):
        pytest.fail("entered")


def test_by_hand_without_a_context(monkeypatch, tracker_url, inner_uri):
    assert enable_dbnd_for_mlflow_tracking() is False
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", tracker_url)
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__DATABAND_TRACKING", "True")
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__DUPLICATE_TRACKING_TO", inner_uri)
    before = mlflow.get_tracking_uri()
    assert enable_dbnd_for_mlflow_tracking() is True
    assert enable_dbnd_for_mlflow_tracking() is True
    assert mlflow.get_tracking_uri() == build_composite_uri(tracker_url, inner_uri)
    disable_dbnd_for_mlflow_tracking()
    assert mlflow.get_tracking_uri() == before
    disable_dbnd_for_mlflow_tracking()
