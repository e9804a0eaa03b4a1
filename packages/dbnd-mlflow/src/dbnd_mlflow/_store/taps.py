"""What is reported of which store method. It knows nothing of forwarding, and MLflow sees no difference."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .._mlflow import STAGES

if TYPE_CHECKING:
    from .._reporting.reporter import Reporter

Arguments = Mapping[str, Any]
Function = Callable[..., Any]
Tap = Callable[["Reporter", Arguments, Any], object]


@functools.lru_cache(maxsize=512)
def tapped(name: str, function: Function) -> Function:
    """A method of an inner store's class, followed by its report when it has succeeded.

    It takes a ``DatabandStore`` as ``self``. The same function gives the same one, so that bound methods compare equal.
    """
    if name == "create_run":
        return _tapped_create_run(function)
    named = _namer(function)
    if name in STAGES:
        return _tapped_stage(name, function, named)
    tap = TAPS[name]

    @functools.wraps(function)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        reporter = self._databand_with
        try:
            result = function(self._databand_inner, *args, **kwargs)
        except Exception:
            if name == "log_batch":  # a file store writes one thing after the other, and has perhaps kept some
                _report(reporter, name, reporter.half_logged, named(args, kwargs))
            raise
        _report(reporter, name, tap, reporter, named(args, kwargs), result)
        return result

    return call


def _tapped_create_run(function: Function) -> Function:
    """``create_run``, which is given the tags that name its task run, and gives the task run back when it fails."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def create_run(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        reporter = self._databand_with
        links, args, kwargs = _with_links(reporter, signature, args, kwargs)
        try:
            run = function(self._databand_inner, *args, **kwargs)
        except BaseException:
            reporter.not_created(links)
            raise
        _report(reporter, "create_run", reporter.run_created, run, links)
        return run

    return create_run


def _with_links(
    reporter: Reporter, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, str], tuple[Any, ...], dict[str, Any]]:
    """The link tags of a new run of a task, and the arguments of ``create_run`` with them.

    They replace those that a copied run brings along. Outside of a task there are none: uids follow from the run's id.
    """
    try:
        bound = signature.bind(None, *args, **kwargs)
        tags = bound.arguments.get("tags") or []
        given = {tag.key: tag.value for tag in tags}
    except (TypeError, AttributeError):  # what is wrong with the arguments, MLflow says
        return {}, args, kwargs
    try:
        links = reporter.link_tags(given)
    except Exception as error:  # noqa: BLE001  see _report()
        reporter.failed("create_run", error)
        links = {}
    if not links:
        return {}, args, kwargs
    from mlflow.entities import RunTag

    from .._reporting.tags import LINK_TAGS

    own = [tag for tag in tags if tag.key not in LINK_TAGS]
    bound.arguments["tags"] = [*own, *(RunTag(key, value) for key, value in links.items())]
    return links, bound.args[1:], bound.kwargs


def _tapped_stage(name: str, function: Function, named: Callable[..., Arguments]) -> Function:
    """What deletes or restores runs. Which ones is asked before the call: afterwards the store may not know."""
    stage = STAGES[name]

    @functools.wraps(function)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        reporter = self._databand_with
        try:
            run_ids = reporter.runs_to_change(named(args, kwargs), stage)
            report = functools.partial(reporter.stage_changed, run_ids, stage)
        except Exception as error:  # noqa: BLE001  see _report()
            report = functools.partial(reporter.failed, name, error)
        result = function(self._databand_inner, *args, **kwargs)
        _report(reporter, name, report)
        return result

    return call


def _report(reporter: Reporter, name: str, report: Callable[..., object], *args: Any) -> None:
    """Report a call; trouble of ours is said, and never reaches the caller."""
    try:
        report(*args)
    except Exception as error:  # noqa: BLE001  a report must never fail the user's training
        reporter.failed(name, error)


def _namer(function: Function) -> Callable[[tuple[Any, ...], dict[str, Any]], Arguments]:
    """What names the arguments of a call. ``Signature.bind()`` takes ten times as long as all else of a report."""
    names = tuple(inspect.signature(function).parameters)[1:]

    def named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        return {**dict(zip(names, args, strict=False)), **kwargs} if args else kwargs

    return named


def _update_run_info(reporter: Reporter, given: Arguments, info: Any) -> None:
    is_changed = given.get("run_status") is not None
    reporter.run_updated(info, given.get("end_time"), given.get("run_name"), changed=is_changed)


def _log_batch(reporter: Reporter, given: Arguments, _: object) -> None:
    # Encoded before this returns: MLflow's asynchronous queue goes on to extend the lists that it has handed over.
    reporter.logged(given["run_id"], metrics=given.get("metrics"), params=given.get("params"), tags=given.get("tags"))


def _get_experiment(reporter: Reporter, _: Arguments, experiment: Any) -> None:
    if experiment is not None:
        reporter.experiment_seen(experiment.experiment_id, experiment.name)


def _create_logged_model(reporter: Reporter, _: Arguments, model: Any) -> None:
    from .._durable.ids import is_own  # not at the top: MLflow would find dbnd among a model's requirements

    if model.source_run_id:
        # Of a model that the store creates later only that is known.
        place = f"models:/{model.model_id}" if is_own(model.model_id) else model.artifact_location
        reporter.model_logged(model.source_run_id, model.name, place)


def _create_model_version(reporter: Reporter, _: Arguments, version: Any) -> None:
    if version.run_id:
        name = f"{version.name}/{version.version}"
        reporter.model_logged(version.run_id, name, f"models:/{name}")


# What is called, after a call that has succeeded, with its arguments by name and its result.
TAPS: Final[Mapping[str, Tap]] = {
    "create_experiment": lambda reporter, given, experiment_id: reporter.experiment_seen(experiment_id, given["name"]),
    "create_logged_model": _create_logged_model,
    "create_model_version": _create_model_version,
    "delete_tag": lambda reporter, given, _: reporter.tag_deleted(given["run_id"], given["key"]),
    "get_experiment": _get_experiment,
    "get_experiment_by_name": _get_experiment,
    "get_run": lambda reporter, _, run: reporter.run_seen(run),
    "log_batch": _log_batch,
    "log_inputs": lambda reporter, given, _: reporter.datasets_read(given["run_id"], given.get("datasets")),
    "log_metric": lambda reporter, given, _: reporter.logged(given["run_id"], metrics=(given["metric"],)),
    "log_param": lambda reporter, given, _: reporter.logged(given["run_id"], params=(given["param"],)),
    "record_logged_model": lambda reporter, given, _: reporter.model_logged(
        given["run_id"], given["mlflow_model"].artifact_path, None
    ),
    "rename_experiment": lambda reporter, given, _: reporter.experiment_renamed(
        given["experiment_id"], given["new_name"]
    ),
    "set_tag": lambda reporter, given, _: reporter.logged(given["run_id"], tags=(given["tag"],)),
    "update_run_info": _update_run_info,
}

TAPPED: Final = frozenset({"create_run", *STAGES, *TAPS})
"""Names of the methods that are reported, as far as a store has them."""
