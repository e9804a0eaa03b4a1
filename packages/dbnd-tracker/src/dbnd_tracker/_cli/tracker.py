"""``dbnd tracker``: serve the tracker, say who may use it, and care for its database."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbnd import ConfigError, UsageError
from dbnd_tracker._cli.databases import configured_database, database_option, duration_of, json_option, tracker_settings
from dbnd_tracker._cli.tokens import token

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dbnd_tracker._settings import TrackerSettings
    from dbnd_tracker._storage.database import Database

vacuum_option = click.option(
    "--vacuum", is_flag=True, help="Give the space back to the file system, which stops writers meanwhile."
)


@click.group()
def tracker() -> None:
    """Serve the tracker on this machine."""


tracker.add_command(token)


@tracker.command()
@click.option("--host", help="Address to listen on (tracker.host); anything but the loopback needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (tracker.port); 0 takes a free one.")
@database_option
@click.option("--token", help="A token for everything (tracker.token); other users of the machine can see it.")
@click.option("--workers", type=click.IntRange(1, 64), help="Server processes, over PostgreSQL (tracker.workers).")
@click.option(
    "--access-log", help="File for a line of JSON for each request; - is standard error (tracker.access_log)."
)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
def start(*, opens: bool, **options: Any) -> None:
    """Serve the HTTP API and the web page until Ctrl-C.

    Unless told otherwise, the database is the file that runs without a tracker write to.
    """
    import webbrowser

    from dbnd.plugins import console
    from dbnd_tracker._middleware.observing import access_log
    from dbnd_tracker._server.app import create_app
    from dbnd_tracker._server.process import listen, serve
    from dbnd_tracker._server.workers import serve_workers
    from dbnd_tracker._storage.database import open_database
    from dbnd_tracker._storage.upkeep.sealing import sealing

    settings = tracker_settings(**options)
    access_log(settings.access_log)  # one that cannot be written to is said before anything starts
    with listen(settings.host, settings.port) as listening:
        opened = open_database(str(settings.database), settings)
        _check_postgresql(opened, settings)
        guarded = _is_guarded(opened, settings)
        address = f"http://{_shown(settings.host)}:{listening.getsockname()[1]}"

        def started() -> None:
            console.result(f"Tracker at {address} over {opened.name}.")
            if opens:  # a browser within the terminal returns when it is left, and the tracker must answer it meanwhile
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        if settings.workers > 1:
            opened.close()  # each process has connections of its own
            serve_workers(settings, listening, started, guarded=guarded)
        else:
            with sealing(opened):
                serve(create_app(opened, settings, guarded=guarded), listening, started, settings)
            opened.close()


def _shown(host: str) -> str:
    from dbnd_tracker._access.hosts import is_loopback

    if is_loopback(host):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _check_postgresql(database: Database, settings: TrackerSettings) -> None:
    """Refuse what the database cannot do, before a process is started for it."""
    from dbnd_tracker._storage.database import LEAST_CONNECTIONS
    from dbnd_tracker._storage.points.partitions import check_partitions
    from dbnd_tracker._storage.replica import Replica

    if settings.workers > 1 and database.path:
        raise ConfigError(
            f"tracker.workers = {settings.workers} needs PostgreSQL: the SQLite file {database.name} has one writer at "
            "a time, and more processes would only wait for each other. Leave it at 1, or set tracker.database."
        )
    if settings.read_database and database.path:
        raise ConfigError(
            f"tracker.read_database needs PostgreSQL, and {database.name} is an SQLite file: leave it unset, or set "
            "tracker.database."
        )
    if settings.connections < LEAST_CONNECTIONS * settings.workers:
        raise ConfigError(
            f"tracker.connections = {settings.connections} is too few for {settings.workers} processes "
            f"(tracker.workers), which need {LEAST_CONNECTIONS} each: allow more, in PostgreSQL (max_connections), "
            "too, or start fewer."
        )
    if settings.read_database:
        Replica(settings.read_database, settings)
    with database.read() as session:
        check_partitions(session.connection(), settings.partitions, database.name)


def _is_guarded(database: Database, settings: TrackerSettings) -> bool:
    """Whether every request must carry a token; where others than this machine reach the tracker, there must be one."""
    from dbnd_tracker._access.hosts import is_loopback
    from dbnd_tracker._access.tokens import is_guarded

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


@tracker.command()
@click.option("--older-than", required=True, help="Age from which ended runs go, such as 12h or 90d.")
@click.option("--job", "jobs", multiple=True, help="Only runs of this job; may be given more than once.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@vacuum_option
@database_option
@json_option
def gc(
    *, older_than: str, jobs: tuple[str, ...], dry_run: bool, vacuum: bool, database: str | None, as_json: bool
) -> None:
    """Delete runs that ended long ago, with everything that belongs to them.

    Runs that go on are kept; those that have been silent for too long (lost) count as ended.
    """
    from dbnd.plugins import console
    from dbnd_tracker._format import counted, local_time
    from dbnd_tracker._storage.upkeep.deletion import delete_client_errors, delete_expired, expired_runs

    before = datetime.now(timezone.utc) - duration_of(older_than, "--older-than")
    opened = configured_database(database, create=False)
    with opened.read() as session:
        found = expired_runs(session, before, jobs)
    if as_json:
        console.json_result(
            [
                {
                    "job": expired.job,
                    "run_uids": list(expired.uids),
                    "points": expired.points,
                    "first": expired.first.isoformat(),
                    "last": expired.last.isoformat(),
                }
                for expired in found
            ]
        )
    elif found:
        rows = [(x.job or "", str(len(x.uids)), str(x.points), local_time(x.first), local_time(x.last)) for x in found]
        console.result(console.table(("JOB", "RUNS", "POINTS", "FIRST", "LAST"), rows, uncut=("FIRST", "LAST")))
    runs, points = sum(len(expired.uids) for expired in found), sum(expired.points for expired in found)
    what = f"{counted(runs, 'run')} with {counted(points, 'point')}"
    if dry_run:
        console.info(f"{what} would be deleted from {opened.name}.")
        return
    for expired in found:
        delete_expired(opened, expired)
    if not jobs:
        delete_client_errors(opened, before)
    if vacuum:
        opened.vacuum()
    console.success(f"{what} deleted from {opened.name}.")


@tracker.command()
@vacuum_option
@database_option
@json_option
def seal(*, vacuum: bool, database: str | None, as_json: bool) -> None:
    """Compress the points of metrics now, which a tracker that is served does by itself.

    Those of runs that ended are compressed to the last one, of runs that go on all but the newest few thousand.
    """
    from dbnd.plugins import console
    from dbnd_tracker._format import counted
    from dbnd_tracker._storage.upkeep.sealing import fresh_points, seal_all

    opened = configured_database(database, create=False)
    fresh = fresh_points(opened)
    with console.progress("Compressing", fresh) as progress:
        sealed = seal_all(opened, lambda sealed: progress(fresh - sealed))
    if vacuum:
        opened.vacuum()
    if as_json:
        console.json_result({"database": opened.name, "points": sealed})
    console.success(f"{counted(sealed, 'point')} compressed in {opened.name}.")


@tracker.command()
@click.option("--older-than", required=True, help="Age from which ended runs are archived, such as 26w or 180d.")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Folder of the archive (tracker.archive).")
@vacuum_option
@database_option
@json_option
def archive(*, older_than: str, folder: Path | None, vacuum: bool, database: str | None, as_json: bool) -> None:
    """Move the points of runs that ended long ago to Parquet files, one for each run, in folders of months.

    All else of these runs stays in the database. A tracker whose tracker.archive names the folder shows them as before.
    """
    from dbnd.plugins import console
    from dbnd_tracker._format import counted
    from dbnd_tracker._storage.upkeep.archiving import archive_run
    from dbnd_tracker._storage.upkeep.deletion import expired_runs
    from dbnd_tracker._storage.upkeep.sealing import seal_all

    before = datetime.now(timezone.utc) - duration_of(older_than, "--older-than")
    opened = configured_database(database, create=False, archive=folder and str(folder.expanduser().absolute()))
    if opened.archive is None:
        raise UsageError("There is no folder to archive to: add --to FOLDER, or set tracker.archive.")
    seal_all(opened)
    with opened.read() as session:
        uids = [uid for expired in expired_runs(session, before) for uid in expired.uids]
    moved: dict[str, int] = {}
    with console.progress("Archiving", len(uids)) as progress:
        for place, uid in enumerate(uids):
            progress(len(uids) - place)
            if points := archive_run(opened, opened.archive, uid, _about):
                moved[uid] = points
    if vacuum:
        opened.vacuum()
    points = sum(moved.values())
    if as_json:
        console.json_result({"folder": str(opened.archive), "run_uids": list(moved), "points": points})
    what = f"{counted(points, 'point')} of {counted(len(moved), 'run')}"
    console.success(f"{what} moved from {opened.name} to {opened.archive}.")


def _about(session: Session, run_uid: str) -> str:
    from dbnd_tracker._queries.details import run_detail

    found = run_detail(session, run_uid)
    return found.model_dump_json() if found else "null"


@tracker.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@database_option
@json_option
def backup(*, file: Path, database: str | None, as_json: bool) -> None:
    """Copy the tracker's SQLite database to FILE, while it is in use.

    FILE must not exist yet; it is a whole database, which `--database FILE` opens.
    """
    from dbnd.plugins import console
    from dbnd_tracker._storage.upkeep.backup import back_up

    opened = configured_database(database, create=False)
    if opened.path is None:
        raise UsageError(f"The database {opened.name} is PostgreSQL's: back it up with pg_dump.")
    back_up(opened.path, file)
    size = file.stat().st_size
    if as_json:
        console.json_result({"file": str(file), "database": opened.name, "bytes": size})
    console.success(f"{file} holds what {opened.name} held ({size} bytes).")
