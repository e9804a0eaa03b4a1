"""What is reported of which store method. It knows nothing of forwarding, and changes nothing of what MLflow sees."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .._reporting.reporter import Reporter

Arguments = Mapping[str, Any]
Tap = Callable[["Reporter", Arguments, Any], None]
Function = Callable[..., Any]
Binder = Callable[[tuple[Any, ...], dict[str, Any]], Arguments]
_PLAIN: Final = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


@functools.lru_cache(maxsize=512)
def tapped(name: str, function: Function) -> Function:
    """A function of an inner store's class, followed by its report when it has succeeded.

    It takes a ``DatabandStore`` as ``self``. The same function gives the same one, so that bound methods compare equal.

    Args:
        name: Name of the store method.
        function: The plain function, which takes the inner store as ``self``.
    """
    if name == "create_run":
        return _linked(function)
    bind = _binder(function)
    if name in _STAGES:
        return _staged(name, function, bind)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            result = await function(self._databand_inner, *args, **kwargs)
            _report(self._databand_reporter, name, bind, args, kwargs, result)
            return result

        return call_async

    @functools.wraps(function)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        try:
            result = function(self._databand_inner, *args, **kwargs)
        except Exception:
            if name == "log_batch":
                _report_half(self._databand_reporter, bind, args, kwargs)
            raise
        _report(self._databand_reporter, name, bind, args, kwargs, result)
        return result

    return call


def _linked(function: Function) -> Function:
    """``create_run``, which is given the tags that name the task run, and gives the place back when it fails."""

    @functools.wraps(function)
    def create_run(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        reporter = self._databand_reporter
        links, args, kwargs = _with_links(reporter, function, args, kwargs)
        try:
            result = function(self._databand_inner, *args, **kwargs)
        except BaseException:
            reporter.not_created(links)
            raise
        _report(reporter, "create_run", lambda *_: links, args, kwargs, result)
        return result

    return create_run


def _staged(name: str, function: Function, bind: Binder) -> Function:
    """What changes the stage of runs: which they are is asked before, for it is not to be seen afterwards."""

    @functools.wraps(function)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        reporter = self._databand_reporter
        run_ids: list[str] = []
        try:
            run_ids = _STAGES[name](reporter, bind(args, kwargs))
        except Exception as error:  # noqa: BLE001  see _report(); what is wrong with the experiment, MLflow says
            trouble: Exception | None = error
        else:
            trouble = None
        result = function(self._databand_inner, *args, **kwargs)
        if trouble is not None:
            reporter.failed(name, trouble)
        _report(reporter, name, lambda *_: {"run_ids": run_ids}, args, kwargs, result)
        return result

    return call


def _report(
    reporter: Reporter, name: str, bind: Binder, args: tuple[Any, ...], kwargs: dict[str, Any], result: object
) -> None:
    """Report a call that has succeeded; trouble of ours is said, and never reaches the caller."""
    try:
        TAPS[name](reporter, bind(args, kwargs), result)
    except Exception as error:  # noqa: BLE001  a report must never fail the user's training
        reporter.failed(name, error)


def _with_links(
    reporter: Reporter, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, str], tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``create_run`` with the tags by which a run of a dbnd task names its task run.

    They take the place of those that a copied run brings along. Outside of a task the arguments are returned as they
    are: the uids then follow from the MLflow run's own id.
    """
    try:
        bound = inspect.signature(function).bind(None, *args, **kwargs)
        tags = bound.arguments.get("tags") or []
        given = {tag.key: tag.value for tag in tags}
    except (TypeError, AttributeError):  # what is wrong with the arguments, MLflow says
        return {}, args, kwargs
    try:
        links = reporter.link_tags(given)
        if not links:
            return {}, args, kwargs
        from mlflow.entities import RunTag

        from .._reporting.tags import LINK_TAGS

        own = [tag for tag in tags if tag.key not in LINK_TAGS]
        bound.arguments["tags"] = [*own, *(RunTag(key, value) for key, value in links.items())]
        return links, bound.args[1:], bound.kwargs
    except Exception as error:  # noqa: BLE001  see _report()
        reporter.failed("create_run", error)
        return {}, args, kwargs


