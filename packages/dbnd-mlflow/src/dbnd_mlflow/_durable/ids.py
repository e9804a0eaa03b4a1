"""Ids that runs and experiments get while MLflow's store is away, and the store's own ids of them.

MLflow's ids are always its store's: what is created during an outage has an id of ours until the store is back. The two
are then kept together for good, in a file for each below the folder of the journals, so that every later call with the
first id finds the run, also in another process of this machine.

Ours are UUIDs of version 8 (RFC 9562, section 5.8), as 32 hex digits, and MLflow's are of version 4: a look at an id
tells which it is.
"""

from __future__ import annotations

import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dbnd import DatabandError

FIRST_ID: Final = "dbnd.first_run_id"
"""Tag of a run: with which id it was to be created. By it the run is found when that is tried again, or done later."""
SPOOLED: Final = "dbnd-spool:/"
"""What the artifact root of a run begins with that the store has not created; its id follows."""
OWN_ID: Final = re.compile(r"\b[0-9a-f]{12}8[0-9a-f]{3}[89ab][0-9a-f]{15}\b")
_REFUSED: Final = "refused "


class UncreatedError(DatabandError):
    """What an id of ours stands for is not created in MLflow's store yet, or never will be.

    Args:
        own: The id.
        reason: Why the store refuses it for good; None while it may still be created.
    """

    def __init__(self, own: str, reason: str | None) -> None:
        what = "is not created in it yet" if reason is None else f"was refused by it ({reason})"
        super().__init__(f"what has the id {own} {what}")
        self.reason = reason


def new_id() -> str:
    """A new id of ours."""
    return uuid.UUID(int=uuid.uuid4().int & ~(0xF << 76) | 8 << 76).hex


def is_own(text: str) -> bool:
    """Whether ``text`` is an id of ours."""
    return len(text) == 32 and text[12] == "8" and OWN_ID.fullmatch(text) is not None


class Ids:
    """The store's ids of what was created under ids of ours.

    Args:
        folder: Where they are kept; made when there is the first.

    Attributes:
        spool: The folder beside them, for artifacts that wait.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.spool: Final = folder / "spool"
        self._known: dict[str, str] = {}

    def keep(self, own: str, real: str) -> None:
        """Keep the store's id of ``own`` for good."""
        self._write(own, real)
        self._known[own] = real

    def refuse(self, own: str, reason: str) -> None:
        """Keep why the store will not create ``own``; ``keep`` takes that back."""
        self._write(own, f"{_REFUSED}{reason}")

    def _write(self, own: str, text: str) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unnamed = self.folder / f"{own}.{os.getpid()}.new"
        unnamed.write_text(text, encoding="utf-8")
        unnamed.replace(self.folder / own)

    def find(self, own: str) -> str | None:
        """The store's id of ``own``; None while there is none."""
        with suppress(UncreatedError):
            return self.real(own)
        return None

    def real(self, run_id: str) -> str:
        """The store's id of ``run_id``, which is that itself unless it is one of ours.

        Raises:
            UncreatedError: The store has not created it.
        """
        if not is_own(run_id):
            return run_id
        if run_id not in self._known:
            try:
                text = (self.folder / run_id).read_text(encoding="utf-8")
            except OSError:
                raise UncreatedError(run_id, None) from None
            if text.startswith(_REFUSED):
                raise UncreatedError(run_id, text.removeprefix(_REFUSED))
            self._known[run_id] = text
        return self._known[run_id]

    def translated(self, value: Any) -> Any:
        """``value`` with every id of ours that the store has created replaced, in texts and in lists of them."""
        if isinstance(value, str):
            return OWN_ID.sub(lambda found: self.find(found[0]) or found[0], value) if "8" in value else value
        if isinstance(value, list):
            return [self.translated(each) for each in value]
        return value
