"""What becomes of a call of MLflow's store: it is made, or kept until the store is there.

In ``keep`` a write goes to the store while that answers within ``store_timeout`` and nothing waits for it; from the
first write that it does not answer, all go to the journal until it has taken them. In ``deferred`` all go there always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from mlflow.entities import ExperimentTag, RunStatus, RunTag
from mlflow.utils import validation
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from mlflow.utils.name_utils import _generate_random_name

from dbnd.tracking import BusyError, Outbox

from . import events
from .artifacts import Artifacts
from .calls import STAGES, STAGES_OF_ALL, Reach, hide, is_away, is_of_others, sees_runs, within
from .checks import Checks
from .creation import CREATE_RUN, Creation
from .experiments import Experiments
from .ids import FIRST_ID, SPOOLED, Ids, UncreatedError, is_own, new_id
from .models import Models
from .view import RunView, Views, new_run


class Keeper:
    """Decides for one store of this process. Any number of threads may call.

    Its methods that are named as the store's take the same arguments, return and raise the same.

    Args:
        inner: MLflow's own store.
        outbox: Where writes are kept.
        ids: The store's ids of what was created while it was away.
        artifacts: What takes the files that a run logs.
        creation: Creates what another process has left to be created.
        tracker: The tracker that hears of the runs: its URL, without credentials.
        is_direct: Whether the store is asked first (``keep``), and not only the journal (``deferred``).
        reach: Tells whether the store is asked at the moment.
    """

    def __init__(
        self,
        inner: Any,
        outbox: Outbox,
        ids: Ids,
        artifacts: Artifacts,
        creation: Creation,
        tracker: str,
        *,
        is_direct: bool,
        reach: Reach,
    ) -> None:
        self._inner = inner
        self._outbox = outbox
        self._ids = ids
        self._is_direct = is_direct
        self._reach = reach
        self.artifacts: Final = artifacts
        self._creation, self._tracker = creation, tracker
        self._experiments = Experiments(inner, outbox, ids, reach)
        self._views = Views(ids)
        self._checks = Checks(inner)
        self.models: Final = Models(inner, outbox, ids, creation, reach, self._checks, self._write)

    # Writes of what a run logs.

    def log_metric(self, run_id: str, metric: Any) -> None:
        self._checks.metric(metric)
        self._log(run_id, "log_metric", (metric,), metrics=(metric,))

    def log_param(self, run_id: str, param: Any) -> None:
        param = self._checks.checked(validation._validate_param, param.key, param.value, needs="key") or param
        self._log(run_id, "log_param", (param,), params=(param,))

    def set_tag(self, run_id: str, tag: Any) -> None:
        tag = self._checks.tag(tag)
        self._log(run_id, "set_tag", (tag,), tags=(tag,))

    def log_batch(self, run_id: str, metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]) -> None:
        self._checks.checked(validation._validate_run_id, run_id)
        # MLflow's asynchronous queue goes on to extend the lists that it has handed over.
        given = tuple(metrics), tuple(params), tuple(tags)
        given = self._checks.checked(validation._validate_batch_log_data, *given) or given
        self._checks.checked(validation._validate_batch_log_limits, *given)
        self._checks.checked(validation._validate_param_keys_unique, given[1])
        known = self._view(run_id).params
        if self._checks.is_file and any(known.get(p.key) not in {None, str(p.value)} for p in given[1]):
            # A file store refuses a param, and keeps those before it.
            self._reach.has_delivered()
            self._inner.log_batch(self._real(run_id), *given)
        self._log(run_id, "log_batch", given, *given)

    def _log(
        self,
        run_id: str,
        name: str,
        args: tuple[Any, ...],
        metrics: Sequence[Any] = (),
        params: Sequence[Any] = (),
        tags: Sequence[Any] = (),
    ) -> None:
        view = self._view(run_id)
        for param in params:
            self._checks.param(run_id, view.params.get(param.key), param, is_batch=name == "log_batch")

        def groups() -> list[Any]:
            return [
                *events.text_group(run_id, events.PARAM, params),
                *events.metric_group(run_id, metrics),
                *events.text_group(run_id, events.TAG, tags),
            ]

        self._write(view, run_id, name, args, events.POINTS, groups)
        view.log(metrics, params, tags)

    # Other writes to a run.

    def update_run_info(self, run_id: str, run_status: Any, end_time: int | None, run_name: str | None) -> Any:
        view = self._view(run_id)
        status = None if run_status is None else RunStatus.to_string(run_status)
        body = {"run_id": run_id, "run_status": status, "end_time": end_time, "run_name": run_name}
        info = self._write(view, run_id, "update_run_info", (run_status, end_time, run_name), None, lambda: body)
        view.update(run_status, end_time, run_name)
        return info or view.info()

    def delete_tag(self, run_id: str, key: str) -> None:
        self._checks.checked(lambda _: None, key, needs="key")
        view = self._view(run_id)
        if view.is_known and key not in view.tags:
            raise self._checks.error("RESOURCE_DOES_NOT_EXIST", f"No tag with name: {key} in run with id {run_id}")
        self._write(view, run_id, "delete_tag", (key,), None, lambda: {"run_id": run_id, "key": key})
        view.tags.pop(key, None)

    def log_inputs(self, run_id: str, datasets: Any = None, models: Any = None) -> None:
        self._checks.checked(validation._validate_run_id, run_id)
        if datasets:
            self._checks.checked(validation._validate_dataset_inputs, datasets)
        args = (datasets,) if models is None else (datasets, models)
        body = {"run_id": run_id, "datasets": events.inputs(datasets), "models": events.inputs(models)}
        self._write(self._view(run_id), run_id, "log_inputs", args, None, lambda: body)

    def log_outputs(self, run_id: str, models: Any) -> None:
        body = {"run_id": run_id, "models": events.inputs(models)}
        self._write(self._view(run_id), run_id, "log_outputs", (models,), None, lambda: body)

    def set_experiment_tag(self, experiment_id: str, tag: Any) -> None:
        self._checks.checked(validation._validate_experiment_tag, tag.key, tag.value, needs="key")
        body = {"experiment_id": str(experiment_id), "key": tag.key, "value": tag.value}
        args = (ExperimentTag(tag.key, tag.value),)
        self._experiments.has_waiting_tags = True
        self._write(None, str(experiment_id), "set_experiment_tag", args, None, lambda: body)

    # What a write comes to.

    def _write(
        self,
        view: RunView | None,
        own_id: str,
        name: str,
        args: tuple[Any, ...],
        call: str | None,
        body: Callable[[], Any],
    ) -> Any:
        """Make a call now, or keep it; returns the store's answer, and None for one that was kept."""
        self._checks.active(own_id, is_deleted=view is not None and view.is_deleted)
        if self._is_direct and not self._outbox.unsent and not self._reach.is_away and (real := self._ids.find(own_id)):
            try:
                with self._reach.asking():
                    answer = getattr(self._inner, name)(real, *args)
            except Exception as error:
                if not (is_away(error) or is_of_others(error)):
                    raise
            else:
                if view is not None:
                    view.kept = None
                return answer
        if not self._outbox.keep(call or name, body(), is_last_way=False):  # the disk is full, or the like
            return getattr(self._inner, name)(self._real(own_id), *args)
        if view is not None and view.kept is not None:
            view.kept += 1
        return None

    def _view(self, run_id: str) -> RunView:
        """What is known of a run. In ``deferred`` it is read before the first write, which raises if there is none."""
        view = self._views.get(run_id)
        if view is not None and view.is_deleted:  # somebody may have restored it
            self._views.forget(run_id)
            view = None
        if view is not None:
            return view
        run = self._created_elsewhere(run_id) if is_own(run_id) else None
        if run is None and not (self._is_direct or self._reach.is_away):
            try:
                with self._reach.asking():
                    run = self._inner.get_run(self._ids.real(run_id))
            except Exception as error:
                if not is_away(error):
                    raise
        return self._views.put(run_id, RunView(run_id, run))

    def _created_elsewhere(self, run_id: str) -> Any:
        """A run that another process has created while the store was away; None once the store has it."""
        if self._ids.find(run_id) is not None:
            return None
        creation = self._ids.creation(run_id)
        if creation is None or creation[0] != CREATE_RUN:
            raise self._checks.error("RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found")
        return _run_of(**creation[1])

    def _real(self, run_id: str) -> str:
        try:
            return self._ids.real(run_id)
        except UncreatedError as error:
            raise self._checks.error("RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found: {error}.") from None

    # Creating runs and experiments.

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: Sequence[Any], run_name: str | None
    ) -> Any:
        own = new_id()
        experiment_id = self._ids.translated(str(experiment_id))
        key = RunTag(FIRST_ID, own)
        if not (is_own(experiment_id) or self._reach.is_away or self._has_own_parent(tags)):
            try:
                with self._reach.asking():
                    run = self._inner.create_run(
                        experiment_id, user_id, start_time, [*self._with_real_ids(tags), key], run_name
                    )
            except Exception as error:
                if not is_away(error):
                    raise
            else:
                hide(run)
                self._views.put(run.info.run_id, RunView(run.info.run_id, run)).kept = 0
                return run
        return self._create_later(own, experiment_id, user_id, start_time, tags or (), run_name)

    def _create_later(
        self, own: str, experiment_id: str, user: str, start: int, tags: Sequence[Any], name: str | None
    ) -> Any:
        checked = (self._checks.checked(validation._validate_tag, t.key, t.value) or t for t in tags)
        given = {tag.key: tag.value for tag in checked}
        if name and given.get(MLFLOW_RUN_NAME, name) != name:
            text = (
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
                f"(run_name='{name}', mlflow.runName='{given[MLFLOW_RUN_NAME]}')."
            )
            raise self._checks.error("INVALID_PARAMETER_VALUE", text)
        given[MLFLOW_RUN_NAME] = name or given.get(MLFLOW_RUN_NAME) or _generate_random_name()
        body: dict[str, Any] = {
            "own_id": own,
            "experiment_id": experiment_id,
            "user_id": user,
            "start_time": start,
            "tags": given,
            "tracker": self._tracker,
        }
        if not (self._announced(own, body) and self._outbox.keep(CREATE_RUN, body, is_last_way=False)):
            return self._inner.create_run(experiment_id, user, start, list(tags), name)
        view = self._views.put(own, RunView(own, _run_of(**body)))
        view.kept = 0
        return view.run()

    def _announced(self, own: str, body: dict[str, Any]) -> bool:
        try:
            self._ids.announce(own, CREATE_RUN, body)
        except OSError:
            return False
        return True

    def _has_own_parent(self, tags: Iterable[Any] | None) -> bool:
        """Whether a run hangs below one that the store has not created: it is created after that one."""
        return any(is_own(str(tag.value)) and self._ids.find(str(tag.value)) is None for tag in tags or ())

    def _with_real_ids(self, tags: Iterable[Any] | None) -> list[Any]:
        return [RunTag(t.key, self._ids.translated(t.value)) if is_own(str(t.value)) else t for t in tags or ()]

    def create_experiment(self, name: str, artifact_location: Any = None, tags: Any = None) -> str:
        self._checks.checked(validation._validate_experiment_name, name, needs="name")
        return self._experiments.create(name, artifact_location, tags)

    def get_experiment(self, experiment_id: str) -> Any:
        return self._experiments.get(str(experiment_id))

    def get_experiment_by_name(self, experiment_name: str) -> Any:
        return self._experiments.by_name(experiment_name)

    # Reads.

    def get_run(self, run_id: str) -> Any:
        view = self._views.get(run_id)
        answers = view is not None and view.is_known
        if not (answers and self._reach.is_away) and self._reach.has_delivered(once=answers):
            try:
                with self._reach.asking():
                    run = hide(self._inner.get_run(self._creation.real(self._inner, run_id)))
            except (UncreatedError, BusyError):  # refused, or another process is about to create it
                pass
            except Exception as error:
                if not ((is_away(error) or is_of_others(error)) and (answers or is_own(run_id))):
                    raise
            else:
                # Kept under the id that was asked for, under which it is written to.
                (view or self._views.put(run_id, RunView(run_id))).refresh(run)
                return run
        if not answers and is_own(run_id):
            run = self._created_elsewhere(run_id)
            view = None if run is None else self._views.put(run_id, RunView(run_id, run))
        if view is None or not view.is_known:
            with within(self._reach.timeout):
                return hide(self._inner.get_run(self._ids.translated(run_id)))
        return view.run()

    def get_metric_history(self, run_id: str, metric_key: str, *args: Any, **kwargs: Any) -> Any:
        view = self._views.get(run_id)
        kept = None if view is None else view.kept
        if self._reach.is_away or not self._reach.has_delivered(once=kept is not None):
            points = None if kept is None else events.kept_points(self._outbox.waiting(), run_id, metric_key, kept)
            if points is not None:
                return points
        with within(self._reach.timeout):
            return self._inner.get_metric_history(self._ids.translated(run_id), metric_key, *args, **kwargs)

    def forward(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Make any other call, after delivery of what it may have to see."""
        if sees_runs(name) or name in STAGES_OF_ALL:
            self._reach.has_delivered()
        elif "experiment" in name:
            self._experiments.deliver_tags()
        if name in STAGES:
            self._views.forget(*args, **kwargs)
        elif name in STAGES_OF_ALL:
            self._views.forget_all()
        args = [self._ids.translated(each) for each in args]
        kwargs = {key: self._ids.translated(each) for key, each in kwargs.items()}
        if not self._reach.is_away:
            return hide(function(self._inner, *args, **kwargs))
        with within(self._reach.timeout):
            return hide(function(self._inner, *args, **kwargs))


def _run_of(own_id: str, experiment_id: str, user_id: str, start_time: int, tags: dict[str, str], **_: object) -> Any:
    """A run that the store has not created yet, as that will answer it."""
    return new_run(own_id, experiment_id, user_id, start_time, tags, f"{SPOOLED}{own_id}/artifacts")
