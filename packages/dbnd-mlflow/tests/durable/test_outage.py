"""MLflow's server goes away and comes back: what was logged meanwhile stands in it, once, as it was logged."""

from __future__ import annotations

import os
import sys
import threading
import uuid
from pathlib import Path

import mlflow
import pytest
from kit.faults import lost_answer, passing
from kit.scale import leading
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.utils import import_hooks
from mlflow.utils.rest_utils import MlflowHostCreds

from dbnd._context.registry import create_reader, get_client, load_config
from dbnd_mlflow import build_composite_uri
from dbnd_mlflow._durable.ids import FIRST_ID, is_own
from dbnd_mlflow._durable.runs import RunView
from dbnd_mlflow._durable.store import outboxes
from dbnd_mlflow._durable.target import request

# While the server is away, `keep` goes the way of `deferred` from its first write on.
in_an_outage = pytest.mark.parametrize("writes", leading(["keep", "deferred"]))


def settle() -> None:
    """Deliver everything."""
    for outbox in outboxes():
        assert outbox.flush(60), outbox.trouble
        assert (outbox.refused, outbox.dropped) == (0, 0)


def points(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, float, int]]:
    return sorted((m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, key))


def test_a_run_goes_on_while_the_server_is_away(proxy, server, track, writes):
    track(proxy.url, writes)
    logged = []
    with mlflow.start_run(run_name="one") as run:
        for step in range(30):
            if step == 10:
                proxy.refuse()
            if step == 20:
                proxy.listen()
            mlflow.log_metric("m", step / 3, step=step, timestamp=1_700_000_000_000 + step)
            logged.append((step, step / 3, 1_700_000_000_000 + step))
            mlflow.log_param(f"p{step}", step)
            mlflow.set_tag("t", str(step))
    settle()
    found = server.get_run(run.info.run_id)
    assert points(server, run.info.run_id, "m") == logged
    assert found.data.params == {f"p{step}": str(step) for step in range(30)}
    assert (found.data.tags["t"], found.info.status, found.info.run_name) == ("29", "FINISHED", "one")


def test_a_request_waits_for_no_thread_that_runs_an_import_hook_of_mlflow(free_port, monkeypatch):
    """Such a thread imports, for which it may have to wait in turn: so ``autolog`` and the sender hung for ever."""
    monkeypatch.setitem(import_hooks._post_import_hooks, "no_such_module", [])
    monkeypatch.setattr(sys, "meta_path", [import_hooks.ImportHookFinder(), *sys.meta_path])

    def ask():
        with pytest.raises(MlflowException, match="Max retries exceeded"):
            request(MlflowHostCreds(f"http://127.0.0.1:{free_port}"), "/health", "GET", timeout=1)

    ask()  # imports what there is
    asking = threading.Thread(target=ask, daemon=True)
    with import_hooks._post_import_hooks_lock:
        asking.start()
        asking.join(20)
        waits = asking.is_alive()
    asking.join()
    assert not waits


def test_a_run_that_was_just_created_is_known_as_the_store_will_answer_it(inner_uri):
    store = _get_store(inner_uri)
    created = store.create_run("0", "user", 1, [], "name")
    assert RunView("", created).run().to_dictionary() == store.get_run(created.info.run_id).to_dictionary()


@in_an_outage
def test_a_run_that_begins_during_an_outage_is_created_when_it_is_over(proxy, server, track, writes, tmp_path):
    track(proxy.url, writes)
    proxy.refuse()
    (tmp_path / "model.bin").write_bytes(b"weights")
    with mlflow.start_run(run_name="outer", tags={"mine": "1"}) as outer:
        assert is_own(outer.info.run_id)
        mlflow.log_metric("m", 1.5, step=7)
        mlflow.log_artifact(str(tmp_path / "model.bin"), "models/best")
        mlflow.log_dict({"a": 1}, "a.json")
        with mlflow.start_run(nested=True) as inner:
            mlflow.log_param("p", "x")
    (tmp_path / "model.bin").write_bytes(b"changed since")
    seen = mlflow.get_run(outer.info.run_id)
    assert (seen.info.status, seen.data.metrics, seen.info.run_id) == ("FINISHED", {"m": 1.5}, outer.info.run_id)
    proxy.listen()
    settle()

    made = mlflow.get_run(outer.info.run_id)
    found = server.get_run(made.info.run_id)
    assert not is_own(found.info.run_id)
    assert (found.info.start_time, found.info.end_time) == (outer.info.start_time, seen.info.end_time)
    assert (found.info.run_name, found.info.status, found.info.user_id) == ("outer", "FINISHED", outer.info.user_id)
    assert (found.data.tags["mine"], found.data.tags[FIRST_ID]) == ("1", outer.info.run_id)
    assert points(server, found.info.run_id, "m")[0][:2] == (7, 1.5)
    child = server.get_run(mlflow.get_run(inner.info.run_id).info.run_id)
    assert child.data.tags["mlflow.parentRunId"] == found.info.run_id
    assert child.data.params == {"p": "x"}
    assert len(server.search_runs([found.info.experiment_id])) == 2
    local = mlflow.artifacts.download_artifacts(run_id=outer.info.run_id, artifact_path="models/best/model.bin")
    assert Path(local).read_bytes() == b"weights"
    assert mlflow.artifacts.load_dict(f"{found.info.artifact_uri}/a.json") == {"a": 1}
    # What is logged with the first id goes on to find the run.
    with mlflow.start_run(run_id=outer.info.run_id):
        mlflow.log_metric("late", 2)
    settle()
    assert server.get_run(found.info.run_id).data.metrics == {"m": 1.5, "late": 2}


