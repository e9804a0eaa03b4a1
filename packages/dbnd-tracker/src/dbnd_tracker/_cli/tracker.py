"""``dbnd tracker``: serve the tracker, say who may use it, and care for its database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dbnd_tracker._cli.care import backup, gc
from dbnd_tracker._cli.databases import database_option
from dbnd_tracker._cli.tokens import token

if TYPE_CHECKING:
    from dbnd_tracker._settings import TrackerSettings
    from dbnd_tracker._storage.database import Database


@click.group()
def tracker() -> None:
    """Serve the tracker on this machine."""


for _command in (token, gc, backup):
    tracker.add_command(_command)


@tracker.command()
@click.option("--host", help="Address to listen on (tracker.host); anything but the loopback needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (tracker.port); 0 takes a free one.")
@database_option
@click.option("--token", help="A token for everything (tracker.token); other users of the machine can see it.")
@click.option("--workers", type=click.IntRange(1, 64), help="Server processes, over PostgreSQL (tracker.workers).")
@click.option(
    "--access-log", help="File for a line of JSON for each request; - is standard error (tracker.access_log)."
)
def start(*, database: str | None, **given: Any) -> None:
    """Serve the HTTP API and the web page until Ctrl-C.

    Unless told otherwise, the database is the file that runs without a tracker write to.
    """
    from dbnd import load_config
    from dbnd.plugins import console
    from dbnd_tracker._cli.databases import database_url
    from dbnd_tracker._server.app import create_app
    from dbnd_tracker._server.process import listen, serve
    from dbnd_tracker._server.workers import serve_workers
    from dbnd_tracker._settings import TrackerSettings
    from dbnd_tracker._storage.database import open_database

    conf = {f"tracker.{key}": value for key, value in given.items() if value is not None}
    settings = load_config(conf=conf).settings(TrackerSettings)
    settings = settings.model_copy(update={"database": database_url(database, settings)})
    _check_log(settings)
    with listen(settings.host, settings.port) as listening:
        opened = open_database(str(settings.database), heartbeat_timeout_s=settings.heartbeat_timeout_s)
        guarded = _is_guarded(opened, settings)
        address = f"http://{_shown(settings.host)}:{listening.getsockname()[1]}"

        def started() -> None:
            console.result(f"Tracker at {address} over {opened.name}.")

        if settings.workers > 1:
            _check_workers(opened, settings)
            opened.close()  # each process has connections of its own
            serve_workers(settings, listening, started, guarded=guarded)
        else:
            serve(create_app(opened, settings, guarded=guarded), listening, started, settings)
            opened.close()


def _shown(host: str) -> str:
    from dbnd_tracker._middleware.hosts import is_loopback

    if is_loopback(host):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _is_guarded(database: Database, settings: TrackerSettings) -> bool:
    """Whether every request must carry a token.

    Raises:
        ConfigError: Others than this machine reach the tracker, and there is no token yet.
    """
    from dbnd import ConfigError
    from dbnd_tracker._access.tokens import is_guarded
    from dbnd_tracker._middleware.hosts import is_loopback

    with database.read() as session:
        guarded = bool(settings.token) or is_guarded(session)
    if not is_loopback(settings.host):
        what = f"listen on {settings.host} (tracker.host)"
    elif settings.allowed_hosts:
        what = f"go by the name {settings.allowed_hosts[0]} (tracker.allowed_hosts)"
    else:
        return guarded
    if not guarded:
        raise ConfigError(
            f"The tracker does not {what} without a token, because everyone there could read and write runs: make one "
            "with `dbnd tracker token create`, set tracker.token, or leave tracker.host at 127.0.0.1."
        )
    return True


def _check_workers(database: Database, settings: TrackerSettings) -> None:
    """Refuse more processes than the database can use.

    Raises:
        ConfigError: It is an SQLite file.
    """
    from dbnd import ConfigError

    if database.path:
        raise ConfigError(
            f"tracker.workers = {settings.workers} needs PostgreSQL: the SQLite file {database.name} has one writer at "
            "a time, and more processes would only wait for each other. Leave it at 1, or set tracker.database."
        )


def _check_log(settings: TrackerSettings) -> None:
    """Refuse a log that cannot be written.

    Raises:
        ConfigError: tracker.access_log is no file that can be written to.
    """
    from pathlib import Path

    from dbnd import ConfigError

    if settings.access_log in {None, "-"}:
        return
    try:
        Path(str(settings.access_log)).expanduser().open("a").close()
    except OSError as error:
        raise ConfigError(
            f"tracker.access_log = {settings.access_log!r} cannot be written to: {error.strerror}."
        ) from None
