"""Code that names its own store, while tracking is on: as most scripts and the loggers of other libraries do."""

from __future__ import annotations

import pickle
import threading

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils

from dbnd import dbnd_tracking
from dbnd_mlflow import DatabandStore, build_composite_uri
from dbnd_mlflow._uri import same_store


@pytest.fixture
def metrics(journalled):
    def read():
        sent = [each for call, body in journalled() if call == "log_metrics" for each in body["metrics_info"]]
        return [each["metric"]["key"] for each in sent if each["source"] == "mlflow"]

    return read


def builders():
    return dict(utils._tracking_store_registry._registry)


def test_a_script_that_sets_the_uri_of_its_store_is_tracked(conf, inner_uri, metrics, journalled):
    with dbnd_tracking("job", conf=conf):
        mlflow.set_tracking_uri(inner_uri)
        with mlflow.start_run() as run:
            mlflow.log_metric("loss", 1)
        tags = mlflow.get_run(run.info.run_id).data.tags
    assert metrics() == ["loss"]
    (init,) = [body["init_args"] for call, body in journalled() if call == "init_run"][:1]
    assert tags["dbnd.task_run_uid"] == init["driver_task_uid"]


def test_a_client_of_before_the_context_is_tracked_in_it_and_only_there(conf, inner_uri, metrics):
    """So does Lightning's logger: a client of its own, whose URI was read when it was imported."""
    client = MlflowClient(tracking_uri=inner_uri)
    client.log_metric(client.create_run("0").info.run_id, "before", 1)
    with dbnd_tracking("job", conf=conf):
        run_id = client.create_run("0").info.run_id
        client.log_metric(run_id, "within", 1)
    client.log_metric(run_id, "after", 1)
    assert metrics() == ["within"]
    assert set(client.get_run(run_id).data.metrics) == {"within", "after"}


def test_after_the_context_mlflow_is_what_it_was(conf, inner_uri, tmp_path):
    before = builders()
    with dbnd_tracking("job", conf=conf):
        assert builders() != before
        assert {scheme: builder.__module__ for scheme, builder in builders().items()} == {
            scheme: builder.__module__ for scheme, builder in before.items()
        }
        with dbnd_tracking("inner", conf=conf):
            mlflow.set_tracking_uri(inner_uri)
        MlflowClient(tracking_uri=inner_uri)
    assert builders() == before
    assert not isinstance(utils._get_store(inner_uri), DatabandStore)


def test_a_builder_that_was_registered_within_the_context_stays(conf, inner_uri, monkeypatch):
    registry = utils._tracking_store_registry
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    with dbnd_tracking("job", conf=conf):
        registry.register("sqlite", utils._get_rest_store)
    assert registry.get_store_builder(inner_uri) is utils._get_rest_store


def test_another_store_is_not_tracked_and_that_is_said_once(conf, inner_uri, tmp_path, metrics, capfd, empty_database):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    (tmp_path / "other.db").write_bytes(empty_database.read_bytes())
    with dbnd_tracking("job", conf=conf):
        client = MlflowClient(tracking_uri=other)
        client.search_experiments()
        assert "is not tracked" not in capfd.readouterr().err
        for _ in range(2):
            client.log_metric(client.create_run("0").info.run_id, "elsewhere", 1)
        assert pickle.loads(pickle.dumps(utils._get_store(other))) is utils._get_store(other)
    said = [line for line in capfd.readouterr().err.splitlines() if "is not tracked" in line]
    assert len(said) == 1
    assert other in said[0]
    assert inner_uri in said[0]
    assert metrics() == []


# What MLflow's import does in a process whose environment names the composite URI; the last of these tests imports it.
IMPORTED = """
import os, mlflow
from dbnd_mlflow import tracking_store
tracking_store._given = os.environ["MLFLOW_TRACKING_URI"]
tracking_store.RunContext()
"""
LOG = "client.log_metric(client.create_run('0').info.run_id, 'loss', 1)"


