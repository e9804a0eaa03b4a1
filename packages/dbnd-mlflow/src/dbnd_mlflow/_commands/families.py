"""Which MLflow runs are nested in which: parents may be deleted, of another experiment, missing, or each other's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._durable.ids import FIRST_ID, OWN_ID
from .._reporting.derived import uid_of
from .._reporting.tags import PARENT, Link
from .mlflow_store import OwnStore


class Families:
    """The parents of MLflow runs, each of them read once; ``runs`` have been read already."""

    def __init__(self, store: OwnStore, runs: Iterable[Any] = ()) -> None:
        self._store = store
        self._runs: dict[str, Any] = {run.info.run_id: run for run in runs}
        self._by_first = {run.data.tags.get(FIRST_ID, ""): run_id for run_id, run in self._runs.items()}

    def parent(self, run: Any) -> Any:
        """The run that ``run`` is nested in; None if it names none, one that does not exist, or one below itself."""
        run_id = run.info.run_id
        parent = above = self._named(run)
        seen = {run_id}
        while above is not None and above.info.run_id not in seen:
            seen.add(above.info.run_id)
            above = self._named(above)
        return parent if above is None or above.info.run_id != run_id else None

    def run_uid(self, run: Any) -> str:
        """Uid of the run in the tracker in which an MLflow run is: that of its task, or of the topmost above it."""
        link, parent = Link.of(run), self.parent(run)
        if link is not None:
            return link.run_uid
        return uid_of(run.info.run_id) if parent is None else self.run_uid(parent)

    def translated(self, text: str) -> str:
        """``text`` with the store's ids of runs that began while it was away, in place of those that they had first."""
        return OWN_ID.sub(lambda found: self._real(found[0]), text)

    def with_parents(self, runs: Iterable[Any]) -> list[Any]:
        """``runs`` and those that they are nested in, each behind its parent."""
        found: dict[str, Any] = {}
        for run in runs:
            line = []
            above = run
            while above is not None and above.info.run_id not in found:
                line.append(above)
                above = self.parent(above)
            found.update((each.info.run_id, each) for each in reversed(line))
        return list(found.values())

    def _real(self, own: str) -> str:
        if own not in self._by_first:
            self._by_first[own] = self._store.id_of(own) or own
        return self._by_first[own]

    def _named(self, run: Any) -> Any:
        parent_id = run.data.tags.get(PARENT)
        if parent_id is None:
            return None
        if parent_id not in self._runs:
            self._runs[parent_id] = self._store.run_or_none(parent_id)
        return self._runs[parent_id]
