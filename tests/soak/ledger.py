"""The accounts of the soak's processes beside what the tracker has: point by point."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Point = tuple[str, Any]
"""Key and value; the value of poison counts as "any"."""


@dataclass
class Ledger:
    """What was accepted of one process, by its account in ``path``."""

    path: Path
    number: int
    run: str = ""
    task_run: str = ""
    accepted: Counter[Point] = field(default_factory=Counter)
    tried: Counter[Point] = field(default_factory=Counter)

    def read(self) -> Ledger:
        """Read the account anew."""
        self.accepted.clear()
        self.tried.clear()
        entries: dict[str, Point] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            kind, *rest = line.split(" ", 3)
            if kind == "run":
                self.run, self.task_run = rest
            elif kind == "?":
                entries[rest[0]] = (rest[1], json.loads(rest[2]))
                self.tried[entries[rest[0]]] += 1
            elif kind == "+":
                self.accepted[entries[rest[0]]] += 1
        return self

    def compare(self, reader: Any, named: Counter[Point]) -> list[str]:
        """What is wrong with the tracker's points, in sentences, where those ``named`` are known as lost or refused."""
        found = _points(reader, self.task_run)
        wrong = [f"{self.number}: {point} is there {count} times" for point, count in found.items() if count > 1]
        wrong += [f"{self.number}: {point} is lost" for point in self.accepted - found - named]
        wrong += [f"{self.number}: {point} is not its own" for point in found - self.tried]
        return wrong


def _points(reader: Any, task_run_uid: str) -> Counter[Point]:
    task_run = reader.task_run(task_run_uid)
    if task_run is None:
        return Counter()
    found: Counter[Point] = Counter()
    for metric in task_run["metrics"]:
        key = metric["key"]
        for point in reader.points(task_run_uid, key):
            found[key, "any" if key.startswith("poison-") else float(point["value"])] += 1
    return found


def points_of(body: Any) -> Counter[Point]:
    """The points of the body of a journal's ``log_metrics``."""
    found: Counter[Point] = Counter()
    for _, _, members in body:
        for place in range(0, len(members), 5):
            key, value = members[place : place + 2]
            found[key, "any" if key.startswith("poison-") else value] += 1
    return found