@pytest.mark.parametrize(
    ("writes", "what"),
    [
        *(("keep", what) for what in ("create", "log-batch", "log-metric", "update", "set-tag")),
        *(("deferred", what) for what in ("create", "log-batch", "update")),  # it sends no single values
    ],
)
def test_what_is_sent_again_after_a_lost_answer_is_there_once(proxy, server, track, writes, what):
    left = [what]

    def fault(exchange):
        if f"runs/{what}" in exchange.path and left:
            left.pop()
            lost_answer(exchange)
        else:
            passing(exchange)

    proxy.otherwise = fault
    track(proxy.url, writes)
    with mlflow.start_run() as run:
        for step in range(5):
            mlflow.log_metric("m", step, step=step)
        mlflow.log_params({"a": 1, "b": 2})
        mlflow.set_tag("t", "x")
    settle()
    assert not left
    (found,) = server.search_runs(["0"])
    assert mlflow.get_run(run.info.run_id).info.run_id == found.info.run_id
    assert [step for step, *_ in points(server, found.info.run_id, "m")] == [0, 1, 2, 3, 4]
    assert (found.data.params, found.data.tags["t"], found.info.status) == ({"a": "1", "b": "2"}, "x", "FINISHED")


def test_the_tracker_hears_which_run_of_the_store_it_has_become(proxy, track, tmp_path):
    track(proxy.url, "keep")
    proxy.refuse()
    with mlflow.start_run() as run:
        pass
    url = f"sqlite:///{tmp_path / 'tracker.db'}"
    config = load_config(conf={"core.databand_url": url})
    assert get_client(url, config).flush(60)
    uid = str(uuid.UUID(run.info.run_id))
    before = create_reader(config).task_run(uid)
    assert before["links"] == {}  # no page of MLflow has the first id
    assert {"name": "dbnd.first_run_id", "value": run.info.run_id} in before["tags"]
    proxy.listen()
    settle()
    real = mlflow.get_run(run.info.run_id).info.run_id
    assert get_client(url, config).flush(60)
    task_run = create_reader(config).task_run(uid)
    assert next(tag for tag in task_run["tags"] if tag["name"] == "dbnd.mlflow_run_id")["value"] == real
    assert task_run["links"]["mlflow"] == f"{proxy.url}#/experiments/0/runs/{real}"


def test_what_is_read_during_an_outage_is_what_the_server_says_afterwards(proxy, track, writes, monkeypatch):
    track(proxy.url, writes)
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__STORE_TIMEOUT", "5")  # a read waits as long for what is deferred
    with mlflow.start_run() as run:
        mlflow.log_metric("before", 1)
        settle()
        proxy.refuse()
        client = MlflowClient()
        client.log_batch(
            run.info.run_id,
            [Metric("m", value, 1_000, step) for step, value in ((5, 1.0), (9, float("nan")), (9, 3.0), (2, 8.0))],
            [Param("p", "1")],
            [RunTag("t", "x"), RunTag("gone", "y")],
        )
        client.delete_tag(run.info.run_id, "gone")
        client.update_run(run.info.run_id, name="renamed")
        away = client.get_run(run.info.run_id).to_dictionary()
        proxy.listen()
        settle()
        assert client.get_run(run.info.run_id).to_dictionary() == away
        assert away["data"]["metrics"] == {"before": 1, "m": 3.0}
        assert (away["info"]["run_name"], "gone" in away["data"]["tags"]) == ("renamed", False)


