"""Loading of plugins and calling of their hooks, one plugin at a time.

Hooks are called plugin by plugin rather than through pluggy's own multicall, because one that raises must be
reported by name without keeping the others from being called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING, Any, Final

import pluggy

from dbnd._base.environment import version
from dbnd._base.errors import ConfigError
from dbnd._context import hooks
from dbnd._model.error_info import message_of
from dbnd._terminal import console

if TYPE_CHECKING:
    from dbnd._model.run import TaskRun

GROUP: Final = "dbnd"


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What ``dbnd plugins`` shows of one plugin."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    error: str | None = None


class PluginManager:
    """The plugins of this process; ``infos`` lists them in order, and those that could not be loaded."""

    def __init__(self) -> None:
        self._pluggy: Final = pluggy.PluginManager("dbnd")
        self._pluggy.add_hookspecs(hooks)
        self.infos: Final[list[PluginInfo]] = []

    def register(self, plugin: object, name: str, distribution: str = "", version: str = "") -> None:
        """Register ``plugin`` (a module or object with hook implementations) under ``name``.

        Raises:
            pluggy.PluginValidationError: A hook implementation takes arguments that the hook does not have.
        """
        self._pluggy.register(plugin, name)
        self._pluggy.check_pending()
        names = sorted(caller.name for caller in self._pluggy.get_hookcallers(plugin) or ())
        self.infos.append(PluginInfo(name, distribution, version, tuple(names)))

    def load_entry_points(self) -> None:
        """Register what the installed distributions name in the entry-point group ``dbnd``."""
        for distribution in distributions():
            for entry_point in distribution.entry_points:
                if entry_point.group == GROUP and not self._pluggy.has_plugin(entry_point.name):
                    self._load(distribution, entry_point.name, entry_point.load)

    def _load(self, distribution: Distribution, name: str, load: Callable[[], object]) -> None:
        origin = (distribution.metadata["Name"], distribution.version)
        try:
            self.register(load(), name, *origin)
        except Exception as error:  # noqa: BLE001  a foreign plugin may raise anything; it is reported by name
            if self._pluggy.has_plugin(name):
                self._pluggy.unregister(name=name)
            reason = f"{type(error).__name__}: {message_of(error)}"
            self.infos.append(PluginInfo(name, *origin, hooks=(), error=reason))
            what = f"The plugin {name!r} of {' '.join(origin)}"
            console.warning(f"{what} is left out because it cannot be loaded ({reason}).")

    def call(self, hook: str, *, reverse: bool = False, **arguments: object) -> list[Any]:
        """Call ``hook`` in every plugin that has it, the last one first if ``reverse``; returns what is not None.

        Raises:
            ConfigError: An implementation raised it. Any other exception is reported with the plugin's name.
        """
        implementations = getattr(self._pluggy.hook, hook).get_hookimpls()
        results = []
        for impl in reversed(implementations) if reverse else implementations:
            with _guarded(impl):
                results.append(impl.function(*(arguments[name] for name in impl.argnames)))
        return [result for result in results if result is not None]

    def task_run_context(self, task_run: TaskRun) -> ExitStack:
        """Enter what the plugins return from ``dbnd_task_run_context``; leaving the result leaves it in reverse.

        Whatever a plugin does there, an exception of the user's stays what it is.
        """
        with ExitStack() as stack:
            for impl in self._pluggy.hook.dbnd_task_run_context.get_hookimpls():
                with _guarded(impl):
                    context: Any = impl.function(*(task_run for _ in impl.argnames))
                    if context is not None:
                        context.__enter__()
                        stack.push(functools.partial(_leave, impl, context))
            return stack.pop_all()


@contextmanager
def _guarded(impl: pluggy.HookImpl) -> Iterator[None]:
    """Report what a plugin raises in the block by its name; the run goes on without it."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  a plugin may raise anything
        what = f"The plugin {impl.plugin_name!r} failed in {impl.function.__name__}"
        console.warning(f"{what} ({type(error).__name__}: {message_of(error)}); the run goes on.")


def _leave(impl: pluggy.HookImpl, context: AbstractContextManager[Any], *raised: Any) -> None:
    with _guarded(impl):
        context.__exit__(*raised)


@functools.cache
def plugins() -> PluginManager:
    """The process' plugin manager, with core's own plugin and all entry points loaded on first use."""
    manager = PluginManager()
    # Core's own features are contributed as those of any plugin are.
    manager.register(import_module("dbnd._context.core_plugin"), "core", "dbnd-core-lite", version())
    manager.load_entry_points()
    manager.call("dbnd_setup_plugin")
    return manager
