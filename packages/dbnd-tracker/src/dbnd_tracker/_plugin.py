"""What the tracker adds to dbnd: commands, a configuration section, and transports for databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbnd import Command, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dbnd import Config, Settings
    from dbnd.tracking import Reader, ReaderFactory, Transport, TransportFactory


@hookimpl
def dbnd_commands() -> Iterable[Command]:
    """Commands that serve the tracker and read from it."""
    return (
        Command("watch", "dbnd_tracker._cli.watch:watch", "Watch a run while it goes on, with charts of its metrics."),
        Command("tracker", "dbnd_tracker._cli.tracker:tracker", "Serve the tracker on this machine."),
        Command("runs", "dbnd_tracker._cli.runs:runs", "List, show, compare, export, open and delete tracked runs."),
    )


@hookimpl
def dbnd_settings() -> Iterable[type[Settings]]:
    """The section ``[tracker]``."""
    from dbnd_tracker._settings import TrackerSettings

    return (TrackerSettings,)


@hookimpl
def dbnd_transports() -> Mapping[str, TransportFactory]:
    """Trackers that are a database, without a server."""
    return {"sqlite": _embedded, "postgresql": _embedded, "postgresql+psycopg": _embedded}


@hookimpl
def dbnd_readers() -> Mapping[str, ReaderFactory]:
    """Readers of databases, and of servers with this package's read API."""
    return dict.fromkeys(("http", "https", "sqlite", "postgresql", "postgresql+psycopg"), _reader)


def _reader(url: str, config: Config) -> Reader:
    from dbnd_tracker._reader import open_run_reader

    del url  # the configuration's own, which it reads there
    return open_run_reader(config)


def _embedded(url: str, config: Config) -> Transport:
    from dbnd_tracker._embedded import EmbeddedTransport
    from dbnd_tracker._settings import TrackerSettings

    return EmbeddedTransport(url, config.settings(TrackerSettings))