@in_an_outage
def test_the_history_of_a_run_that_is_not_sent_yet_is_complete(proxy, track, writes):
    track(proxy.url, writes)
    proxy.refuse()
    with mlflow.start_run() as run:
        for step in range(20):
            mlflow.log_metric("m", step, step=step)
    assert [m.step for m in MlflowClient().get_metric_history(run.info.run_id, "m")] == list(range(20))


def test_the_history_is_complete_too_where_the_run_began_before_the_outage(proxy, track, writes):
    track(proxy.url, writes)
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    proxy.refuse()
    for step in range(3):
        client.log_metric(run_id, "m", step, step=step)
    assert [m.step for m in client.get_metric_history(run_id, "m")] == [0, 1, 2]
    proxy.listen()
    settle()
    proxy.refuse()  # nothing waits
    assert [m.step for m in client.get_metric_history(run_id, "m")] == [0, 1, 2]


class _Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


def test_a_model_is_logged_in_an_outage_that_has_begun_after_its_run(proxy, server, track, writes):
    """MLflow 3 reads the history of all metrics of the run for that."""
    track(proxy.url, writes)
    with mlflow.start_run() as run:
        mlflow.log_metric("m", 1, step=1)
        settle()
        proxy.refuse()
        mlflow.log_metric("m", 2, step=2)
        mlflow.pyfunc.log_model("model", python_model=_Echo(), pip_requirements=[])
        history = MlflowClient().get_metric_history(run.info.run_id, "m")
        assert [(m.step, m.value) for m in history] == [(1, 1), (2, 2)]
        proxy.listen()
    settle()
    assert {point[:2] for point in points(server, run.info.run_id, "m")} == {(1, 1), (2, 2)}
    place = f"runs:/{server.get_run(run.info.run_id).info.run_id}/model"
    mlflow.set_tracking_uri(server.tracking_uri)
    assert mlflow.pyfunc.load_model(place).predict([1]) == [1]


@in_an_outage
def test_an_artifact_that_is_not_there_is_the_error_of_mlflow(proxy, track, writes, tmp_path):
    track(proxy.url, writes)
    proxy.refuse()
    with mlflow.start_run(), pytest.raises(FileNotFoundError):
        mlflow.log_artifact(str(tmp_path / "missing"))
    proxy.listen()
    settle()


def test_bad_input_raises_what_the_server_raises(proxy, server, track, writes):
    track(proxy.url, writes)
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    plain = server.create_run("0").info.run_id
    for each, this in ((server, plain), (client, run_id)):
        each.log_param(this, "p", "1")
    proxy.refuse()
    calls = [
        lambda c, i: c.log_param(i, "p", "2"),
        lambda c, i: c.log_batch(i, params=[Param("p", "3")]),
        lambda c, i: c.log_metric(i, "a?b", 1),
        lambda c, i: c.set_tag(i, "k" * 300, "v"),
        lambda c, i: c.log_batch(i, params=[Param("a", "1"), Param("a", "2")]),
        lambda c, i: c.delete_tag(i, "never set"),
    ]
    for call in calls:
        with pytest.raises(MlflowException) as ours:
            call(client, run_id)
        with pytest.raises(MlflowException) as theirs:
            call(server, plain)
        assert type(ours.value) is type(theirs.value)
        assert str(ours.value).replace(run_id, plain) == str(theirs.value)
    proxy.listen()
    settle()
    assert client.get_run(run_id).data.params == {"p": "1"}


def test_a_param_that_only_the_server_knows_becomes_a_dead_letter_and_takes_nothing_along(proxy, server, track):
    track(proxy.url, "deferred")
    with mlflow.start_run() as run:
        server.log_param(run.info.run_id, "p", "theirs")
        mlflow.log_param("p", "ours")
        mlflow.log_param("q", "1")
        mlflow.log_metric("m", 1)
    (outbox,) = outboxes()
    assert outbox.flush(60)
    assert outbox.refused == 1
    found = server.get_run(run.info.run_id)
    assert (found.data.params, found.data.metrics) == ({"p": "theirs", "q": "1"}, {"m": 1})
    (letter,) = Path(os.environ["DBND_HOME"], "journal").glob("*.dead")
    assert "Changing param values is not allowed" in letter.read_text()


