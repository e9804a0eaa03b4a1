"""What becomes of a call of MLflow's store: it is made, or kept until the store is there.

In ``keep`` a write goes to the store while that answers within ``store_timeout`` and nothing waits for it; from the
first write that it does not answer, all go to the journal until it has taken them. In ``deferred`` all go there always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from mlflow.entities import ExperimentTag, RunStatus, RunTag
from mlflow.utils import validation

from dbnd.tracking import BusyError, Outbox

from . import events
from .artifacts import Artifacts
from .calls import STAGES, STAGES_OF_ALL, Reach, hide, is_away, is_of_others, sees_runs, within
from .checks import Checks, are_usual, are_usual_inputs, is_long, is_text, is_text_or_none
from .creation import Creation
from .experiments import Experiments
from .ids import FIRST_ID, Ids, UncreatedError, is_own, new_id
from .models import Models
from .new_runs import NewRuns
from .view import RunView, Views


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
        self._creation = creation
        self._experiments = Experiments(inner, outbox, ids, reach)
        self._views = Views(ids)
        self._checks = Checks(inner)
        self._new_runs = NewRuns(outbox, ids, self._checks, tracker)
        self.models: Final = Models(inner, outbox, ids, creation, reach, self._checks, self._write)

    # Writes of what a run logs.

    def log_metric(self, run_id: str, metric: Any) -> None:
        self._checks.checked(validation._validate_metric, metric.key, metric.value, metric.timestamp, metric.step)
        self._log(run_id, "log_metric", (metric,), metrics=(metric,))

    def log_param(self, run_id: str, param: Any) -> None:
        param = self._checks.checked(validation._validate_param, param.key, param.value) or param
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
        is_usual = are_usual(metrics, (*params, *tags)) and (self._is_direct or self.models.are_known(metrics))
        view = self._view(run_id, is_usual=is_usual)
        for param in params:
            self._checks.param(run_id, view.params.get(param.key), param, is_batch=name == "log_batch")

        def groups() -> list[Any]:
            return [
                *events.text_group(run_id, events.PARAM, params),
                *events.metric_group(run_id, metrics),
                *events.text_group(run_id, events.TAG, tags),
            ]

        self._write(view, run_id, name, args, events.POINTS, groups, is_usual=is_usual)
        if is_usual:
            view.log(metrics, params, tags)

    # Other writes to a run.

    def update_run_info(self, run_id: str, run_status: Any, end_time: int | None, run_name: str | None) -> Any:
        status = None if run_status is None else RunStatus.to_string(run_status)
        body = {"run_id": run_id, "run_status": status, "end_time": end_time, "run_name": run_name}
        args = (run_status, end_time, run_name)
        # A run that is on its way has no end of 0 in a message.
        is_usual = is_text_or_none(run_name) and (end_time is None or (is_long(end_time) and end_time != 0))
        view = self._view(run_id, is_usual=is_usual)
        info = self._write(view, run_id, "update_run_info", args, None, lambda: body, is_usual=is_usual)
        view.update(run_status, end_time, run_name)
        return info or view.info()

    def delete_tag(self, run_id: str, key: str) -> None:
        is_usual = is_text(key) and key != ""
        view = self._view(run_id, is_usual=is_usual)
        if view.is_known and key not in view.tags:
            raise self._checks.error("RESOURCE_DOES_NOT_EXIST", f"No tag with name: {key} in run with id {run_id}")
        body = {"run_id": run_id, "key": key}
        self._write(view, run_id, "delete_tag", (key,), None, lambda: body, is_usual=is_usual)
        view.tags.pop(key, None)

    def log_inputs(self, run_id: str, datasets: Any = None, models: Any = None) -> None:
        self._checks.checked(validation._validate_run_id, run_id)
        if datasets:
            self._checks.checked(validation._validate_dataset_inputs, datasets)
        args = (datasets,) if models is None else (datasets, models)
        body = {"run_id": run_id, "datasets": events.inputs(datasets), "models": events.inputs(models)}
        # A server of MLflow 2.9 refuses a call without any.
        is_usual = bool(datasets or models) and are_usual_inputs(datasets)
        view = self._view(run_id, is_usual=is_usual)
        self._write(view, run_id, "log_inputs", args, None, lambda: body, is_usual=is_usual)

    def log_outputs(self, run_id: str, models: Any) -> None:
        body, ids = {"run_id": run_id, "models": events.inputs(models)}, {each.model_id for each in models or ()}
        view = self._view(run_id, is_usual=bool(models))
        is_usual = bool(models) and view.outputs.isdisjoint(ids)
        self._write(view, run_id, "log_outputs", (models,), None, lambda: body, is_usual=is_usual)
        view.outputs |= ids

    def set_experiment_tag(self, experiment_id: str, tag: Any) -> None:
        self._checks.checked(validation._validate_experiment_tag, tag.key, tag.value)
        if not self._is_direct and self._experiments.is_deleted(experiment_id):
            text = f"The experiment {experiment_id} must be in the 'active' state. Current state is deleted."
            raise self._checks.error("INVALID_PARAMETER_VALUE", text)
        body = {"experiment_id": experiment_id, "key": tag.key, "value": tag.value}
        args = (ExperimentTag(tag.key, tag.value),)
        self._experiments.has_waiting_tags = True
        is_usual = is_text(experiment_id, tag.key, tag.value)
        self._write(None, experiment_id, "set_experiment_tag", args, None, lambda: body, is_usual=is_usual)

    # What a write comes to.

    def _write(
        self,
        view: RunView | None,
        own_id: str,
        name: str,
        args: tuple[Any, ...],
        call: str | None,
        body: Callable[[], Any],
        *,
        is_usual: bool = True,
    ) -> Any:
        """Make a call now, or keep it; returns the store's answer, and None for one that was kept.

        What is unusual goes to a store that can be asked, which may refuse it, or store it as no journal would.
        """
        self._checks.active(own_id, is_deleted=view is not None and view.is_deleted)
        is_next = self._is_direct and not self._outbox.unsent
        is_asked = not self._reach.is_away and (is_next or (not is_usual and self._reach.has_delivered()))
        if is_asked and (not is_own(own_id) or self._ids.find(own_id) is not None):
            try:
                with self._reach.asking(is_final=True):
                    answer = getattr(self._inner, name)(self._ids.real(own_id), *args)
            except Exception as error:
                if not (is_away(error) or is_of_others(error)):
                    raise
            else:
                if view is not None:
                    view.kept = None
                if not is_usual:
                    self._views.forget(own_id)
                return answer
        if not self._outbox.keep(call or name, body(), is_last_way=False):  # the disk is full, or the like
            return getattr(self._inner, name)(self._real(own_id), *args)
        if view is not None and view.kept is not None:
            view.kept += 1
        return None

    def ask(self, refusal: Exception, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Let the store itself refuse a write that a check of ours refuses, or take it; an answer of it stands."""
        if self._reach.has_answered(refusal) or self._reach.is_away:
            raise refusal
        try:
            self.deliver()
            with self._reach.asking():
                answer = self.forward(name, function, args, kwargs)
        except Exception as error:
            if is_away(error):
                raise refusal from None
            self._views.forget(*args, *kwargs.values())  # a part may have been taken
            raise
        self._views.forget(*args, *kwargs.values())
        return answer

    def _view(self, run_id: str, *, is_usual: bool = True) -> RunView:
        """What is known of a run. In ``deferred`` it is read before the first write, which raises if there is none.

        It is not read for what is unusual, to which the store's answer is better.
        """
        if not is_usual:
            return RunView(run_id)
        view = self._views.get(run_id)
        if view is not None and view.is_deleted:  # somebody may have restored it
            self._views.forget(run_id)
            view = None
        if view is not None:
            return view
        run = self._new_runs.find(run_id) if is_own(run_id) else None
        if run is None and not (self._is_direct or self._reach.is_away):
            try:
                with self._reach.asking():
                    run = self._inner.get_run(self._ids.real(run_id))
            except Exception as error:
                if not is_away(error):
                    raise
        return self._views.put(run_id, RunView(run_id, run))

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
        experiment_id = self._ids.translated(experiment_id)
        key = RunTag(FIRST_ID, own)
        if not (is_own(experiment_id) or self._reach.is_away or self._new_runs.has_parent(tags)):
            given = [*self._new_runs.with_real_ids(tags), key]
            try:
                with self._reach.asking():
                    run = self._inner.create_run(experiment_id, user_id, start_time, given, run_name)
            except Exception as error:
                if not is_away(error):
                    raise
            else:
                hide(run)
                self._views.put(run.info.run_id, RunView(run.info.run_id, run)).kept = 0
                return run
        run = self._new_runs.announce(own, experiment_id, user_id, start_time, tags or (), run_name)
        if run is None:
            return self._inner.create_run(experiment_id, user_id, start_time, list(tags or ()), run_name)
        view = self._views.put(own, RunView(own, run))
        view.kept = 0
        return view.run()

    def create_experiment(self, name: str, artifact_location: Any = None, tags: Any = None) -> str:
        self._checks.checked(validation._validate_experiment_name, name)
        return self._experiments.create(name, artifact_location, tags)

    def get_experiment(self, experiment_id: str) -> Any:
        return self._experiments.get(experiment_id)

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
            run = self._new_runs.find(run_id)
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

    def deliver(self) -> None:
        """Deliver what waits, before somebody looks into the store past it; within bounds."""
        self._reach.has_delivered()

    def forward(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Make any other call, after delivery of what it may have to see."""
        given = (*args, *kwargs.values())
        if sees_runs(name) or name in STAGES_OF_ALL:
            self.deliver()
        elif "experiment" in name:
            self._experiments.deliver_tags()
        if name in STAGES:
            self._views.forget(*given)
        elif name in STAGES_OF_ALL:
            self._views.forget_all()
        args = [self._ids.translated(each) for each in args]
        kwargs = {key: self._ids.translated(each) for key, each in kwargs.items()}
        if self._reach.is_away:
            with within(self._reach.timeout):
                return hide(function(self._inner, *args, **kwargs))
        answer = hide(function(self._inner, *args, **kwargs))
        if sees_runs(name) and not self._outbox.unsent:
            self._views.forget(*given)  # it may have changed them
        return answer
