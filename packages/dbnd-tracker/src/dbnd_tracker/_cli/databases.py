"""The database that commands of the tracker work on, and the options that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dbnd import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    from dbnd_tracker._settings import TrackerSettings
    from dbnd_tracker._storage.database import Database

database_option = click.option("--database", help="File, sqlite:///file or postgresql://… (tracker.database).")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def tracker_settings(**options: Any) -> TrackerSettings:
    """The section ``[tracker]`` with what options say; the database is at least the embedded tracker's own file."""
    from dbnd import load_config
    from dbnd.tracking import embedded_url
    from dbnd_tracker._settings import TrackerSettings

    conf = {f"tracker.{key}": value for key, value in options.items() if value is not None}
    settings = load_config(conf=conf).settings(TrackerSettings)
    return settings.model_copy(update={"database": settings.database or embedded_url()})


def configured_database(given: str | None, *, create: bool = True, **options: Any) -> Database:
    """The database of the settings and ``options``, or the one that is given, open until the command ends.

    Raises:
        UsageError: Its file does not exist, and ``create`` is False.
    """
    from dbnd_tracker._storage.database import Database

    settings = tracker_settings(database=given, **options)
    database = Database(str(settings.database), settings)
    if not create and database.path is not None and not database.path.exists():
        raise UsageError(f"The database {database.name} does not exist.")
    click.get_current_context().call_on_close(database.close)
    database.open()
    return database


def duration_of(text: str, option: str) -> timedelta:
    """The duration that an option says, such as 30m, 12h, 90d or 2w; UsageError where it says none."""
    from dbnd.plugins import parse_duration

    span = parse_duration(text)
    if not span:
        raise UsageError(f"{option} {text!r} is no time such as 30m, 12h, 90d or 2w.")
    return span
