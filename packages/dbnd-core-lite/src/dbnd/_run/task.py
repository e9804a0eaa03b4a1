"""``@task``: a function whose calls inside a run are task runs."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar, cast, overload

from dbnd._base.errors import UsageError
from dbnd._context.current import current_task_run, get_databand_context
from dbnd._model.run import ParamDefinition, TaskDefinition
from dbnd._model.values import param_text, shorten
from dbnd._run.execution import log_result, nested_task

P = ParamSpec("P")
R = TypeVar("R")
_MAX_DEFAULT: Final = 1_000


class Task:
    """What dbnd knows of a decorated function: ``function`` itself, undecorated, and its name and types."""

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.function: Final = function
        self.signature: Final = inspect.signature(function)
        self.name: Final = str(name or getattr(function, "__name__", type(function).__name__))

    @functools.cached_property
    def types(self) -> dict[str, Any]:
        """Types of the parameters by name; that of the default where there is no annotation, else str."""
        try:
            hints = typing.get_type_hints(self.function, include_extras=True)
        except Exception:  # noqa: BLE001  an annotation that exists for type checkers only may raise anything
            hints = {}
        types = {}
        for name, param in self.signature.parameters.items():
            is_unknown = param.default is None or param.default is param.empty
            types[name] = hints.get(name, str if is_unknown else type(param.default))
        return types

    @property
    def file(self) -> str | None:
        """The file of its module, None if it has none."""
        return getattr(sys.modules.get(self.function.__module__), "__file__", None)

    @functools.cached_property
    def definition(self) -> TaskDefinition:
        """The task as the tracker knows it."""
        returns = self.signature.return_annotation
        params = tuple(
            ParamDefinition(
                name,
                type_name(self.types[name]),
                None if param.default is param.empty else shorten(param_text(name, param.default), _MAX_DEFAULT),
            )
            for name, param in self.signature.parameters.items()
        )
        result_type = "object" if returns is inspect.Signature.empty else type_name(returns)
        return TaskDefinition(self.name, params, result_type=result_type)

    def arguments(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, str]:
        """The arguments of a call as params of its task run: in text form, secrets masked."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError:  # the call itself will say what is wrong with it
            return {}
        bound.apply_defaults()
        params: dict[str, str] = {}
        for name, value in bound.arguments.items():
            if self.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                params |= {key: param_text(key, item) for key, item in value.items()}
            elif name not in {"self", "cls"}:
                params[name] = param_text(name, value)
        return params


def type_name(annotation: object) -> str:
    """A type as a person writes it."""
    if isinstance(annotation, str):
        return annotation
    if typing.get_origin(annotation) is None and isinstance(annotation, type):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


@overload
def task(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def task(*, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def task(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a function a task: each call inside a run is a task run, a call outside of one just runs.

    Arguments become params of the task run. Calls of tasks in tasks nest. Coroutine functions are tasks, too.

    Args:
        function: The function, when used as ``@task``.
        name: Name of the task; the function's own if None.

    Raises:
        UsageError: The function is a generator, whose body does not run when it is called.
    """
    if function is None:
        return functools.partial(_decorate, name=name)
    return _decorate(function, name)


def refuse_generators(decorator: str, function: Callable[..., Any]) -> None:
    """Raise UsageError for a function whose body runs after what ``decorator`` makes of its call has ended."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        what = f"@{decorator} cannot decorate {function.__qualname__!r}"
        raise UsageError(f"{what}: a generator's body does not run when it is called.")


def _decorate(function: Callable[P, R], name: str | None) -> Callable[P, R]:
    refuse_generators("task", function)
    known = Task(function, name)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _called(known, args, kwargs) as report:
            result = function(*args, **kwargs)
            report(result)
        return result

    @functools.wraps(function)
    async def call_async(*args: P.args, **kwargs: P.kwargs) -> object:
        with _called(known, args, kwargs) as report:
            result = await cast("Awaitable[object]", function(*args, **kwargs))
            report(result)
        return result

    wrapper = cast("Callable[P, R]", call_async) if inspect.iscoroutinefunction(function) else call
    wrapper.__dbnd_task__ = known  # type: ignore[attr-defined]
    return wrapper


@contextmanager
def _called(known: Task, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Iterator[Callable[[object], None]]:
    """Run the block as a task run, if there is a run; yields the function that reports its result."""
    context, parent = get_databand_context(), current_task_run()
    if context is None or parent is None:
        yield lambda _: None
        return
    with nested_task(context, parent, known.definition, known.arguments(args, kwargs)) as task_run:
        yield lambda result: log_result(context, task_run, result)


def task_of(function: object) -> Task | None:
    """The task that ``function`` was made by ``@task``, or None."""
    found = getattr(function, "__dbnd_task__", None)
    return found if isinstance(found, Task) else None