@in_an_outage
def test_experiments_that_were_seen_are_known_and_new_ones_are_made_later(proxy, server, track, writes):
    def quicker(exchange):
        """Let another machine make the experiment, between the look for it and the call that makes it."""
        if "experiments/create" in exchange.path:
            server.create_experiment("never seen")
        passing(exchange)

    track(proxy.url, writes)
    known = mlflow.set_experiment("seen before").experiment_id
    proxy.refuse()
    assert mlflow.set_experiment("seen before").experiment_id == known
    with mlflow.start_run() as first:
        pass
    new = mlflow.set_experiment("never seen").experiment_id
    with mlflow.start_run() as second:
        mlflow.log_metric("m", 1)
    store = _get_store(build_composite_uri("http://localhost:1", proxy.url, writes))  # as another process has it
    assert store.get_experiment(new).name == "never seen"
    proxy.otherwise = quicker
    proxy.listen()
    assert "never seen" in [each.name for each in mlflow.search_experiments()]
    settle()
    made = server.get_experiment_by_name("never seen")
    assert mlflow.get_run(first.info.run_id).info.experiment_id == known
    assert mlflow.get_run(second.info.run_id).info.experiment_id == made.experiment_id


@in_an_outage
def test_a_full_spool_is_an_error_of_mlflow(proxy, track, writes, tmp_path, monkeypatch):
    monkeypatch.setenv("DBND__MLFLOW_TRACKING__STORE_SPOOL_MAX_BYTES", "100")
    track(proxy.url, writes)
    proxy.refuse()
    (tmp_path / "small").write_bytes(b"x" * 60)
    with mlflow.start_run():
        mlflow.log_artifact(str(tmp_path / "small"))
        with pytest.raises((MlflowException, OSError)):
            mlflow.log_artifact(str(tmp_path / "small"), "again")
    proxy.listen()
    settle()


def test_a_run_whose_other_calls_went_through_ends_in_an_outage(proxy, track, writes):
    track(proxy.url, writes)
    client = MlflowClient()
    with mlflow.start_run() as run:
        other = client.create_run("0").info.run_id
        client.delete_run(other)
        mlflow.log_metric("m", 1)
        proxy.refuse()
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    proxy.listen()
    settle()


@in_an_outage
def test_a_run_is_found_by_its_first_id_through_the_composite_uri(proxy, track, writes):
    track(proxy.url, writes)
    proxy.refuse()
    with mlflow.start_run() as run:
        pass
    proxy.listen()
    settle()
    (found,) = MlflowClient().search_runs(["0"], f"tags.`{FIRST_ID}` = '{run.info.run_id}'")
    assert found.info.run_id == mlflow.get_run(run.info.run_id).info.run_id


def test_a_run_that_began_in_an_outage_is_the_same_by_the_id_that_the_store_gave_it(proxy, server, track, tmp_path):
    track(proxy.url, "keep")
    proxy.refuse()
    with mlflow.start_run() as outer:
        proxy.listen()
        settle()
        (real,) = (run.info.run_id for run in server.search_runs(["0"]))
        MlflowClient().log_metric(real, "by the real id", 1)
        with mlflow.start_run(nested=True) as inner:
            assert not is_own(inner.info.run_id)
    url = f"sqlite:///{tmp_path / 'tracker.db'}"
    config = load_config(conf={"core.databand_url": url})
    assert get_client(url, config).flush(60)
    reader, uid = create_reader(config), str(uuid.UUID(outer.info.run_id))
    assert reader.task_run(str(uuid.UUID(inner.info.run_id)))["parent_task_run_uid"] == uid
    assert [metric["key"] for metric in reader.task_run(uid)["metrics"]] == ["by the real id"]
    assert reader.task_run(str(uuid.UUID(real))) is None


@pytest.mark.parametrize("is_folder", [False, True], ids=["database", "folder"])
def test_a_store_whose_file_is_gone_is_waited_for_and_not_made_anew(inner_uri, track, tmp_path, is_folder):
    """A disk may come back. An empty store in its place would refuse all that belongs to the runs of this one."""
    place = tmp_path / ("runs" if is_folder else "inner.db")
    inner = place.as_uri() if is_folder else inner_uri
    track(inner, "deferred")
    with mlflow.start_run() as run:
        settle()
        elsewhere = place.rename(tmp_path / "elsewhere")
        mlflow.log_metric("m", 1)
        if is_folder:  # an open database is read on
            assert mlflow.get_run(run.info.run_id).data.metrics == {"m": 1}
    (outbox,) = outboxes()
    assert not outbox.flush(2)
    assert "is not there" in str(outbox.trouble)
    assert not place.exists()
    elsewhere.rename(place)
    settle()
    found = MlflowClient(inner).get_run(run.info.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"m": 1})


def test_a_database_that_is_named_by_a_uri_of_sqlite_is_delivered_to(inner_uri, track):
    inner = inner_uri.replace("sqlite:///", "sqlite:///file:") + "?uri=true"
    track(inner, "deferred")
    with mlflow.start_run() as run:
        mlflow.log_metric("m", 1)
    settle()
    assert MlflowClient(inner_uri).get_run(run.info.run_id).data.metrics == {"m": 1}
