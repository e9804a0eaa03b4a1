"""Reading back what a tracker has: the contract of readers, and which one serves a URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from dbnd._errors import ConfigError
from dbnd._masking import mask_url
from dbnd._tracking.transport import configured_url

if TYPE_CHECKING:
    from dbnd._config import Config


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


def open_reader(config: Config) -> Reader:
    """A reader of the configured tracker.

    Raises:
        ConfigError: No tracker is configured, or no installed package reads it.
    """
    from dbnd._plugins import plugins

    url = configured_url(config)
    factories = {scheme: make for found in plugins().call("dbnd_readers") for scheme, make in found.items()}
    scheme = (url or "").partition(":")[0].lower()
    if url is None or scheme not in factories:
        what = f"The tracker {mask_url(url)}" if url else "The tracker"
        msg = f"{what} cannot be read: install dbnd-tracker (pip install 'databand[tracker]')."
        raise ConfigError(msg)
    reader: Reader = factories[scheme](url, config)
    return reader
