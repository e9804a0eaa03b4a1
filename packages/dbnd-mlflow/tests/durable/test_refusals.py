"""What a store refuses, or takes in a way of its own, it refuses and takes in the same way while its writes are kept.

The calls are those of a store, as other code of MLflow makes them: the client would make texts and numbers of the
arguments before.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, ExperimentTag, InputTag, Metric, Param, RunStatus, RunTag, ViewType
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd_mlflow import build_composite_uri
from dbnd_mlflow._durable.errors import is_remote
from dbnd_mlflow._durable.ids import FIRST_ID
from dbnd_mlflow._durable.store import outboxes

_LONG = 2**70
_NOTHING = "0" * 32
_KEYS = (None, "", 1, "a?b", "../x", "k" * 300, "größe")
_TEXTS = (5, [1, 2], "a\ud800b", "", "x" * 6_001)
_METRIC = {"key": "k", "value": 1.0, "timestamp": 5, "step": 1}
_METRICS = [
    Metric(**{**_METRIC, field: value})
    for field, values in {
        "key": _KEYS,
        "value": (None, "apple", "1.5", 10**30, 10**400, [1], np.float32(0.1), np.int64(3), float("nan")),
        "timestamp": (None, "x", -5, _LONG),
        "step": (None, "x", -5, _LONG),
    }.items()
    for value in values
]
_DATASET = {"name": "n", "digest": "d", "source_type": "s", "source": "x", "schema": "sc", "profile": "pr"}
_DATASETS = [
    Dataset(**{**_DATASET, "digest": f"{field}{number}", field: value})
    for field in _DATASET
    for number, value in enumerate((None, 5, "", "a" * 70_000))
]


def of_metrics():
    for metric in _METRICS:
        yield "log_metric", "run", metric
        if metric.value == metric.value:  # MLflow 3.1 refuses a NaN that it has
            yield "log_batch", "run", [metric], [], []
    if hasattr(mlflow.entities, "LoggedModel"):
        yield "log_metric", "run", Metric(**_METRIC, model_id="")
        yield "log_metric", "run", Metric(**_METRIC, model_id="nothing")
    yield "log_metric", _NOTHING, Metric("m", None, 1, 1)
    yield "log_metric", "run", "no metric"
    yield "log_metric", "run"


def of_texts():
    for key in _KEYS:
        yield "log_param", "run", Param(key, "x")
        yield "set_tag", "run", RunTag(key, "x")
        yield "delete_tag", "run", key
        yield "log_batch", "run", [], [Param(key, "x")], []
        yield "log_batch", "run", [], [], [RunTag(key, "x")]
    for number, value in enumerate(_TEXTS):
        yield "log_param", "run", Param(f"q{number}", value)
        yield "set_tag", "run", RunTag("q", value)
        yield "update_run_info", "run", None, None, value
    yield "log_param", "run", Param("none", None)
    yield "log_param", "run", Param("zero", "a\0b")
    yield "log_param", "run", Param("p", "2")
    yield "log_batch", "run", [Metric("late", 1.0, 1, 1)], [Param("a", "1"), Param("p", "3")], []
    yield "log_batch", "run", [], [Param("x", "1"), Param("x", "2")], []
    yield "log_batch", "run", None, None, None
    yield "delete_tag", "run", "t"
    yield "delete_tag", "run", "t"
    for run_id in (None, "", _NOTHING):
        yield "set_tag", run_id, RunTag("a", "b")
        yield "log_batch", run_id, [], [], []
        yield "get_run", run_id


def of_paths():
    """Names of which a file store can keep only one: it would be a file, and a folder of others."""
    for first, then in (("a", "a/b"), ("c/d", "c"), ("e", "ef")):
        for key in (first, then):
            yield "log_metric", "run", Metric(key, 1.0, 5, 1)
            yield "log_param", "run", Param(key, "v")
            yield "set_tag", "run", RunTag(key, "v")
            yield "set_experiment_tag", "experiment", ExperimentTag(key, "v")
            if hasattr(mlflow.entities, "LoggedModel"):
                yield "set_logged_model_tags", "model", [mlflow.entities.LoggedModelTag(key, "v")]
                yield "log_logged_model_params", "model", [mlflow.entities.LoggedModelParameter(key, "v")]
    yield "log_batch", "run", [Metric(key, 1.0, 5, 1) for key in ("x", "x/y", "z")], [Param("q", "v")], []
    yield "log_metric", "run", Metric("x/z", 1.0, 5, 1)
    yield "log_metric", "run", Metric("x", 2.0, 5, 2)


def of_inputs():
    for dataset in _DATASETS:
        yield "log_inputs", "run", [DatasetInput(dataset, [])]
    dataset = Dataset(**_DATASET)
    for tag in (InputTag(None, "v"), InputTag("k", None), InputTag("k" * 300, "v")):
        yield "log_inputs", "run", [DatasetInput(dataset, [tag])]
    yield "log_inputs", "run", [DatasetInput(dataset, [InputTag("k", "1"), InputTag("k", "2")])]
    yield "log_inputs", "run", DatasetInput(dataset, [])
    yield "log_inputs", "run"
    yield "log_inputs", _NOTHING, [DatasetInput(dataset, [])]


def of_what_is_gone():
    for name in ("create_run", "get_run", "get_experiment"):
        yield (name,)  # none of its arguments
    for run_id in ("gone", _NOTHING):
        yield "log_metric", run_id, Metric("m", 1.0, 1, 1)
        yield "log_param", run_id, Param("p", "1")
        yield "set_tag", run_id, RunTag("t", "v")
        yield "delete_tag", run_id, "never set"
        yield "log_batch", run_id, [], [], []
        yield "update_run_info", run_id, RunStatus.FINISHED, 5, None
        yield "log_inputs", run_id, []
    yield "update_run_info", "run", 99, None, None
    yield "update_run_info", "run", RunStatus.KILLED, -5, ""
    yield "update_run_info", "run", RunStatus.FINISHED, 0, "renamed"
    yield "set_experiment_tag", "experiment", ExperimentTag("a", "b")
    yield "set_experiment_tag", "experiment", ExperimentTag("../a", "b")
    yield "set_experiment_tag", "123456", ExperimentTag("a", "b")
    yield "set_experiment_tag", "", ExperimentTag("a", "b")
    yield "delete_experiment", "experiment"
    yield "set_experiment_tag", "experiment", ExperimentTag("c", "d")
    yield "get_experiment_by_name", None
    yield "get_experiment", None


def of_models():
    for pairs in ([("a", "1")], [("a", "2")], [("b", "1"), ("b", "2")], [("c", "1"), ("c", "1")], [(None, "1")], []):
        params = [mlflow.entities.LoggedModelParameter(key, value) for key, value in pairs]
        yield "log_logged_model_params", "model", params
    for key in _KEYS:
        yield "set_logged_model_tags", "model", [mlflow.entities.LoggedModelTag(key, "v")]
        yield "log_logged_model_params", "model", [mlflow.entities.LoggedModelParameter(key, "v")]
    for key in ("a?b", "k", "no key"):
        yield "delete_logged_model_tag", "model", key
    yield "get_logged_model", "model"
    yield "delete_logged_model", "model"
    yield "set_logged_model_tags", "model", [mlflow.entities.LoggedModelTag("late", "v")]
    yield "log_logged_model_params", "model", [mlflow.entities.LoggedModelParameter("late", "v")]
    yield "delete_logged_model_tag", "model", "late"
    yield "create_logged_model", None, "named"


def perform(store, calls, name):
    """What a store answers to calls, and what it has afterwards."""
    ids = {"experiment": store.create_experiment(name)}
    ids |= {which: store.create_run(ids["experiment"], "u", 1, [], "r").info.run_id for which in ("run", "gone")}
    if hasattr(store, "create_logged_model"):
        ids["model"] = store.create_logged_model(ids["experiment"], "named").model_id
    store.log_batch(ids["run"], [Metric("m", 1.0, 10, 0)], [Param("p", "1")], [RunTag("t", "v")])
    store.delete_run(ids["gone"])

    def neutral(text):
        for which in ("run", "gone"):
            text = text.replace(ids[which], f"<{which}>")
        text = re.sub(rf"(xperiment |_id': '|id=){ids['experiment']}\b", r"\1<experiment>", text)
        text = text.partition("[parameters: ")[0]  # the ids that MLflow has made up for SQL
        return re.sub(r"m-[0-9a-f]{32}|0x[0-9a-f]+|1[6-9]\d{11}|/tmp\S+|http://\S+|mlflow-artifacts:/\d+", "", text)

    answers = []
    for call, *given in calls():
        try:
            answer = getattr(store, call)(*(ids.get(each, each) if isinstance(each, str) else each for each in given))
            answers.append(neutral(repr(vars(answer) if hasattr(answer, "__dict__") else answer)))
        except Exception as error:  # noqa: BLE001  the very exception is what is compared
            code = getattr(error, "error_code", None)
            # Of a server that fails, as MLflow's 3.8 does at an id of no digits, MLflow's client says only that it has
            # tried too often.
            is_told = not (code == "INTERNAL_ERROR" and is_remote(store))
            answers.append((type(error).__name__, code, neutral(str(error))) if is_told else code)
    if ids["run"]:
        run = store.get_run(ids["run"])
        points = [vars(m) for key in sorted(run.data.metrics) for m in store.get_metric_history(ids["run"], key)]
        inputs = run.inputs.dataset_inputs if run.inputs else ()
        answers += sorted(map(neutral, map(str, points)))
        answers += [neutral(repr(sorted(part.items()))) for part in (run.data.params, run.data.tags)]
        answers += sorted(str(vars(each.dataset)) for each in inputs)
        answers.append(neutral(repr(vars(run.info))))
    answers.append(store.get_experiment(ids["experiment"]).tags)
    return answers


@pytest.fixture(params=["sqlite", "file", "http"])
def inner(request, tmp_path, empty_database):
    """The URI of a store."""
    if request.param == "http":
        return request.getfixturevalue("mlflow_server")
    if request.param == "file":
        return str(tmp_path / "mlruns")
    return f"sqlite:///{shutil.copy(empty_database, tmp_path / 'inner.db')}"


@pytest.mark.parametrize("calls", [of_metrics, of_texts, of_paths, of_inputs, of_models, of_what_is_gone])
def test_a_store_answers_for_itself(inner, calls, tmp_path, monkeypatch):
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__STORE_TIMEOUT", "60")
    tracker = f"sqlite:///{tmp_path / 'tracker.db'}"
    if calls is of_models and not hasattr(mlflow.entities, "LoggedModel"):
        pytest.skip("this MLflow has no logged models")
    expected = perform(_get_store(inner), calls, "plain")
    for writes in ("keep", "deferred"):
        found = perform(_get_store(build_composite_uri(tracker, inner, writes)), calls, writes)
        assert (writes, found) == (writes, expected)
    for outbox in outboxes():
        assert outbox.flush(60)
        assert (outbox.refused, outbox.dropped) == (0, 0)


def test_who_looks_into_the_database_sees_what_waits(tmp_path, empty_database):
    models = pytest.importorskip("mlflow.store.tracking.dbmodels.models")
    inner = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'inner.db')}"
    store = _get_store(build_composite_uri(f"sqlite:///{tmp_path / 'tracker.db'}", inner, "deferred"))
    run_id = store.create_run("0", "u", 1, [], "r").info.run_id
    store.log_metric(run_id, Metric("m", 1.0, 1, 1))
    with store.ManagedSessionMaker() as session:
        assert session.query(models.SqlMetric).filter_by(run_uuid=run_id).count() == 1


def test_who_looks_into_the_files_sees_what_waits(tmp_path):
    inner = (tmp_path / "mlruns").as_uri()
    store = _get_store(build_composite_uri(f"sqlite:///{tmp_path / 'tracker.db'}", inner, "deferred"))
    run_id = store.create_run(store.create_experiment("e"), "u", 1, [], "r").info.run_id
    store.log_param(run_id, Param("p", "v"))
    assert [path.read_text() for path in Path(store.root_directory).glob(f"*/{run_id}/params/p")] == ["v"]


@pytest.mark.parametrize("writes", ["keep", "deferred"])
def test_a_copy_of_a_run_or_model_is_one_of_its_own(inner_uri, tmp_path, writes):
    client = MlflowClient(build_composite_uri(f"sqlite:///{tmp_path / 'tracker.db'}", inner_uri, writes))
    plain = MlflowClient(inner_uri)
    created = [client.create_run("0").info.run_id]
    created.append(client.create_run("0", tags=plain.get_run(created[0]).data.tags).info.run_id)
    assert {run.info.run_id for run in plain.search_runs(["0"])} == set(created)
    found, _ = _get_store(client.tracking_uri)._search_runs(["0"], "", ViewType.ACTIVE_ONLY, 10, [], None)
    assert [FIRST_ID in run.data.tags for run in found] == [False, False]
    if hasattr(plain, "create_logged_model"):
        model = plain.get_logged_model(client.create_logged_model("0", name="m").model_id)
        assert client.create_logged_model("0", name="m", tags=model.tags).model_id != model.model_id
