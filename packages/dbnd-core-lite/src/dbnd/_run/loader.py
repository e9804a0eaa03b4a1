"""Finding the task that ``dbnd run TARGET`` names."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Final

from dbnd._base.errors import TaskNotFoundError, UsageError
from dbnd._base.signals import TerminatedError
from dbnd._run.task import Task, task_of
from dbnd._terminal.text import did_you_mean

GROUP: Final = "dbnd.tasks"


class TargetImportError(UsageError):
    """The module of a target raised while it was imported; the cause is the user's own exception."""


def load_task(target: str) -> Task:
    """The task that ``target`` names: ``package.module.task``, ``path/to/file.py::task``, or a short name.

    Installed distributions register short names in the entry-point group ``dbnd.tasks``.

    Raises:
        TaskNotFoundError: There is no such file, module or task.
        TargetImportError: The module raised while it was imported.
    """
    if "::" in target or target.endswith(".py"):
        path, _, name = target.partition("::")
        return _from_module(_import_file(Path(path), target), name, target)
    short = {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}
    if target in short:
        module, _, name = short[target].value.partition(":")
        return _from_module(_import(module, target), name, target)
    module, dot, name = target.rpartition(".")
    if not dot:
        hint = did_you_mean(target, short) or _listed("Registered names", short)
        raise TaskNotFoundError(f"There is no task {target!r}: name it as package.module.task or file.py::task.{hint}")
    return _from_module(_import(module, target), name, target)


def _from_module(module: ModuleType, name: str, target: str) -> Task:
    tasks = {key: found for key, value in vars(module).items() if (found := task_of(value)) is not None}
    if name in tasks:
        return tasks[name]
    if not name:
        msg = f"{target!r} names a file but no task.{_listed('Its tasks', tasks)} Add ::NAME."
    elif callable(getattr(module, name, None)):
        msg = f"{target!r} is not a task: decorate {name!r} with @task (from dbnd import task)."
    else:
        near = did_you_mean(name, tasks) or _listed("Its tasks", tasks)
        msg = f"There is no task {name!r} in {module.__file__ or module.__name__}.{near}"
    raise TaskNotFoundError(msg)


def _import_file(path: Path, target: str) -> ModuleType:
    if not os.path.isfile(path):  # noqa: PTH113  Path.is_file() raises for a name that is too long
        raise TaskNotFoundError(f"There is no file {str(path)!r}, which the target {target!r} names.")
    # As `python file.py` does, so that the file's neighbours can be imported.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TaskNotFoundError(f"{str(path)!r}, which the target {target!r} names, is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with _imported(str(path)):
        spec.loader.exec_module(module)
    return module


def _import(name: str, target: str) -> ModuleType:
    try:
        with _imported(name):
            return importlib.import_module(name)
    except TargetImportError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise TaskNotFoundError(f"There is no module {missing!r}, which the target {target!r} names.") from None
        raise


@contextmanager
def _imported(what: str) -> Iterator[None]:
    """Import the module ``what`` in the block: a script without a guard may even end by ``sys.exit()`` there."""
    try:
        yield
    except (KeyboardInterrupt, TerminatedError):
        raise
    except BaseException as error:
        raise TargetImportError(f"The module {what!r} cannot be imported; the error above is its own.") from error


def _listed(what: str, names: Iterable[str]) -> str:
    listed = ", ".join(sorted(names))
    return f" {what}: {listed}." if listed else ""
