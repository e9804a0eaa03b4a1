"""Every member of every kind of store is reached through the proxy: the same arguments, results and exceptions."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import types
from unittest import mock

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.tracking._model_registry.utils import _get_store_registry
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd_mlflow import DatabandStore, build_composite_uri
from dbnd_mlflow._store.taps import TAPPED


@pytest.fixture(params=["sqlite", "file", "http", "registry sqlite", "registry file", "registry http"])
def pair(request, tracker_url, tmp_path, monkeypatch):
    """A proxy and the store behind it; nothing listens on the http one's port."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    kind = request.param.rpartition(" ")[2]
    if kind == "sqlite":
        inner = request.getfixturevalue("inner_uri")
    elif kind == "file":
        inner = (tmp_path / "runs").as_uri()
    else:
        inner = tracker_url
    uri = build_composite_uri(tracker_url, inner)
    store = _get_store_registry().get_store(uri) if request.param.startswith("registry") else _get_store(uri)
    return store, object.__getattribute__(store, "_databand_inner")


def members(inner):
    """Names of all that a store and its classes have, but for what every object has."""
    return sorted({*dir(inner), *vars(inner)} - set(dir(object)) - {"__weakref__"})


def methods(inner):
    """The plain methods and coroutines of a store, by name."""
    found = {name: inspect.getattr_static(type(inner), name, None) for name in members(inner)}
    return {name: each for name, each in found.items() if isinstance(each, types.FunctionType)}


def look_up(obj, name):
    try:
        return getattr(obj, name)
    except Exception as error:  # noqa: BLE001  the very exception is what is compared
        return type(error), str(error)


def test_every_member_is_that_of_the_inner_store(pair):
    store, inner = pair
    for name in members(inner):
        expected, found = look_up(inner, name), look_up(store, name)
        if name in TAPPED:
            assert found.__func__.__wrapped__ is expected.__func__, name
            assert found.__name__ == expected.__name__
            assert found.__doc__ == expected.__doc__
            assert inspect.signature(found) == inspect.signature(expected)
            assert inspect.iscoroutinefunction(found) == inspect.iscoroutinefunction(expected)
            assert inspect.ismethod(found)
            assert isinstance(found.__self__, type(inner))
        else:
            assert found is expected or found == expected, name
    assert len(members(inner)) > 30
    assert dir(store) == dir(inner)
    assert vars(store) is vars(inner)


def test_it_is_what_the_inner_store_is(pair):
    store, inner = pair
    assert type(store) is DatabandStore
    assert isinstance(store, DatabandStore)
    for base in type(inner).__mro__:
        assert isinstance(store, base)
    assert store.__class__ is type(inner)
    assert store.__doc__ == inner.__doc__
    assert store.__module__ == inner.__module__
    assert not hasattr(store, "no_such_member")
    with pytest.raises(AttributeError) as ours:
        _ = store.no_such_member
    with pytest.raises(AttributeError) as native:
        _ = inner.no_such_member
    assert str(ours.value) == str(native.value)
    assert store == store  # noqa: PLR0124  and not what the inner store compares
    assert {store: 1}[store] == 1
    assert repr(inner) in repr(store)


