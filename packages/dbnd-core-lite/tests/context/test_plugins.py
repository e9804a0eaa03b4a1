from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from dbnd import ConfigError, hookimpl
from dbnd._context.plugins import PluginManager


class Recorder:
    def __init__(self, name, log):
        self.name, self.log = name, log

    @hookimpl
    def dbnd_on_pre_init_context(self, ctx):
        self.log.append((self.name, "enter", ctx))

    @hookimpl
    def dbnd_on_exit_context(self):
        self.log.append((self.name, "exit"))


class Failing:
    def __init__(self, error):
        self.error = error

    @hookimpl
    def dbnd_on_pre_init_context(self, ctx):
        del ctx
        raise self.error


@pytest.fixture
def manager():
    return PluginManager()


def test_hooks_are_called_in_order_and_back_with_the_arguments_they_name(manager):
    log = []
    manager.register(Recorder("a", log), "a")
    manager.register(Recorder("b", log), "b")
    manager.call("dbnd_on_pre_init_context", ctx=1)
    manager.call("dbnd_on_exit_context", reverse=True, ctx=1)
    assert log == [("a", "enter", 1), ("b", "enter", 1), ("b", "exit"), ("a", "exit")]


def test_a_plugin_that_raises_is_named_and_does_not_keep_the_others_from_being_called(manager, capsys):
    log = []
    manager.register(Failing(RuntimeError("boom")), "bad")
    manager.register(Recorder("good", log), "good")
    manager.call("dbnd_on_pre_init_context", ctx=1)
    assert log == [("good", "enter", 1)]
    said = capsys.readouterr().err
    assert "'bad'" in said
    assert "dbnd_on_pre_init_context" in said
    assert "boom" in said


class Around:
    """Raises on entering or leaving a task run, or swallows what the task raises."""

    def __init__(self, where):
        self.where = where

    @hookimpl
    def dbnd_task_run_context(self, task_run):
        del task_run
        return 5 if self.where == "nothing to enter" else self

    def __enter__(self):
        if self.where == "entering":
            raise RuntimeError("boom")

    def __exit__(self, *_):
        if self.where == "leaving":
            raise RuntimeError("boom")
        return True


@pytest.mark.parametrize("where", ["entering", "leaving", "swallowing", "nothing to enter"])
def test_what_a_plugin_does_around_a_task_run_leaves_the_task_as_it_is(manager, where, capsys):
    manager.register(Around(where), "bad")
    with manager.task_run_context(SimpleNamespace()):
        pass
    with pytest.raises(ValueError, match="of the user's"), manager.task_run_context(SimpleNamespace()):
        raise ValueError("of the user's")
    assert ("The plugin 'bad' failed in dbnd_task_run_context" in capsys.readouterr().err) is (where != "swallowing")


def test_configuration_errors_surface(manager):
    manager.register(Failing(ConfigError("wrong")), "strict")
    with pytest.raises(ConfigError, match="wrong"):
        manager.call("dbnd_on_pre_init_context", ctx=1)


def test_a_plugin_that_cannot_be_loaded_is_listed_with_its_reason(manager, capsys):
    def load():
        raise ImportError("no module named nowhere")

    manager._load(SimpleNamespace(metadata={"Name": "broken-dist"}, version="1.0"), "broken", load)
    (info,) = manager.infos
    assert (info.name, info.distribution, info.version) == ("broken", "broken-dist", "1.0")
    assert "no module named nowhere" in info.error
    assert "'broken'" in capsys.readouterr().err


def test_a_hook_with_unknown_arguments_is_refused(manager):
    class Wrong:
        @hookimpl
        def dbnd_on_exit_context(self, nothing):
            """No such argument."""

    import pluggy

    with pytest.raises(pluggy.PluginValidationError):
        manager.register(Wrong(), "wrong")


def test_plugins_command_lists_core_with_its_hooks(dbnd):
    infos = {info["name"]: info for info in json.loads(dbnd("plugins", "--json").stdout)}
    assert infos["core"]["distribution"] == "dbnd-core-lite"
    assert {"dbnd_commands", "dbnd_settings", "dbnd_transports"} <= set(infos["core"]["hooks"])
    assert all(info["error"] is None for info in infos.values())
    assert "core" in dbnd("plugins").stdout
