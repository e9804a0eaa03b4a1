"""``dbnd tracker gc`` and ``backup``: care for the tracker's database."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click

from dbnd_tracker._cli.databases import database_option, duration, json_option, open_configured


@click.command()
@click.option("--older-than", required=True, help="Age from which ended runs go, such as 12h or 90d.")
@click.option("--job", "jobs", multiple=True, help="Only runs of this job; may be given more than once.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--vacuum", is_flag=True, help="Give the space back to the file system, which stops writers meanwhile.")
@database_option
@json_option
def gc(
    *, older_than: str, jobs: tuple[str, ...], dry_run: bool, vacuum: bool, database: str | None, as_json: bool
) -> None:
    """Delete runs that ended long ago, with everything that belongs to them.

    Runs that go on are kept; those that have been silent for too long (lost) count as ended.
    """
    from dbnd.plugins import console
    from dbnd_tracker._format import local_time
    from dbnd_tracker._storage.deletion import delete_client_errors, delete_expired, expired_runs

    before = datetime.now(timezone.utc) - duration(older_than, "--older-than")
    opened = open_configured(database)
    with opened.read() as session:
        found = expired_runs(session, before, jobs)
    runs = sum(len(expired.uids) for expired in found)
    points = sum(expired.points for expired in found)
    if as_json:
        facts = [
            {
                "job": expired.job,
                "run_uids": list(expired.uids),
                "points": expired.points,
                "first": expired.first.isoformat(),
                "last": expired.last.isoformat(),
            }
            for expired in found
        ]
        console.json_result(facts)
    elif found:
        rows = [
            (
                expired.job or "",
                str(len(expired.uids)),
                str(expired.points),
                local_time(expired.first),
                local_time(expired.last),
            )
            for expired in found
        ]
        console.result(console.table(("JOB", "RUNS", "POINTS", "FIRST", "LAST"), rows))
    what = f"{runs} {'run' if runs == 1 else 'runs'} with {points} {'point' if points == 1 else 'points'}"
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


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@database_option
@json_option
def backup(*, file: Path, database: str | None, as_json: bool) -> None:
    """Copy the tracker's SQLite database to FILE, while it is in use.

    FILE must not exist yet; it is a whole database, which `--database FILE` opens.
    """
    from dbnd import UsageError
    from dbnd.plugins import console
    from dbnd_tracker._storage.backup import back_up

    opened = open_configured(database, create=False)
    if opened.path is None:
        msg = f"The database {opened.name} is PostgreSQL's: back it up with pg_dump."
        raise UsageError(msg)
    back_up(opened.path, file)
    if as_json:
        facts = {"file": str(file), "database": opened.name, "bytes": file.stat().st_size}
        console.json_result(facts)
    console.success(f"{file} holds what {opened.name} held ({file.stat().st_size} bytes).")
