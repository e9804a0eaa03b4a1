"""``dbnd tracker gc`` and ``backup``: care for the tracker's database."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click

from dbnd_tracker._cli.databases import configured_database, database_option, duration_of, json_option


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

    before = datetime.now(timezone.utc) - duration_of(older_than, "--older-than")
    opened = configured_database(database)
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
        console.result(console.table(("JOB", "RUNS", "POINTS", "FIRST", "LAST"), rows))
    runs, points = sum(len(expired.uids) for expired in found), sum(expired.points for expired in found)
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
    from dbnd_tracker._storage.sqlite import back_up

    opened = configured_database(database, create=False)
    if opened.path is None:
        raise UsageError(f"The database {opened.name} is PostgreSQL's: back it up with pg_dump.")
    back_up(opened.path, file)
    size = file.stat().st_size
    if as_json:
        console.json_result({"file": str(file), "database": opened.name, "bytes": size})
    console.success(f"{file} holds what {opened.name} held ({size} bytes).")
