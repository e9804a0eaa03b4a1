"""The tracker's file is deleted, renamed or replaced while it is in use."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbnd._tracking.transport import Batch
from dbnd_tracker._backup import back_up
from dbnd_tracker._database import Database
from dbnd_tracker._embedded import EmbeddedTransport

SIDES = ("", "-wal", "-shm")


class Sender:
    """What a training does: it sends through the embedded transport, as from one journal."""

    def __init__(self, path: Path, run: Any) -> None:
        self.path, self.run, self.sent = path, run, 0
        self.transport = EmbeddedTransport(f"sqlite:///{path}")
        self.send("init_run", run.init())

    def send(self, call: str, body: Any) -> None:
        self.sent += 1
        self.transport.send(Batch(call, body, f"{os.getpid():032x}", self.sent, self.sent))

    def points(self, count: int) -> None:
        self.send("log_metrics", self.run.root.floats("loss", count))


@pytest.fixture
def sender(tmp_path: Path, make_run: Any) -> Iterator[Sender]:
    made = Sender(tmp_path / "folder" / "t.db", make_run(name="going"))
    made.points(7)
    yield made
    made.transport.close()


def _stored(path: Path) -> dict[str, int]:
    """Points by the name of their run, as another process reads them from the file."""
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        query = (
            "SELECT runs.name, count(*) FROM metrics JOIN metric_series ON metric_series.id = series_id "
            "JOIN attempts ON attempts.id = attempt_id JOIN runs ON runs.id = run_id GROUP BY runs.id"
        )
        found = dict(connection.execute(query).fetchall())
    connection.close()
    return found


def _delete(path: Path) -> None:
    path.unlink()


def _delete_all(path: Path) -> None:
    for ending in SIDES:
        Path(f"{path}{ending}").unlink()


def _remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def _rename(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def _replace_by_empty(path: Path) -> None:
    new = path.with_name("new.db")
    database = Database(str(new))
    database.open()
    database.close()
    new.replace(path)


@pytest.mark.parametrize("swap", [_delete, _delete_all, _remove_folder, _rename, _replace_by_empty])
def test_what_is_acknowledged_is_in_the_file_of_that_name(
    sender: Sender, swap: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    swap(sender.path)
    for _ in range(3):
        sender.points(5)

    assert _stored(sender.path) == {"going": 15}
    sender.transport.close()
    assert _stored(sender.path) == {"going": 15}
    assert capsys.readouterr().err.count("was removed or replaced while it was in use") == 1


def test_a_file_that_was_renamed_has_all_that_was_in_it(sender: Sender) -> None:
    _rename(sender.path)
    sender.points(5)
    assert _stored(sender.path.with_name("moved.db")) == {"going": 7}


def test_a_backup_that_is_put_back_goes_on_where_it_was(sender: Sender) -> None:
    backup = sender.path.with_name("backup.db")
    back_up(sender.path, backup)
    sender.points(5)

    backup.replace(sender.path)
    sender.points(4)

    assert _stored(sender.path) == {"going": 11}


def test_a_log_that_was_removed_loses_nothing(sender: Sender) -> None:
    Path(f"{sender.path}-wal").unlink()
    sender.points(5)
    assert _stored(sender.path) == {"going": 12}


def test_a_file_that_is_swapped_within_a_transaction_is_noticed(sender: Sender) -> None:
    database = Database(str(sender.path))
    database.open()
    calls: list[int] = []

    def work(writer: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            _delete(sender.path)
        assert writer.session.connection().exec_driver_sql("SELECT count(*) FROM runs").scalar() is not None

    database.write(work)
    assert len(calls) == 2
    database.close()


def test_a_place_where_no_file_can_be_made_keeps_the_events(sender: Sender) -> None:
    _remove_folder(sender.path)
    sender.path.parent.write_text("")
    with pytest.raises(Exception, match="cannot be used"):
        sender.points(5)
    sender.path.parent.unlink()
    sender.sent -= 1
    sender.points(5)
    assert _stored(sender.path) == {"going": 5}


_OTHER = """
import sys
from dbnd_tracker._database import Database
database = Database(sys.argv[1])
database.open()
print(flush=True)
for line in sys.stdin:
    database.write(lambda writer: writer.deleted.find({"0"}))
    print(flush=True)
database.close()
"""


def test_two_processes_come_to_use_the_same_new_file(sender: Sender, make_run: Any) -> None:
    """The one that notices later closes the old file without harm to what the first one has open."""
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(sender.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        other.stdout.readline()
        _delete(sender.path)
        sender.points(5)
        other.stdin.write("\n")
        other.stdin.flush()
        other.stdout.readline()
        sender.points(6)
        other.stdin.close()
        assert other.wait() == 0
    sender.points(1)
    assert _stored(sender.path) == {"going": 12}


def test_a_server_shows_the_file_that_is_there(sqlite_tracker: Any, serve: Any) -> None:
    server = serve(sqlite_tracker.database)
    run, _ = sqlite_tracker.started()
    assert server.get(f"/api/v1/runs/{run.uid}").status_code == 200

    _delete_all(sqlite_tracker.database.path)
    assert server.get("/api/v1/runs").json()["data"] == []
    assert server.post("init_run", run.init()).status_code == 200
    assert server.get(f"/api/v1/runs/{run.uid}").status_code == 200


def test_a_relative_path_means_the_folder_in_which_it_was_given(
    tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Sender(Path("t.db"), make_run(name="relative"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    made.points(3)
    made.transport.close()
    assert _stored(tmp_path / "t.db") == {"relative": 3}


def test_a_link_to_a_file_is_followed(tmp_path: Path, make_run: Any) -> None:
    real = tmp_path / "real" / "t.db"
    Database(str(real)).open()
    link = tmp_path / "link.db"
    link.symlink_to(real)
    made = Sender(link, make_run(name="linked"))
    made.points(3)
    assert _stored(real) == {"linked": 3}
    made.transport.close()