@pytest.mark.parametrize("way", ["positional", "keyword", "mixed"])
def test_every_method_gets_the_very_arguments_and_returns_the_very_result(pair, way, capsys):
    store, inner = pair
    for name, function in methods(inner).items():
        if name.startswith("__"):
            continue
        _, *parameters = inspect.signature(function).parameters.values()
        named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        only_named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        values = {each: object() for each in (*named, *only_named)}
        count = {"positional": len(named), "keyword": 0, "mixed": (len(named) + 1) // 2}[way]
        args = tuple(values[each] for each in named[:count])
        kwargs = {each: values[each] for each in (*named[count:], *only_named)}
        for raised in (None, RuntimeError("of the store"), KeyboardInterrupt()):
            result, calls = object(), []
            with mock.patch.object(type(inner), name, recorder(function, calls, result, raised)):
                assert called(store, name, args, kwargs) is (result if raised is None else raised), name
            ((self, got_args, got_kwargs),) = calls
            assert self is inner
            assert len(got_args) == len(args)
            assert all(got is given for got, given in zip(got_args, args, strict=True)), name
            assert got_kwargs.keys() == kwargs.keys()
            assert all(got_kwargs[each] is kwargs[each] for each in kwargs), name


def recorder(function, calls, result, raised):
    """A method of the same signature that notes its arguments, and returns or raises the same thing every time."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def record_async(self, *args, **kwargs):
            await asyncio.sleep(0)
            return record(self, *args, **kwargs)

    @functools.wraps(function)
    def record(self, *args, **kwargs):
        calls.append((self, args, kwargs))
        if raised is not None:
            raise raised
        return result

    return record_async if inspect.iscoroutinefunction(function) else record


def called(store, name, args, kwargs):
    try:
        found = getattr(store, name)(*args, **kwargs)
        if not inspect.iscoroutine(found):
            return found
        # Driven by hand: asyncio.run() would not let a KeyboardInterrupt through as it is.
        while True:
            found.send(None)
    except StopIteration as done:
        return done.value
    except BaseException as error:  # noqa: BLE001  the very exception is what is compared
        return error


def test_every_attribute_can_be_set_and_deleted_through_the_proxy(pair):
    store, inner = pair
    before = dict(vars(inner))
    for name in members(inner):
        if name.startswith("__") or isinstance(inspect.getattr_static(type(inner), name, None), property):
            continue
        value = object()
        had = name in vars(inner)
        old = vars(inner).get(name)
        setattr(store, name, value)
        assert getattr(store, name) is value
        assert vars(inner)[name] is value
        delattr(store, name)
        assert name not in vars(inner)
        if had:
            setattr(store, name, old)
    assert vars(inner) == before
    with pytest.raises(AttributeError):
        del store.no_such_member


def test_every_method_can_be_patched_on_the_proxy_and_comes_back(pair):
    store, inner = pair
    before = dict(vars(inner))
    for name in methods(inner):
        if name.startswith("__"):
            continue
        found = getattr(store, name)
        with mock.patch.object(store, name, new_callable=mock.MagicMock) as patched:
            getattr(store, name)(1, key=2)
            patched.assert_called_once_with(1, key=2)
        with mock.patch.object(store, name, autospec=True) as patched:
            assert getattr(store, name) is patched
        assert getattr(store, name) == found, name
    assert vars(inner) == before


def test_bound_methods_are_equal_hashable_and_picklable(pair):
    store, _ = pair
    name = "log_batch" if hasattr(store, "log_batch") else "create_model_version"
    method = getattr(store, name)
    assert method == getattr(store, name)
    assert {method: 1}[getattr(store, name)] == 1
    assert pickle.loads(pickle.dumps(method)) == method


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))])
def test_copies_are_the_one_store_of_this_process(pair, copied):
    store, inner = pair
    found = copied(store)
    assert type(found) is DatabandStore
    assert found is store
    assert object.__getattribute__(found, "_databand_inner") is inner


def test_context_managers_and_properties_of_a_database_work(tracker_url, inner_uri):
    store = _get_store(build_composite_uri(tracker_url, inner_uri))
    inner = object.__getattribute__(store, "_databand_inner")
    assert store.engine is inner.engine
    with store.ManagedSessionMaker() as session:
        assert session.bind is inner.engine


def test_functions_of_the_class_take_the_proxy_for_an_instance(tracker_url, inner_uri, journalled):
    store = _get_store(build_composite_uri(tracker_url, inner_uri))
    run = store.__class__.create_run(store, "0", "u", 1, [], "r")
    assert store.__class__.get_run(store, run.info.run_id).info.run_id == run.info.run_id


# ------------------------------------------------------------------------------------------------ exactly once


@pytest.fixture(params=["sqlite", "file"])
def store(request, tracker_url, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    inner = request.getfixturevalue("inner_uri") if request.param == "sqlite" else (tmp_path / "runs").as_uri()
    return _get_store(build_composite_uri(tracker_url, inner))


def arguments(store, run):
    """For each tapped method the arguments of a call, and how many events it makes."""
    run_id, experiment_id = run.info.run_id, run.info.experiment_id
    dataset = {"datasets": []}
    return {
        "create_experiment": ({"name": "new", "artifact_location": None, "tags": []}, 0),
        "create_run": (
            {"experiment_id": experiment_id, "user_id": "u", "start_time": 1, "tags": [], "run_name": "second"},
            4,  # the run, its state, its link, its tags
        ),
        "_hard_delete_experiment": ({"experiment_id": experiment_id}, 0),  # its runs were deleted before
        "_hard_delete_run": ({"run_id": run_id}, 1),
        "delete_experiment": ({"experiment_id": experiment_id}, 1),
        "delete_run": ({"run_id": run_id}, 1),
        "delete_tag": ({"run_id": run_id, "key": "t"}, 1),
        "get_experiment": ({"experiment_id": experiment_id}, 0),
        "get_experiment_by_name": ({"experiment_name": "e"}, 0),
        "get_run": ({"run_id": run_id}, 0),
        "log_batch": (
            {
                "run_id": run_id,
                "metrics": [Metric("m", 1.0, 5, 1)],
                "params": [Param("p", "1")],
                "tags": [RunTag("u", "1")],
            },
            1,
        ),
        "log_inputs": ({"run_id": run_id, **dataset}, 0),
        "log_metric": ({"run_id": run_id, "metric": Metric("m", 1.0, 5, 1)}, 1),
        "log_param": ({"run_id": run_id, "param": Param("p", "1")}, 1),
        "rename_experiment": ({"experiment_id": experiment_id, "new_name": "other"}, 1),
        "restore_experiment": ({"experiment_id": experiment_id}, 1),
        "set_tag": ({"run_id": run_id, "tag": RunTag("u", "1")}, 1),
        "update_run_info": (
            {"run_id": run_id, "run_status": RunStatus.FINISHED, "end_time": 2, "run_name": None},
            2,  # the states of task run and run
        ),
    }


# They come after the deletion of an experiment.
OF_DELETED = {"_hard_delete_experiment", "restore_experiment"}
# Here below, and with real models in test_exactly_once.
TESTED_ELSEWHERE = {"create_logged_model", "create_model_version", "record_logged_model", "restore_run"}


@pytest.mark.parametrize("name", sorted(TAPPED - TESTED_ELSEWHERE))
def test_each_way_of_calling_a_method_is_reported_once(name, store, journalled, capsys):
    for positional in range(6):
        run = store.create_run(store.create_experiment(f"e{positional}", None, []), "u", 1, [RunTag("t", "v")], "r")
        given, events = arguments(store, run)[name]
        if "experiment_name" in given or "new_name" in given:
            given = {**given, **{key: f"e{positional}" for key in given if key == "experiment_name"}}
            given = {**given, **{key: f"other{positional}" for key in given if key == "new_name"}}
        if name == "create_experiment":
            given = {**given, "name": f"new{positional}"}
        if positional > len(given):
            break
        names = [each for each in inspect.signature(getattr(store, name)).parameters if each in given]
        if name in OF_DELETED:
            store.delete_experiment(run.info.experiment_id)
        before = len(journalled())
        keywords = {each: given[each] for each in names[positional:]}
        getattr(store, name)(*(given[each] for each in names[:positional]), **keywords)
        assert len(journalled()) - before == events, (name, positional)
    assert "could not be reported" not in capsys.readouterr().err


def test_restoring_is_reported_once(store, journalled):
    run_id = store.create_run(store.create_experiment("e", None, []), "u", 1, [], "r").info.run_id
    for call in (lambda method: method(run_id), lambda method: method(run_id=run_id)):
        store.delete_run(run_id)
        before = len(journalled())
        call(store.restore_run)
        assert len(journalled()) - before == 1


@pytest.mark.parametrize("positional", [0, 1, 2])
def test_a_model_version_is_reported_once(positional, tracker_url, inner_uri, journalled):
    uri = build_composite_uri(tracker_url, inner_uri)
    client = MlflowClient(tracking_uri=uri)
    run_id = client.create_run("0").info.run_id
    client.create_registered_model("m")
    registry = client._get_registry_client().store
    before = len(journalled())
    given = {"name": "m", "source": f"runs:/{run_id}/model", "run_id": run_id}
    names = list(given)
    registry.create_model_version(
        *(given[each] for each in names[:positional]), **{each: given[each] for each in names[positional:]}
    )
    ((call, body),) = journalled()[before:]
    assert (call, body["name"], body["path"]) == ("log_artifact", "model:m/1", "models:/m/1")
