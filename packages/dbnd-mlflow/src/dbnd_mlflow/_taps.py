"""What is reported of which store method. It knows nothing of forwarding, and changes nothing of what MLflow sees."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from ._reporter import Reporter

Arguments = Mapping[str, Any]
Tap = Callable[[Reporter, Arguments, Any], None]


def report(
    reporter: Reporter,
    name: str,
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: object,
) -> None:
    """Report a call that has succeeded; trouble of ours is said, and never reaches the caller.

    Args:
        reporter: What takes the report.
        name: Name of the store method.
        method: The bound method, whose signature names the arguments.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        result: What it has returned.
    """
    try:
        TAPS[name](reporter, _bind(method, args, kwargs), result)
    except Exception as error:  # noqa: BLE001  a report must never fail the user's training
        reporter.failed(name, error)


def with_links(
    reporter: Reporter, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``create_run`` with the tags by which a run of a dbnd task names its task run.

    Outside of a task they are returned as they are: the uids then follow from the MLflow run's own id.
    """
    try:
        signature = _signature(_function(method))
        bound = signature.bind(None, *args, **kwargs)
        tags = bound.arguments.get("tags") or []
        added = reporter.link_tags({tag.key: tag.value for tag in tags})
        if not added:
            return args, kwargs
        bound.arguments["tags"] = [*tags, *added]
        return bound.args[1:], bound.kwargs
    except Exception as error:  # noqa: BLE001  see report()
        reporter.failed("create_run", error)
        return args, kwargs


def _bind(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    return _signature(_function(method)).bind(None, *args, **kwargs).arguments


def _function(method: Callable[..., Any]) -> Callable[..., Any]:
    """The plain function of a bound method: its signature is looked up once, whatever the instance."""
    return method.__func__  # type: ignore[attr-defined,no-any-return]


_signature = functools.lru_cache(maxsize=256)(inspect.signature)


def _create_run(reporter: Reporter, given: Arguments, result: Any) -> None:  # noqa: ANN401
    del given
    reporter.run_created(result)


def _get_run(reporter: Reporter, given: Arguments, result: Any) -> None:  # noqa: ANN401
    del given
    reporter.run_seen(result)


def _update_run_info(reporter: Reporter, given: Arguments, result: Any) -> None:  # noqa: ANN401
    reporter.run_updated(result, given.get("end_time"), changed=given.get("run_status") is not None)


def _log_metric(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.logged(given["run_id"], metrics=[given["metric"]])


def _log_param(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.logged(given["run_id"], params=[given["param"]])


def _set_tag(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.logged(given["run_id"], tags=[given["tag"]])


def _log_batch(reporter: Reporter, given: Arguments, _: object) -> None:
    # Copied: MLflow's asynchronous queue goes on to extend the lists that it has handed over.
    lists = {name: list(given.get(name) or ()) for name in ("metrics", "params", "tags")}
    reporter.logged(given["run_id"], **lists)


def _delete_tag(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.tag_deleted(given["run_id"], given["key"])


def _delete_run(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.lifecycle_changed(given["run_id"], "deleted")


def _restore_run(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.lifecycle_changed(given["run_id"], "active")


def _log_inputs(reporter: Reporter, given: Arguments, _: object) -> None:
    reporter.datasets_read(given["run_id"], list(given.get("datasets") or ()))


def _experiment(reporter: Reporter, given: Arguments, result: Any) -> None:  # noqa: ANN401
    del given
    if result is not None:
        reporter.experiment_seen(result.experiment_id, result.name)


def _create_experiment(reporter: Reporter, given: Arguments, result: Any) -> None:  # noqa: ANN401
    reporter.experiment_seen(result, given["name"])


def _record_logged_model(reporter: Reporter, given: Arguments, _: object) -> None:
    model = given["mlflow_model"]
    reporter.model_logged(given["run_id"], model.artifact_path, None)


def _logged_model(reporter: Reporter, given: Arguments, result: Any) -> None:  # noqa: ANN401
    del given
    if result.source_run_id:
        reporter.model_logged(result.source_run_id, result.name, result.artifact_location)


def _create_model_version(reporter: Reporter, given: Arguments, result: Any) -> None:  # noqa: ANN401
    del given
    if result.run_id:
        place = f"models:/{result.name}/{result.version}"
        reporter.model_logged(result.run_id, f"{result.name}/{result.version}", place)


TAPS: Final[dict[str, Tap]] = {
    "create_experiment": _create_experiment,
    "create_logged_model": _logged_model,
    "create_model_version": _create_model_version,
    "create_run": _create_run,
    "delete_run": _delete_run,
    "delete_tag": _delete_tag,
    "get_experiment": _experiment,
    "get_experiment_by_name": _experiment,
    "get_run": _get_run,
    "log_batch": _log_batch,
    "log_inputs": _log_inputs,
    "log_metric": _log_metric,
    "log_param": _log_param,
    "record_logged_model": _record_logged_model,
    "restore_run": _restore_run,
    "set_tag": _set_tag,
    "update_run_info": _update_run_info,
}
