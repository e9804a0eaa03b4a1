"""What a point takes on disk, and how fast a series is read: rows and segments of the tracker, beside column stores.

Series of 100,000 points are written as rows, sealed, and read whole. Parquet, read by DuckDB, and ClickHouse (chdb)
have the same columns in the same order; what is not installed is named and left out.

    python benchmarks/storage.py --points 1000000

With ``--large``, so many points in series of ten million, written as segments at once: size, and the time of a chart,
of a part of it, of a backup and of the run's deletion.

    python benchmarks/storage.py --large 100000000
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import postgresql, table
from sqlalchemy import insert, text, update

from dbnd_tracker._queries.points.arrays import SeriesCache
from dbnd_tracker._queries.points.metrics import find_series
from dbnd_tracker._queries.points.series import chart_sample
from dbnd_tracker._storage.database import Database, open_database
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries, Run, TaskRun
from dbnd_tracker._storage.points.insertion import insert_points
from dbnd_tracker._storage.points.models import SEGMENT, Segment
from dbnd_tracker._storage.points.reading import read_points
from dbnd_tracker._storage.points.segments import VERSION, Points, head, pack
from dbnd_tracker._storage.upkeep.backup import back_up
from dbnd_tracker._storage.upkeep.deletion import delete_runs
from dbnd_tracker._storage.upkeep.sealing import seal_all
from dbnd_tracker._storage.writer import Writer

Array = np.ndarray[Any, Any]
LENGTH = 100_000
LONG = 10_000_000
CHUNK = 50_000
START_US = 1_780_000_000_000_000


def curves(count: int) -> dict[str, Array]:
    """Values of each kind, of which metrics are made."""
    dice = np.random.default_rng(7)
    noise = dice.random(count)
    loss = 1 / (1 + np.arange(count) % LENGTH / 5_000) + noise / 10
    return {
        "float32 losses": loss.astype("f4").astype("f8"),
        "float64 losses": loss,
        "float64 noise": noise,
        "integers": np.floor(loss * 1_000),
        "one value": np.full(count, 0.001),
    }


def times(count: int) -> Array:
    """Times in µs, some tenths of a second apart, as clients send them."""
    return START_US + np.cumsum(np.random.default_rng(8).integers(90, 110, count)) * 1_000


def run(database: Database, series: int, points: int) -> None:
    """A run that has ended, with so many series of so many points, which are still to be stored."""

    def facts(writer: Writer) -> None:
        flags = dict.fromkeys(("is_root", "is_system", "is_reused", "is_skipped", "is_dynamic"), False)
        now = writer.now
        writer.session.execute(
            insert(Run), [{"id": 1, "uid": "r", "start_time": now, "end_time": now, "state": "success"}]
        )
        writer.session.execute(insert(TaskRun), [{"id": 1, "uid": "t", "run_uid": "r"} | flags])
        writer.session.execute(insert(Attempt), [{"id": 1, "uid": "a", "task_run_uid": "t", "run_id": 1}])
        writer.session.execute(insert(MetricKey), [{"id": n + 1, "name": f"m{n}"} for n in range(series)])
        rows = [{"id": n + 1, "attempt_id": 1, "key_id": n + 1, "points": points} for n in range(series)]
        writer.session.execute(insert(MetricSeries), [row | {"only_ints": False} for row in rows])

    database.write(facts)


def fill(database: Database, values: Array) -> None:
    """Store the values as points of one run that has ended."""
    run(database, len(values) // LENGTH, LENGTH)
    at = times(len(values))
    for start in range(0, len(values), CHUNK):
        part = np.arange(start, min(start + CHUNK, len(values)))
        step = (part % LENGTH).tolist()
        columns = [
            (part // LENGTH + 1).tolist(),
            [each + 1 for each in step],
            step,
            at[part].tolist(),
            values[part].tolist(),
            [0] * len(part),
            [None] * len(part),
        ]
        database.write(lambda writer, columns=columns: insert_points(writer.connection, columns))


def size(database: Database) -> int:
    """Bytes of the tables of points with their indexes, after the space of deleted rows was given back."""
    database.vacuum()
    with database.read() as session:
        if database.path:
            return database.path.stat().st_size
        sizes = "SELECT sum(pg_total_relation_size(c::regclass)) FROM unnest(ARRAY['metrics', 'segments']) AS c"
        return int(session.scalar(text(sizes)) or 0)


def reading(database: Database, series: int) -> float:
    """Seconds for all points of all series, each read whole; the median of three."""
    found = []
    for _ in range(3):
        started = time.perf_counter()
        with database.read() as session:
            for number in range(series):
                read_points(session.connection(), number + 1, 0, LENGTH)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def ours(url: str, values: Array) -> Iterator[tuple[str, float, float]]:
    """Bytes and seconds of rows, then of segments."""
    database = open_database(url)
    empty = size(database)
    fill(database, values)
    series = -(-len(values) // LENGTH)
    kind = "SQLite" if database.path else "PostgreSQL"
    yield f"{kind}, rows", size(database) - empty, reading(database, series)
    if seal_all(database) != len(values):
        sys.exit("Not all points were sealed.")
    yield f"{kind}, segments", size(database) - empty, reading(database, series)
    database.close()


def large(url: str, points: int) -> tuple[str, ...]:
    """What is measured of so many points."""
    database = open_database(url)
    series = max(1, points // LONG)
    per = points // series
    run(database, series, per)
    empty = size(database)
    losses = curves(per)["float32 losses"]
    at = times(per)
    for number in range(series):
        for start in range(0, per, 100 * SEGMENT):
            database.write(partial(_write, number + 1, start, losses[start : start + 100 * SEGMENT], at))
    taken = size(database) - empty

    def seconds(work: Callable[[], object]) -> str:
        started = time.perf_counter()
        work()
        return f"{time.perf_counter() - started:.2f}"

    def chart(**part: float) -> None:
        with database.read() as session:
            found = find_series(session, "t", "m0")
            assert found is not None
            chart_sample(session, SeriesCache(), found, **part)  # type: ignore[arg-type]

    whole, part = seconds(chart), seconds(partial(chart, first=per / 2, last=per / 2 + 100_000))
    backup = "-"
    if path := database.path:
        backup = seconds(lambda: back_up(path, path.with_suffix(".copy")))
        path.with_suffix(".copy").unlink()
    gone = seconds(lambda: database.write(lambda writer: delete_runs(writer.session, ["r"])))
    kind = "SQLite" if database.path else "PostgreSQL"
    database.close()
    return kind, f"{points:,}", f"{taken / 1e9:.2f}", f"{taken / points:.1f}", whole, part, backup, gone


def write_segments(series: int, start: int, values: Array, at: Array, writer: Writer) -> None:
    """Add points to those of a series, of which there are ``start``, as segments."""
    rows = []
    for first in range(0, len(values), SEGMENT):
        some = values[first : first + SEGMENT]
        place = np.arange(start + first, start + first + len(some))
        points = Points(place, at[place], some, np.zeros(len(some), np.uint8), {})
        key = {"series_id": series, "first": start + first + 1, "points": len(some), "version": VERSION}
        rows.append({**key, **head(points), "data": pack(points)})
    writer.session.execute(insert(Segment), rows)


def _write(series: int, start: int, losses: Array, at: Array, writer: Writer) -> None:
    write_segments(series, start, losses, at, writer)
    writer.session.execute(update(MetricSeries).where(MetricSeries.id == series).values(sealed=start + len(losses)))


def columns_of(values: Array) -> dict[str, Array]:
    """The same points in columns."""
    place = np.arange(len(values))
    return {"series": place // LENGTH, "step": place % LENGTH, "time": times(len(values)), "value": values}


def parquet(folder: Path, values: Array) -> tuple[str, float, float]:
    """Parquet with zstd, read by DuckDB."""
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / "points.parquet"
    pq.write_table(pa.table(columns_of(values)), file, compression="zstd")
    started = time.perf_counter()
    for number in range(-(-len(values) // LENGTH)):
        duckdb.sql(f"SELECT step, time, value FROM '{file}' WHERE series = {number} ORDER BY step").fetchnumpy()
    return "Parquet zstd, DuckDB", file.stat().st_size, time.perf_counter() - started


def clickhouse(folder: Path, values: Array) -> tuple[str, float, float]:
    """A MergeTree of ClickHouse, in this process."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from chdb import session

    source = folder / "source.parquet"
    pq.write_table(pa.table(columns_of(values)), source)
    store = session.Session(str(folder / "clickhouse"))
    store.query("CREATE DATABASE b ENGINE = Atomic")
    store.query(
        "CREATE TABLE b.p (series Int64, step Int64 CODEC(DoubleDelta, ZSTD), time Int64 CODEC(DoubleDelta, ZSTD), "
        "value Float64 CODEC(ZSTD)) ENGINE = MergeTree ORDER BY (series, step)"
    )
    store.query(f"INSERT INTO b.p SELECT series, step, time, value FROM file('{source}', Parquet)")
    store.query("OPTIMIZE TABLE b.p FINAL")
    of = "SELECT sum(bytes_on_disk) FROM system.parts WHERE database = 'b' AND active"
    taken = float(store.query(of, "CSV").data())
    started = time.perf_counter()
    for number in range(-(-len(values) // LENGTH)):
        store.query(f"SELECT step, time, value FROM b.p WHERE series = {number} ORDER BY step", "Arrow").bytes()
    return "ClickHouse MergeTree (chdb)", taken, time.perf_counter() - started


PEERS: dict[str, tuple[tuple[str, ...], Callable[[Path, Array], tuple[str, float, float]]]] = {
    "Parquet": (("pyarrow", "duckdb"), parquet),
    "ClickHouse": (("pyarrow", "chdb"), clickhouse),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--points", type=int, default=1_000_000, help=f"a multiple of {LENGTH:,}")
    parser.add_argument("--large", type=int, help="so many points as segments, in place of all else")
    parser.add_argument("--databases", default="sqlite,postgresql")
    options = parser.parse_args()
    rows = []
    peers = {}
    for peer, (modules, measure) in PEERS.items():
        if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
            print(f"{peer} is left out: {', '.join(missing)} is not installed.", file=sys.stderr)
        else:
            peers[peer] = measure
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storage-", ignore_cleanup_errors=True)))
        cluster = stack.enter_context(postgresql(folder / "postgresql")) if "postgresql" in options.databases else None
        if options.large:
            urls = [f"sqlite:///{folder / 'tracker.db'}"] if "sqlite" in options.databases else []
            titles = ("in", "points", "GB", "bytes/point", "chart s", "part s", "backup s", "deletion s")
            print(
                table([titles, *(large(url, options.large) for url in urls + ([cluster.create()] if cluster else []))])
            )
            return
        for kind, values in curves(options.points).items():
            found: list[tuple[str, float, float]] = []
            if "sqlite" in options.databases:
                found += ours(f"sqlite:///{folder / 'tracker.db'}", values)
                (folder / "tracker.db").unlink()
            if cluster:
                url = cluster.create()
                found += ours(url, values)
                cluster.drop(url)
            for peer, measure in peers.items():
                own = folder / peer
                own.mkdir()
                found.append(measure(own, values))
                shutil.rmtree(own)
            for what, taken, seconds in found:
                rows.append((kind, what, f"{taken / len(values):.1f}", f"{1e9 * seconds / len(values):,.0f}"))
    print(table([("values", "stored as", "bytes/point", "ms to read a million"), *rows]))


if __name__ == "__main__":
    main()