def _report_half(reporter: Reporter, bind: Binder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Report what a store has kept of a batch that has failed: a file store writes one thing after the other."""
    try:
        given = bind(args, kwargs)
        logged = {what: given.get(what) or () for what in ("metrics", "params", "tags")}
        reporter.half_logged(given["run_id"], **logged)
    except Exception as error:  # noqa: BLE001  the user hears of the store's own error
        reporter.failed("log_batch", error)


def _binder(function: Function) -> Binder:
    """What gives the arguments of a successful call of a method by name.

    ``inspect`` binds in ten times the time of the rest of a report; a call that has succeeded needs none of its checks.
    """
    signature = inspect.signature(function)
    _, *parameters = signature.parameters.values()
    if {parameter.kind for parameter in parameters} <= _PLAIN:
        names = tuple(parameter.name for parameter in parameters)

        def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
            return {**dict(zip(names, args, strict=False)), **kwargs} if args else kwargs

        return bind
    return lambda args, kwargs: signature.bind(None, *args, **kwargs).arguments


def _create_run(reporter: Reporter, links: Arguments, result: Any) -> None:
    reporter.run_created(result, links)


def _get_run(reporter: Reporter, given: Arguments, result: Any) -> None:
    del given
    reporter.run_seen(result)


def _update_run_info(reporter: Reporter, given: Arguments, result: Any) -> None:
    is_changed = given.get("run_status") is not None
    reporter.run_updated(result, given.get("end_time"), given.get("run_name"), changed=is_changed)


def _log_metric(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.logged(given["run_id"], metrics=(given["metric"],))


def _log_param(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.logged(given["run_id"], params=(given["param"],))


def _set_tag(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.logged(given["run_id"], tags=(given["tag"],))


def _log_batch(reporter: Reporter, given: Arguments, _: object) -> None:
    # Encoded before this returns: MLflow's asynchronous queue goes on to extend the lists that it has handed over.
    reporter.logged(
        given["run_id"],
        metrics=given.get("metrics") or (),
        params=given.get("params") or (),
        tags=given.get("tags") or (),
    )


def _delete_tag(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.tag_deleted(given["run_id"], given["key"])


def _deleted(reporter: Reporter, given: Arguments, _: object) -> None:
    for run_id in given["run_ids"]:
        reporter.lifecycle_changed(run_id, "deleted")


def _restored(reporter: Reporter, given: Arguments, _: object) -> None:
    for run_id in given["run_ids"]:
        reporter.lifecycle_changed(run_id, "active")


def _the_run(reporter: Reporter, given: Arguments) -> list[str]:
    reporter.find(given["run_id"])
    return [given["run_id"]]


def _log_inputs(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.datasets_read(given["run_id"], given.get("datasets") or ())


def _experiment(reporter: Reporter, given: Arguments, result: Any) -> None:
    del given
    if result is not None:
        reporter.experiment_seen(result.experiment_id, result.name)


def _create_experiment(reporter: Reporter, given: Arguments, result: Any) -> None:
    reporter.experiment_seen(result, given["name"])


def _rename_experiment(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.experiment_renamed(given["experiment_id"], given["new_name"])


def _record_logged_model(reporter: Reporter, given: Arguments, _: object) -> None:
    model = given["mlflow_model"]
    reporter.model_logged(given["run_id"], model.artifact_path, None)


def _logged_model(reporter: Reporter, given: Arguments, result: Any) -> None:
    del given
    if result.source_run_id:
        reporter.model_logged(result.source_run_id, result.name, result.artifact_location)


def _create_model_version(reporter: Reporter, given: Arguments, result: Any) -> None:
    del given
    if result.run_id:
        place = f"models:/{result.name}/{result.version}"
        reporter.model_logged(result.run_id, f"{result.name}/{result.version}", place)


# What says, before a call, which runs it will have deleted or restored. A run that goes for good is known by then.
_STAGES: Final[dict[str, Callable[[Reporter, Arguments], list[str]]]] = {
    "_hard_delete_experiment": lambda reporter, given: reporter.to_change(given["experiment_id"], "deleted"),
    "_hard_delete_run": _the_run,
    "delete_experiment": lambda reporter, given: reporter.to_change(given["experiment_id"], "deleted"),
    "delete_run": lambda _, given: [given["run_id"]],
    "restore_experiment": lambda reporter, given: reporter.to_change(given["experiment_id"], "active"),
    "restore_run": lambda _, given: [given["run_id"]],
}

TAPS: Final[dict[str, Tap]] = {
    "_hard_delete_experiment": _deleted,
    "_hard_delete_run": _deleted,
    "create_experiment": _create_experiment,
    "create_logged_model": _logged_model,
    "create_model_version": _create_model_version,
    "create_run": _create_run,
    "delete_experiment": _deleted,
    "delete_run": _deleted,
    "delete_tag": _delete_tag,
    "get_experiment": _experiment,
    "get_experiment_by_name": _experiment,
    "get_run": _get_run,
    "log_batch": _log_batch,
    "log_inputs": _log_inputs,
    "log_metric": _log_metric,
    "log_param": _log_param,
    "record_logged_model": _record_logged_model,
    "rename_experiment": _rename_experiment,
    "restore_experiment": _restored,
    "restore_run": _restored,
    "set_tag": _set_tag,
    "update_run_info": _update_run_info,
}
