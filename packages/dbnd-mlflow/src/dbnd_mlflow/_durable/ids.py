"""Ids that runs and experiments get while MLflow's store is away, and the store's own ids of them.

MLflow's ids are always its store's: what is created during an outage has an id of ours until the store is back. A file
for each below the folder of the journals says how to create it, and then for good which id it has got, so that every
later call with the first id finds the run, also in another process of this machine.

Ours are UUIDs of version 8 (RFC 9562, section 5.8), as 32 hex digits, and MLflow's are of version 4: a look at an id
tells which it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dbnd import DatabandError

FIRST_ID: Final = "dbnd.first_run_id"
"""Tag of a run: with which id it was to be created. By it the run is found when that is tried again, or done later."""
FIRST_MODEL_ID: Final = "dbnd.first_model_id"
"""The same of a logged model."""
MODEL: Final = "m-"
"""What the ids of logged models begin with."""
SPOOLED: Final = "dbnd-spool:/"
"""What the artifact root of a run or model begins with that the store has not created; its id follows."""
OWN_ID: Final = re.compile(r"\b(?:m-)?[0-9a-f]{12}8[0-9a-f]{3}[89ab][0-9a-f]{15}\b")
# Seconds after which what a killed process has left is removed.
_LEFT: Final = 3600


class UncreatedError(DatabandError):
    """What an id of ours stands for is not in MLflow's store, which may have refused it; the text says why."""

    def __init__(self, text: str, *, is_refused: bool = False) -> None:
        super().__init__(text)
        self.is_refused = is_refused


def spooled_root(root: str) -> tuple[str, str] | None:
    """The id of ours in an artifact root, and the folder below its artifacts; None for a root of the store's."""
    own, _, below = root.removeprefix(SPOOLED).partition("/artifacts")
    return (own, below) if root.startswith(SPOOLED) else None


def new_id(kind: str = "") -> str:
    """A new id of ours, which begins with ``kind``."""
    return kind + uuid.UUID(int=uuid.uuid4().int & ~(0xF << 76) | 8 << 76).hex


def is_own(text: Any) -> bool:
    """Whether ``text`` is an id of ours."""
    return isinstance(text, str) and len(text) >= 32 and text[-20] == "8" and OWN_ID.fullmatch(text) is not None


class Ids:
    """The store's ids of what was created under ids of ours, in a folder that the first makes.

    Beside them is the ``spool``, for artifacts that wait.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.spool: Final = folder / "spool"
        self._known: dict[str, str] = {}
        self._first: dict[str, str] = {}

    def announce(self, own: str, call: str, body: dict[str, Any]) -> None:
        """Keep how to create what ``own`` stands for: whoever needs it first does so."""
        self.write(own, json.dumps([call, body]))

    def keep(self, own: str, real: str) -> None:
        """Keep the store's id of ``own`` for good, and which it was first."""
        self.write(real, own)
        self.write(own, real)
        self._known[own] = real

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder, in whose place there is never a part of it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unnamed = self.folder / f"{name}.{os.getpid()}.new"
        try:
            unnamed.write_text(text, encoding="utf-8")
            unnamed.replace(self.folder / name)
        except OSError:
            unnamed.unlink(missing_ok=True)
            raise

    def find(self, own: str) -> str | None:
        """The store's id of ``own``; None while there is none."""
        with suppress(UncreatedError):
            return self.real(own)
        return None

    def is_uncreated(self, text: Any) -> bool:
        """Whether ``text`` is an id of ours of what the store has not created."""
        return is_own(text) and self.find(text) is None

    def first(self, run_id: str) -> str:
        """The id that a run of the store had first, which is ``run_id`` itself unless it began here in an outage."""
        if run_id not in self._first and is_own(first := self._read(run_id)):
            self._first[run_id] = first
        return self._first.get(run_id, run_id)

    def real(self, run_id: str) -> str:
        """The store's id of ``run_id``, itself unless it is one of ours; UncreatedError where there is none yet."""
        if not is_own(run_id):
            return run_id
        if run_id not in self._known:
            text = self._read(run_id)
            if not text or text.startswith("["):
                raise UncreatedError(f"what has the id {run_id} is not created in it yet")
            self._known[run_id] = text
        return self._known[run_id]

    def creation(self, own: str) -> tuple[str, dict[str, Any]] | None:
        """The call that creates ``own``, and its body; None where this machine knows nothing of it."""
        text = self._read(own) if is_own(own) else ""
        if not text.startswith("["):
            return None
        call, body = json.loads(text)
        return call, body

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except OSError:
            return ""

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Be the only process of this machine that creates something; whether it is."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            except OSError:  # the file system has no locks
                yield True
            else:
                yield True

    def translated(self, value: Any) -> Any:
        """``value`` with every id of ours that the store has created replaced: in texts, lists of them, and of traces.

        A filter by the tag that holds the id of ours stays as it is.
        """
        if isinstance(value, str) and FIRST_ID not in value and FIRST_MODEL_ID not in value:
            return OWN_ID.sub(lambda found: self.find(found[0]) or found[0], value) if "8" in value else value
        if isinstance(value, list):
            return [self.translated(each) for each in value]
        if not hasattr(value, "trace_metadata"):
            return value
        changes = {"trace_metadata": {key: self.translated(each) for key, each in value.trace_metadata.items()}}
        if (place := value.trace_location.mlflow_experiment) is not None:
            where = replace(place, experiment_id=self.translated(place.experiment_id))
            changes["trace_location"] = replace(value.trace_location, mlflow_experiment=where)
        return replace(value, **changes)

    def awaited(self, value: Any) -> list[str]:
        """The ids that ``translated`` would replace in ``value`` if the store had created what they stand for."""
        if isinstance(value, str):
            return list(filter(self.is_uncreated, OWN_ID.findall(value))) if "8" in value else []
        if isinstance(value, list):
            return [own for each in value for own in self.awaited(each)]
        if not hasattr(value, "trace_metadata"):
            return []
        return self.awaited([*value.trace_metadata.values(), value.experiment_id])

    def tidy(self) -> None:
        """Remove what processes have left that were killed while they wrote it: nothing names it."""
        old = [path for path in self.folder.glob("*.new") if _age(path) > _LEFT]
        spooled = [path for path in self.spool.glob("*") if _age(path) > _LEFT]
        if spooled:
            journals = [*self.folder.parent.glob("*.journal"), *self.folder.parent.glob("*.dead")]
            named = {name for journal in journals for name in _names_in(journal)}
            old += [path for path in spooled if path.name not in named]
        for path in old:
            path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _names_in(journal: Path) -> Iterator[str]:
    """All that may be the name of a spooled file."""
    with suppress(FileNotFoundError), journal.open("rb") as file:
        for line in file:
            if b"log_artifact" in line:
                yield from (found.decode() for found in re.findall(rb"[0-9a-f]{32}", line))
