"""The tracker's file is deleted, renamed, replaced or written over while it is in use."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbnd._tracking.contracts import Batch, UnreachableError
from dbnd_tracker._embedded import EmbeddedTransport
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.upkeep.backup import back_up

SIDES = ("", "-wal", "-shm")


class Sender:
    """What a training does: it sends through the embedded transport, as from one journal."""

    def __init__(self, path: Path, run: Any) -> None:
        self.path, self.run, self.sent = path, run, 0
        self.journal = uuid.uuid4().hex
        self.transport = EmbeddedTransport(f"sqlite:///{path}")
        self.send("init_run", run.init())

    def send(self, call: str, body: Any) -> None:
        self.sent += 1
        self.transport.send(Batch(call, body, self.journal, self.sent, self.sent))

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
    assert capsys.readouterr().err.count("was removed, replaced or written over while it was in use") == 1


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


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _copy_with_time(source: Path, target: Path) -> None:
    shutil.copy2(source, target)


def _write_without_truncating(source: Path, target: Path) -> None:
    content = source.read_bytes()
    with target.open("r+b") as file:
        file.write(content)
        file.truncate()


def _checkpoint(path: Path, mode: str) -> None:
    """Let another program move the log of the file into it."""
    if mode:
        connection = sqlite3.connect(path)
        assert connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0] == 0
        connection.close()


def _back_up_by_sqlite(source: Path, target: Path) -> None:
    original, copy = sqlite3.connect(source), sqlite3.connect(target)
    original.backup(copy)
    copy.close()
    original.close()


overwrites = pytest.mark.parametrize(
    "overwrite", [_copy, _copy_with_time, _write_without_truncating], ids=lambda each: each.__name__
)
checkpoints = pytest.mark.parametrize("checkpoint", ["", "PASSIVE", "TRUNCATE"])


@overwrites
@checkpoints
@pytest.mark.parametrize("size", [0, 600])
def test_another_database_that_is_copied_over_the_file_gets_what_comes(
    sender: Sender, make_run: Any, overwrite: Any, checkpoint: str, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Sender(sender.path.with_name("other.db"), make_run(name="other"))
    other.points(size + 3)
    other.transport.close()
    sender.points(20)
    _checkpoint(sender.path, checkpoint)

    overwrite(other.path, sender.path)
    for _ in range(3):
        sender.points(5)

    assert _stored(sender.path) == {"other": size + 3, "going": 15}
    sender.transport.close()
    assert _stored(sender.path) == {"other": size + 3, "going": 15}
    assert capsys.readouterr().err.count("while it was in use") == 1


@overwrites
@checkpoints
@pytest.mark.parametrize("back", [back_up, _back_up_by_sqlite], ids=lambda each: each.__name__)
def test_a_backup_that_is_copied_over_the_file_goes_on_where_it_was(
    sender: Sender, overwrite: Any, checkpoint: str, back: Callable[[Path, Path], None]
) -> None:
    backup = sender.path.with_name("backup.db")
    sender.points(1)
    back(sender.path, backup)
    sender.points(20)
    sender.points(20)
    _checkpoint(sender.path, checkpoint)

    overwrite(backup, sender.path)
    sender.points(4)
    sender.points(2)

    assert _stored(sender.path) == {"going": 14}
    sender.transport.close()
    assert _stored(sender.path) == {"going": 14}


@checkpoints
def test_a_file_that_is_emptied_gets_what_comes(sender: Sender, checkpoint: str) -> None:
    sender.points(20)
    _checkpoint(sender.path, checkpoint)
    sender.path.open("w").close()
    sender.points(4)
    sender.points(2)
    assert _stored(sender.path) == {"going": 6}


@checkpoints
def test_a_file_that_is_no_database_any_more_keeps_the_events(sender: Sender, checkpoint: str) -> None:
    _checkpoint(sender.path, checkpoint)
    text = "no database " * 9_000
    sender.path.write_text(text)
    for _ in range(2):
        with pytest.raises(UnreachableError, match=r"cannot be used: file is not a database"):
            sender.points(5)
        sender.sent -= 1
    assert sender.path.read_text() == text

    sender.path.unlink()
    sender.points(5)
    assert _stored(sender.path) == {"going": 5}


def test_a_copy_that_is_under_way_over_the_file_is_left_alone_until_it_is_whole(sender: Sender, make_run: Any) -> None:
    other = Sender(sender.path.with_name("other.db"), make_run(name="other"))
    other.points(3_000)
    other.transport.close()
    content = other.path.read_bytes()

    with sender.path.open("wb", buffering=0) as file:
        file.write(content[:100_000])
        with pytest.raises(UnreachableError, match="another program is writing over it"):
            sender.points(5)
        file.write(content[100_000:])
    sender.sent -= 1
    sender.points(5)

    assert _stored(sender.path) == {"other": 3_000, "going": 5}


@checkpoints
def test_a_file_that_was_written_over_is_closed_without_harm(sender: Sender, make_run: Any, checkpoint: str) -> None:
    other = Sender(sender.path.with_name("other.db"), make_run(name="other"))
    other.points(3)
    other.transport.close()
    sender.points(20)
    _checkpoint(sender.path, checkpoint)
    _copy(other.path, sender.path)
    sender.transport.close()
    assert _stored(sender.path) == {"other": 3}


def test_a_log_that_a_killed_process_left_is_not_read_with_what_was_copied_over_its_file(
    sender: Sender, make_run: Any
) -> None:
    killed = sender.path.with_name("killed.db")
    for ending in SIDES:
        shutil.copyfile(f"{sender.path}{ending}", f"{killed}{ending}")
    other = Sender(sender.path.with_name("other.db"), make_run(name="other"))
    other.points(3)
    other.transport.close()
    _copy(other.path, killed)

    later = Sender(killed, make_run(name="later"))
    later.points(2)
    later.transport.close()
    assert _stored(killed) == {"other": 3, "later": 2}


def test_what_other_programs_do_through_sqlite_is_no_overwriting(
    sender: Sender, make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    idle = Sender(sender.path, make_run(name="idle"))
    idle.points(1)
    plain = sqlite3.connect(sender.path, isolation_level=None)
    reading = sqlite3.connect(sender.path, isolation_level=None)
    doings = [
        "PRAGMA wal_checkpoint(PASSIVE)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "VACUUM",
        "CREATE TABLE theirs (a)",
        "INSERT INTO theirs SELECT randomblob(100) FROM metrics, metrics LIMIT 90000",
        "DELETE FROM theirs",
        "DROP TABLE theirs",
    ]
    sent = 7
    for doing in doings * 2:
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM runs").fetchall()
        sender.points(3_000)
        plain.execute("PRAGMA wal_checkpoint(PASSIVE)")  # up to what is read
        sender.points(40)
        reading.execute("ROLLBACK")
        plain.execute(doing).fetchall()
        sent += 3_040
    plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    idle.points(1)
    plain.close()
    reading.close()

    for each in (idle, sender):
        each.points(2)
    idle.transport.close()
    assert _stored(sender.path) == {"going": sent + 2, "idle": 4}
    assert "while it was in use" not in capsys.readouterr().err


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
from dbnd_tracker._storage.database import Database
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
