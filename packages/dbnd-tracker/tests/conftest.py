from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kit.payloads import Run, Server, Tracker
from kit.scale import THOROUGH
from pydantic import SecretStr

from dbnd_tracker._ingest import metrics as logged_points
from dbnd_tracker._queries.points import series
from dbnd_tracker._server.app import create_app
from dbnd_tracker._server.connections import ConnectionLimits
from dbnd_tracker._server.process import listen, make_server
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.database import Database, open_database
from dbnd_tracker._storage.points import reading, repeats
from dbnd_tracker._storage.upkeep import sealing


@pytest.fixture
def make_run() -> type[Run]:
    return Run


@pytest.fixture
def error() -> dict[str, Any]:
    """Why a task run failed."""
    told = {"msg": "boom", "exc_type": "<class 'ValueError'>", "traceback": "", "user_code_traceback": ""}
    return told | {"help_msg": None, "nested": None, "databand_error": False, "show_exc_info": True}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own in place of the user's, and no configuration from outside."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DBND_HOME", str(tmp_path / "dbnd"))
    monkeypatch.delenv("DBND__CORE__DATABAND_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of eight points, sealed four and read two at a time, so that a few points fill some."""
    for module in (logged_points, reading, repeats, sealing, series):
        monkeypatch.setattr(module, "_BLOCK" if module is repeats else "SEGMENT", 8)
    monkeypatch.setattr(reading, "_TOGETHER", 2)
    monkeypatch.setattr(sealing, "_POINTS", 32)
    monkeypatch.setattr(sealing, "LEAST", 2)


@pytest.fixture(scope="session")
def empty_tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SQLite file of a tracker without runs: to copy it is quicker than to make one."""
    path = tmp_path_factory.mktemp("empty") / "tracker.db"
    open_database(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def template(postgresql: Any) -> str:
    """Name of a PostgreSQL database with the tracker's schema; a copy of it is quicker than a migration."""
    url = postgresql.create()
    open_database(url).close()
    return str(urlsplit(url).path[1:])


# Where the databases differ: how values are kept and found, locks and migrations.
BOTH_DATABASES = {"ingest", "queries", "storage"}


def pytest_configure(config: pytest.Config) -> None:
    alike = "alike: no more than other tests ask of the database; on SQLite alone, and on both in `nox -s thorough`"
    config.addinivalue_line("markers", alike)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "serve_all" in getattr(item, "fixturenames", ()):
            item.add_marker("process")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Use both databases where they differ, and SQLite elsewhere."""
    if "database_url" in metafunc.fixturenames:
        databases = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]
        differ = metafunc.definition.path.relative_to(Path(__file__).parent).parts[0] in BOTH_DATABASES
        differ = differ and (THOROUGH or metafunc.definition.get_closest_marker("alike") is None)
        metafunc.parametrize("database_url", databases if differ else databases[:1], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("empty_tracker"), tmp_path / "tracker.db")
        yield f"sqlite:///{tmp_path / 'tracker.db'}"
        return
    cluster = request.getfixturevalue("postgresql")
    url = cluster.create(request.getfixturevalue("template"))
    yield url
    cluster.drop(url)


@pytest.fixture
def tracker(database_url: str) -> Iterator[Tracker]:
    """A tracker; where databases differ, on each of them."""
    database = open_database(database_url)
    yield Tracker(database)
    database.close()


@pytest.fixture
def sqlite_tracker(tmp_path: Path, empty_tracker: Path) -> Iterator[Tracker]:
    """A tracker on SQLite, for what concerns its file."""
    shutil.copy(empty_tracker, tmp_path / "tracker.db")
    database = open_database(f"sqlite:///{tmp_path / 'tracker.db'}")
    yield Tracker(database)
    database.close()


@pytest.fixture
def open_tracker() -> Iterator[Callable[[str], Tracker]]:
    with ExitStack() as stack:

        def make(url: str) -> Tracker:
            database = open_database(url)
            stack.callback(database.close)
            return Tracker(database)

        yield make


@pytest.fixture(scope="session")
def ending() -> Iterator[list[threading.Thread]]:
    """Servers that have nothing to do any more: no test waits the moment that their end takes."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join()


@contextmanager
def _serving(ending: list[threading.Thread]) -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(
            database: Database,
            limits: ConnectionLimits | None = None,
            token: str | None = None,
            settings: TrackerSettings | None = None,
            **options: Any,
        ) -> Server:
            listening = listen("127.0.0.1", 0)  # which the server closes
            settings = (settings or TrackerSettings()).model_copy(update={"token": token and SecretStr(token)})
            app = create_app(database, settings, **options)
            server = make_server(app, limits=limits)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()

            def stop() -> None:
                server.should_exit = True
                ending.append(thread)
                if server.server_state.tasks:
                    thread.join()

            stack.callback(stop)
            made = Server(f"http://127.0.0.1:{listening.getsockname()[1]}", app=app)
            stack.callback(made.session.close)
            return made

        yield start


@pytest.fixture
def serve(ending: list[threading.Thread]) -> Iterator[Callable[..., Server]]:
    """Starts real servers on free ports, and ends them."""
    with _serving(ending) as start:
        yield start


@pytest.fixture(scope="module")
def serve_all(
    ending: list[threading.Thread], tmp_path_factory: pytest.TempPathFactory, empty_tracker: Path
) -> Iterator[Callable[..., Server]]:
    """Starts servers over one tracker, for tests of a module that leave nothing in it."""
    path = shutil.copy(empty_tracker, tmp_path_factory.mktemp("all") / "tracker.db")
    database = open_database(f"sqlite:///{path}")
    with _serving(ending) as start:
        yield partial(start, database)
    database.close()


@pytest.fixture
def server(tracker: Tracker, serve: Callable[..., Server]) -> Server:
    """A server over the database of ``tracker``."""
    return serve(tracker.database)


@pytest.fixture
def dbnd_command() -> list[str]:
    """The start of a command line that runs ``dbnd`` in a process of its own."""
    return [sys.executable, "-c", "from dbnd._cli.main import main; main()"]
