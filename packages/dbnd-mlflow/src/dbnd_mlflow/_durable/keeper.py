"""What becomes of a call of MLflow's store: it is made, or kept until the store is there.

In ``keep`` a write goes to the store while that answers within ``store_timeout`` and nothing waits for it; from the
first write that it does not answer, all go to the journal until it has taken them. In ``deferred`` all go there always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

from mlflow.entities import RunStatus, RunTag
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils import validation

from .._mlflow import STAGES
from . import events
from .artifacts import Artifacts
from .errors import PassOverAway, is_away, is_of_others
from .events import are_usual, are_usual_inputs, is_long, is_text, is_text_or_none
from .experiments import Experiments
from .ids import FIRST_ID, UncreatedError, is_own, new_id
from .models import Models
from .runs import Runs, RunView
from .target import Target, hide

# Words in the names of methods that read or change what runs have logged, and of others.
_OF_RUNS: Final = ("run", "metric", "param", "tag", "model", "input", "output", "history", "dataset")
_APART: Final = ("experiment", "trace", "registered", "version", "webhook", "scorer", "async")


class Keeper:
    """Decides for one store of this process; the ``tracker`` (its URL, without credentials) hears of the runs.

    Any number of threads may call. Its methods that are named as the store's take the same arguments, return and raise
    the same.
    """

    def __init__(self, target: Target, tracker: str, max_bytes: int) -> None:
        self._target = target
        self._inner = target.inner
        self._ids = target.ids
        self._checks = target.checks
        self._runs = Runs(target, tracker)
        self.artifacts: Final = Artifacts(target, max_bytes)
        self.experiments: Final = Experiments(target, self._write)
        self.models: Final = Models(target, self._write)

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
        is_usual = are_usual(metrics, (*params, *tags)) and (self._target.is_direct or self.models.are_known(metrics))
        view = self._view(run_id, is_usual=is_usual)
        if is_usual and self._checks.is_file and view.has_no_place(metrics, params, tags):
            is_usual, view = False, self._view(run_id, is_usual=False)
        for param in params:
            self._checks.param(run_id, view.params.get(param.key), param, is_batch=name == "log_batch")

        def groups(*, is_repeated: bool = False) -> list[Any]:
            return [
                *events.text_group(run_id, events.PARAM, params),
                *events.metric_group(run_id, metrics, is_repeated=is_repeated),
                *events.text_group(run_id, events.TAG, tags),
            ]

        self._write(view, run_id, name, args, groups, call=events.POINTS, is_usual=is_usual)
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
        info = self._write(view, run_id, "update_run_info", args, lambda: body, is_usual=is_usual)
        view.update(run_status, end_time, run_name)
        return info or view.info()

    def delete_tag(self, run_id: str, key: str) -> None:
        is_usual = is_text(key) and key != ""
        view = self._view(run_id, is_usual=is_usual)
        if view.is_known and key not in view.tags:
            raise self._checks.error("RESOURCE_DOES_NOT_EXIST", f"No tag with name: {key} in run with id {run_id}")
        body = {"run_id": run_id, "key": key}
        self._write(view, run_id, "delete_tag", (key,), lambda: body, is_usual=is_usual)
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
        self._write(view, run_id, "log_inputs", args, lambda: body, is_usual=is_usual)

    def log_outputs(self, run_id: str, models: Any) -> None:
        body, ids = {"run_id": run_id, "models": events.inputs(models)}, {each.model_id for each in models or ()}
        view = self._view(run_id, is_usual=bool(models))
        is_usual = bool(models) and view.outputs.isdisjoint(ids)
        self._write(view, run_id, "log_outputs", (models,), lambda: body, is_usual=is_usual)
        view.outputs |= ids

    # What a write comes to.

    def _write(
        self,
        view: RunView | None,
        own_id: str,
        name: str,
        args: tuple[Any, ...],
        body: Callable[..., Any],
        *,
        call: str | None = None,
        is_usual: bool = True,
    ) -> Any:
        """Make a call now, or keep it; returns the store's answer, and None for one that was kept.

        What is usual every store takes, and a journal keeps as it is. Anything else goes to a store that can be asked,
        which may refuse it, or store it as no journal would. Only of a run there is a ``view``. The event that is kept
        has what ``body`` makes, and is named ``call``, or else as the store's method.
        """
        target = self._target
        self._checks.active(own_id, is_deleted=view is not None and view.is_deleted)
        is_next = target.is_direct and not target.outbox.unsent
        is_asked = not target.is_away and (is_next or (not is_usual and target.has_delivered()))
        if is_asked and not self._ids.is_uncreated(own_id):
            try:
                return self._made(view, own_id, name, args, is_usual=is_usual)
            except Exception as error:
                if not (is_away(error) or is_of_others(error)):
                    raise
                if call == events.POINTS:
                    body = partial(body, is_repeated=True)
        if not target.keep(call or name, body()):  # the disk is full, or the like
            return getattr(self._inner, name)(self._real(own_id), *args)
        if view is not None and view.kept is not None:
            view.kept += 1
        return None

    def _made(self, view: RunView | None, own_id: str, name: str, args: tuple[Any, ...], *, is_usual: bool) -> Any:
        """Make a call now, and return the store's answer."""
        try:
            with self._target.asking(is_final=True):
                answer = getattr(self._inner, name)(self._ids.real(own_id), *args)
        finally:
            if not is_usual:  # of what is refused, too, a part may have been taken
                self._runs.forget(own_id)
                self.models.forget(own_id)
        if view is not None:
            view.kept = None
        return answer

    def ask(self, refusal: Exception, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Let the store itself refuse a write that a check of ours refuses, or take it; an answer of it stands."""
        if self._target.has_answered(refusal) or self._target.is_away:
            raise refusal
        try:
            self.deliver()
            with self._target.asking():
                answer = self.forward(name, function, args, kwargs)
        except Exception as error:
            if is_away(error):
                raise refusal from None
            self._runs.forget(*args, *kwargs.values())  # a part may have been taken
            raise
        self._runs.forget(*args, *kwargs.values())
        return answer

    def _view(self, run_id: str, *, is_usual: bool = True) -> RunView:
        """What is known of a run. In ``deferred`` it is read before the first write, which raises if there is none.

        It is not read for what is unusual, to which the store's answer is better.
        """
        if not is_usual:
            return RunView(run_id)
        view = self._runs.get(run_id)
        if view is not None and not view.is_deleted:
            return view
        self._runs.forget(run_id)  # somebody may have restored it
        run = self._runs.announced(run_id)
        if run is None and not (self._target.is_direct or self._target.is_away):
            with PassOverAway(), self._target.asking():
                run = self._inner.get_run(self._ids.real(run_id))
        return self._runs.put(run_id, run)

    def _real(self, run_id: str) -> str:
        try:
            return self._ids.real(run_id)
        except UncreatedError as error:
            raise self._checks.error("RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found: {error}.") from None

    # Creating and reading runs.

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: Sequence[Any], run_name: str | None
    ) -> Any:
        own = new_id()
        experiment_id = self._ids.translated(experiment_id)
        # A run that is not created yet is named by an id of ours: what is nested in it is created after it.
        named = (RunTag(t.key, self._ids.translated(t.value)) if is_own(t.value) else t for t in tags or ())
        given = [tag for tag in named if tag.key != FIRST_ID]  # which a copied run brings along
        if not (self._target.is_away or is_own(experiment_id) or any(is_own(tag.value) for tag in given)):
            with PassOverAway(), self._target.asking():
                with_key = [*given, RunTag(FIRST_ID, own)]
                run = hide(self._inner.create_run(experiment_id, user_id, start_time, with_key, run_name))
                self._runs.put(run.info.run_id, run).begin()
                return run
        run = self._runs.announce(own, experiment_id, user_id, start_time, given, run_name)
        if run is None:
            return self._inner.create_run(experiment_id, user_id, start_time, given, run_name)
        view = self._runs.put(own, run)
        view.begin()
        return view.run()

    def get_run(self, run_id: str) -> Any:
        view = self._runs.get(run_id)
        if (view is None or not view.is_known) and (run := self._runs.announced(run_id)) is not None:
            view = self._runs.put(run_id, run)

        def see(run: Any) -> None:
            # Kept under the id that was asked for, under which it is written to.
            self._runs.put(run_id).refresh(run)

        is_known = view is not None and view.is_known
        run = self._target.read(run_id, self._inner.get_run, see, is_known=is_known)
        return view.run() if run is None and view is not None else run

    def get_metric_history(self, run_id: str, metric_key: str, *args: Any, **kwargs: Any) -> Any:
        target, view = self._target, self._runs.get(run_id)
        kept = None if view is None else view.kept
        history = None if view is None else view.history

        def ask() -> Any:
            return self._inner.get_metric_history(self._ids.translated(run_id), metric_key, *args, **kwargs)

        if not target.is_away and target.has_delivered(once=kept is not None or history is not None):
            try:
                with target.asking(is_only=history is None):
                    return ask()
            except Exception as error:
                if history is None or not (is_away(error) or is_of_others(error)):
                    raise
        points = None if history is None else history.points(metric_key)
        if points is not None:
            return PagedList(points, None)
        found = None if kept is None else events.kept_points(target.outbox.waiting(), run_id, metric_key, kept)
        if found is not None:
            return found
        with self.bounded():
            return ask()

    # All other calls.

    def deliver(self) -> None:
        """Deliver what waits, before somebody looks into the store past it; within bounds."""
        self._target.has_delivered()

    def forward(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Make any other call, after delivery of what it may have to see."""
        given = (*args, *kwargs.values())
        if _sees_runs(name) or name in STAGES:
            self.deliver()
        elif "experiment" in name:
            self.experiments.deliver()
        if name in STAGES and "experiment" in name:
            self._runs.forget_all()
            self.models.forget_all()
        elif name in STAGES:
            self._runs.forget(*given)
        args, kwargs = self.translated(args, kwargs)
        with self.bounded():
            answer = hide(function(self._inner, *args, **kwargs))
        if _sees_runs(name) and not self._target.outbox.unsent:
            self._runs.forget(*given)  # it may have changed them
            self.models.forget(*given)
        return answer

    def bounded(self) -> AbstractContextManager[None]:
        """See ``Target``."""
        return self._target.bounded()

    def translated(self, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
        """Arguments with the store's own ids, after delivery of what has none yet; within bounds.

        What the store cannot create now ends the call with MLflow's own error: nobody would find it by an id of ours.
        """
        given = [*args, *kwargs.values()]
        if self._ids.awaited(given):
            self._target.has_delivered(once=self._target.is_away)
            # The store may take this call though it has just refused the events before it.
            self._target.create(self._ids.awaited(given))
        by_name = {key: self._ids.translated(each) for key, each in kwargs.items()}
        return [self._ids.translated(each) for each in args], by_name


def _sees_runs(name: str) -> bool:
    """Whether a method of a store, also one that MLflow has got since, may read or change what runs have logged."""
    return any(word in name for word in _OF_RUNS) and not any(word in name for word in _APART)
