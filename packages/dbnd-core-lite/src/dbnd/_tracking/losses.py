"""Events that the tracker will not have: they are counted, said, and named at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dbnd._journal.records import Record
from dbnd._terminal.text import capitalised


class Losses:
    """What one sender could not deliver for good; ``warn`` says a sentence at most once a minute."""

    def __init__(self, name: str, warn: Callable[[str], None]) -> None:
        self._name = name
        self._warn = warn
        self.dead = 0  # events that the tracker has refused, or that cannot be read
        self.damaged = 0  # events whose bytes in the journal have been changed
        self.dropped: Final[Counter[str]] = Counter()  # events of deleted runs, by uids of runs
        self._dead_path: Path | None = None
        self._damaged_path: Path | None = None
        self.refused_runs: Final[set[str]] = set()  # those whose announcement the tracker has refused

    def bury(self, record: Record, reason: str, path: Path) -> None:
        """Count an event that is kept aside in ``path``."""
        if record.is_damaged:
            self.damaged += record.points
            self._damaged_path = path
            self._warn(f"{record.points} events in the journal are damaged and lost; their bytes are kept in {path}.")
            return
        self.dead += 1
        self._dead_path = path
        if record.call == "init_run" and isinstance(record.body, dict):
            self.refused_runs.add(record.body.get("init_args", {}).get("run_uid"))
        who = "An event could not be sent" if record.line else f"{capitalised(self._name)} refused an event"
        self._warn(f"{who} ({record.call}: {reason}); it is kept in {path}.")

    def drop(self, dropped: Counter[str]) -> None:
        for run_uid in dropped.keys() - self.dropped.keys():
            self._warn(f"The run {run_uid} was deleted from {self._name}: what it still logs is dropped.")
        self.dropped.update(dropped)

    def counts(self) -> tuple[int, ...]:
        """The three numbers, which tell whether there is anything new to be said."""
        return self.dead, self.damaged, sum(self.dropped.values())

    def sentences(self) -> list[str]:
        """What there is to say at the end."""
        dead, damaged, dropped = self.counts()
        runs = ", ".join(self.dropped)
        found = [
            (dead, f"were refused by {self._name}; they are kept in {self._dead_path}."),
            (damaged, f"in the journal are damaged and lost; their bytes are kept in {self._damaged_path}."),
            (dropped, f"were dropped by {self._name}, because their runs were deleted: {runs}."),
        ]
        return [f"{count} events {what}" for count, what in found if count]