@pytest.mark.parametrize("call", ["start_run()", "MlflowClient().create_run('0')"])
def test_a_process_that_names_another_store_outside_of_a_context_is_told(python, uri, tmp_path, call, empty_database):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    (tmp_path / "other.db").write_bytes(empty_database.read_bytes())
    done = python(f"{IMPORTED}mlflow.set_tracking_uri({other!r}); mlflow.{call}", MLFLOW_TRACKING_URI=uri)
    assert f"What your code logs to the MLflow store {other} is not tracked" in done.stderr


@pytest.mark.parametrize("way", ["mlflow.set_tracking_uri({uri!r}); client = {client}()", "client = {client}({uri!r})"])
def test_a_client_of_a_process_that_names_its_store_is_tracked(python, uri, inner_uri, metrics, way):
    """So do loggers of other libraries, in the workers of a pool, too."""
    code = way.format(uri=inner_uri, client="mlflow.MlflowClient")
    done = python(f"{IMPORTED}{code}; {LOG}", MLFLOW_TRACKING_URI=uri)
    assert "is not tracked" not in done.stderr
    assert metrics() == ["loss"]


def test_a_composite_uri_of_the_environment_that_is_wrong_is_said(python, uri, inner_uri):
    code = f"{IMPORTED}mlflow.set_tracking_uri({inner_uri!r}); mlflow.MlflowClient().create_run('0')"
    said = python(code, MLFLOW_TRACKING_URI=f"{uri}&store_writes=never").stderr
    assert "never" in said
    assert "is not tracked" in said
    assert "Traceback" not in said


def test_a_process_that_names_the_tracked_store_outside_of_a_context_is_tracked(
    cold_python, uri, inner_uri, journalled
):
    code = f"import mlflow; mlflow.set_tracking_uri({inner_uri!r}); mlflow.start_run()"
    done = cold_python(code, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    assert "is not tracked" not in done.stderr
    assert "init_run" in [call for call, _ in journalled()]


def test_nested_contexts_report_to_the_inner_ones_tracker(conf, inner_uri, journalled, metrics):
    other = {**conf, "core": {**conf["core"], "databand_url": conf["core"]["databand_url"] + "/other"}}
    client = MlflowClient(tracking_uri=inner_uri)
    with dbnd_tracking("outer", conf=conf):
        client.log_metric(client.create_run("0").info.run_id, "outer", 1)
        with dbnd_tracking("inner", conf=other):
            store = utils._get_store(inner_uri)
            assert store is utils._get_store(build_composite_uri(other["core"]["databand_url"], inner_uri))
        client.log_metric(client.create_run("0").info.run_id, "outer again", 1)
    assert metrics() == ["outer", "outer again"]


def test_threads_that_name_the_store_at_once_share_one(conf, inner_uri):
    with dbnd_tracking("job", conf=conf):
        found = []
        threads = [threading.Thread(target=lambda: found.append(utils._get_store(inner_uri))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {id(each) for each in found} == {id(utils._get_store())}


@pytest.mark.parametrize(
    ("uri", "other", "same"),
    [
        ("http://Host:5000", "http://host:5000/", True),
        ("http://host:5000", "https://host:5000", False),
        ("http://host/a", "http://host/b", False),
        ("sqlite:///x.db", "sqlite:///{here}/x.db", True),
        ("sqlite:///x.db", "sqlite:///y.db", False),
        ("./mlruns", "file://{here}/mlruns", True),
        ("mlruns", "{here}/mlruns/", True),
        ("a%20b", "file://{here}/a%20b", True),
        ("file:a%2520b", "file://{here}/a%20b", False),
        ("sqlite+pysqlite:///x.db", "sqlite+pysqlite:///{here}/x.db", True),
        ("databricks", "databricks", True),
        ("databricks", "{here}/databricks", False),
        ("databricks://a", "databricks://b", False),
        ("postgresql://u:p@h/db", "postgresql://u:p@h/db", True),
    ],
)
def test_one_store_may_be_written_in_several_ways(uri, other, same, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert same_store(uri, other.format(here=tmp_path)) is same
