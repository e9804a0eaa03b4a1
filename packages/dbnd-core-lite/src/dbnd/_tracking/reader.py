"""Reading back what a tracker has: the contract of readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dbnd._config.config import Config


class Reader(Protocol):
    """Reads from one tracker, in the JSON forms of its read API."""

    name: str
    """The tracker as messages name it, without credentials."""

    def task_run(self, uid: str) -> dict[str, Any] | None:
        """The task run with this uid and everything it logged, or None.

        Raises:
            DatabandError: The tracker cannot be read.
        """

    def run_summary(self, uid: str) -> dict[str, Any] | None:
        """The run with this uid without what is in it, or None.

        Raises:
            DatabandError: The tracker cannot be read.
        """

    def points(self, task_run_uid: str, key: str) -> Iterator[dict[str, Any]]:
        """All points of one metric, in the order in which they came: step, timestamp (ms), value."""

    def close(self) -> None:
        """Release connections."""


ReaderFactory = Callable[[str, "Config"], Reader]
