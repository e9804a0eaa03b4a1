"""Bringing MLflow runs that were never tracked into the tracker.

Ids, times, steps and nesting are those of MLflow. Points go in batches whose journal and sequence numbers follow from
the run and the metric, so that a repeated or resumed import applies nothing twice.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dbnd._masking import mask_url, mask_value
from dbnd._run import RunState, TaskRun, TaskRunState
from dbnd._tracking import wire
from dbnd._tracking.points import Group, group, micros, point, text_point
from dbnd._tracking.transport import Batch, PartlyAppliedError, Transport

from ._artifacts import MAX_ARTIFACTS, artifacts_of, is_local
from ._datasets import dataset_operation
from ._derived import PARENT, derived_task_run, moment, uid_of
from ._reporter import IMPORTED, METRIC, MODEL, OWN_TAGS, PARAM, STATES, TAG, page_of
from ._sides import models_of, task_run_of

if TYPE_CHECKING:
    from dbnd._tracking.reader import Reader

    from ._sides import OwnStore

# Points of one batch.
_CHUNK: Final = 5_000


@dataclass(slots=True)
class Importer:
    """Imports runs of one MLflow store.

    Args:
        source: The store.
        transport: How events reach the tracker.
        reader: What the tracker has already.
        databand_url: The tracker, without credentials.
    """

    source: OwnStore
    transport: Transport
    reader: Reader
    databand_url: str
    _task_runs: dict[str, TaskRun] = field(default_factory=dict)

    def import_run(self, run: Any, experiment: str) -> bool:  # noqa: ANN401  MLflow's Run, of whichever version
        """Import one run; a run that the tracker has from its own time, or wholly by an import, is left as it is.

        Args:
            run: The MLflow run.
            experiment: Name of its experiment.

        Returns:
            Whether anything was sent.

        Raises:
            TransportError: The tracker does not take it.
        """
        state = f"{run.info.status} {run.info.end_time}"
        known = task_run_of(run, self.reader)
        if known is not None:
            imported = {tag["name"]: tag["value"] for tag in known["tags"]}.get(IMPORTED)
            is_reported = known["type"] is not None  # and not just points of a run whose start was never seen
            if imported == state or (imported is None and is_reported):
                return False
        self._send_facts(run, experiment)
        for key in sorted(run.data.metrics):
            self._send_points(run, key)
        self._send_end(run, state)
        return True

    def _send_facts(self, run: Any, experiment: str) -> None:  # noqa: ANN401
        task_run = self._place(run, experiment)
        attempt = task_run.attempt_uid
        if task_run.is_root:
            self._send("init_run", wire.init_run(task_run.run, task_run, databand_url=self.databand_url))
        else:
            self._send("add_task_runs", wire.add_task_runs(task_run.run, [task_run]))
        started = micros(task_run.start_time)
        running = wire.attempt_update(task_run, TaskRunState.RUNNING, task_run.start_time, None)
        self._send("update_task_run_attempts", running)
        link = {"mlflow": page_of(self.source.uri, run.info)}
        self._send("save_external_links", wire.external_links(attempt, link))
        tags = {key: value for key, value in run.data.tags.items() if key not in OWN_TAGS}
        groups = [
            group(attempt, source, (text_point(key, mask_value(key, value), started) for key, value in texts.items()))
            for source, texts in ((PARAM, run.data.params), (TAG, {**tags, IMPORTED: "begun"}))
        ]
        self._send("log_metrics", groups)
        inputs = getattr(run, "inputs", None)
        for number, item in enumerate(inputs.dataset_inputs if inputs else (), start=1):
            operation = dataset_operation(item.dataset, task_run.start_time)
            body = wire.dataset_operation(task_run, operation)
            self._send("log_datasets", body, journal=_journal(run.info.run_id, "datasets"), first=number)
        for name, place in self._artifacts(run):
            self._send("log_artifact", wire.artifact(attempt, name, mask_url(place)))
        for name in models_of(run):
            place = f"{run.info.artifact_uri}/{name}"
            self._send("log_artifact", wire.artifact(attempt, f"{MODEL}{name}", mask_url(place)))

    def _artifacts(self, run: Any) -> list[tuple[str, str]]:  # noqa: ANN401
        """Names and places of a run's artifacts, also of those on a server; of many only their root."""
        root = run.info.artifact_uri
        if is_local(root):
            return artifacts_of(root)
        names = self.source.artifacts(run.info.run_id, MAX_ARTIFACTS)
        return artifacts_of(root) if names is None else [(name, f"{root}/{name}") for name in names]

    def _send_points(self, run: Any, key: str) -> None:  # noqa: ANN401
        attempt = self._task_runs[run.info.run_id].attempt_uid
        points = [
            point(key, m.value, int(m.timestamp * 1000), int(m.step)) for m in self.source.history(run.info.run_id, key)
        ]
        journal = _journal(run.info.run_id, key)
        done = 0
        while done < len(points):
            chunk = points[done : done + _CHUNK]
            batch = Batch("log_metrics", [group(attempt, METRIC, chunk)], journal, done + 1, done + len(chunk))
            try:
                self.transport.send(batch)
            except PartlyAppliedError as error:
                done = error.last
            else:
                done += len(chunk)

    def _send_end(self, run: Any, state: str) -> None:  # noqa: ANN401
        task_run = self._task_runs[run.info.run_id]
        if run.info.status in STATES:
            task_state, run_state = STATES[run.info.status]
            ended = moment(run.info.end_time)
            self._send("update_task_run_attempts", wire.attempt_update(task_run, task_state, ended, None))
            if task_run.is_root:
                self._send("set_run_state", wire.run_state(task_run.run.uid, run_state, ended))
        mark = text_point(IMPORTED, state, micros(task_run.start_time))
        self._send("log_metrics", [group(task_run.attempt_uid, TAG, [mark])])

    def _place(self, run: Any, experiment: str) -> TaskRun:  # noqa: ANN401
        """The task run that ``run`` becomes, below that of its parent."""
        run_id = run.info.run_id
        if run_id not in self._task_runs:
            parent = self._parent(run, experiment)
            task_run = derived_task_run(run, parent, experiment)
            task_run.run.cmd_name = "mlflow_import"
            task_run.run.state = RunState.RUNNING
            self._task_runs[run_id] = task_run
        return self._task_runs[run_id]

    def _parent(self, run: Any, experiment: str) -> TaskRun | None:  # noqa: ANN401
        parent_id = run.data.tags.get(PARENT)
        if parent_id is None:
            return None
        parent = self.source.run_or_none(parent_id)
        # Deleted for good: the child stands for itself.
        return None if parent is None else self._place(parent, experiment)

    def _send(
        self, call: str, body: dict[str, Any] | list[Group], *, journal: str | None = None, first: int = 1
    ) -> None:
        """Send one call; without a journal it is one that changes nothing when repeated."""
        self.transport.send(Batch(call, body, journal or uuid.uuid4().hex, first, first))


def _journal(run_id: str, part: str) -> str:
    return uuid.uuid5(uuid.UUID(uid_of(run_id)), f"import:{part}").hex
