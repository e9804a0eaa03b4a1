"""The database that commands of the tracker work on, and the options that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from datetime import timedelta

    from dbnd_tracker._settings import TrackerSettings
    from dbnd_tracker._storage.database import Database

database_option = click.option("--database", help="File, sqlite:///file or postgresql://… (tracker.database).")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def database_url(given: str | None, settings: TrackerSettings) -> str:
    """``given`` on the command line, else ``tracker.database``, else the embedded tracker's own file."""
    from dbnd.tracking import embedded_url

    url = given or settings.database or embedded_url()
    assert url is not None, "this package serves SQLite files"
    return url


def configured_database(given: str | None, *, create: bool = True) -> Database:
    """The database of ``database_url``, open until the command ends.

    Raises:
        UsageError: Its file does not exist, and ``create`` is False.
    """
    from dbnd import UsageError, load_config
    from dbnd_tracker._settings import TrackerSettings
    from dbnd_tracker._storage.database import Database

    settings = load_config().settings(TrackerSettings)
    database = Database(database_url(given, settings), heartbeat_timeout_s=settings.heartbeat_timeout_s)
    if not create and database.path is not None and not database.path.exists():
        raise UsageError(f"The database {database.name} does not exist.")
    click.get_current_context().call_on_close(database.close)
    database.open()
    return database


def duration_of(text: str, option: str) -> timedelta:
    """The duration that an option says, such as 30m, 12h, 90d or 2w.

    Raises:
        UsageError: It says none.
    """
    from dbnd import UsageError
    from dbnd.plugins import parse_duration

    span = parse_duration(text)
    if not span:
        raise UsageError(f"{option} {text!r} is no time such as 30m, 12h, 90d or 2w.")
    return span
