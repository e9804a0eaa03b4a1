"""A file that its writer leaves to a relay: what others may read of it, and when it is theirs."""

from __future__ import annotations

import os
import socket

import pytest

from dbnd._journal import heartbeat, journal
from dbnd._journal.file import JournalFile
from dbnd._journal.followed import FollowedFile
from dbnd._journal.journal import Journal, JournalFullError
from dbnd._journal.lease import Lease, holder_of
from dbnd._journal.leftovers import look_at, tidy

ALL = 1 << 20


@pytest.fixture
def written(tmp_path):
    made = Journal(tmp_path, "u", relay=True)
    for n in range(3):
        made.append("call", {"n": n})
    yield made
    made.close()


@pytest.fixture
def elsewhere(monkeypatch):
    """From here on this process is on another machine."""
    monkeypatch.setattr(socket, "gethostname", lambda: "another")


def gained(*_):
    """A lock that does not reach from one machine to another."""
    return True


def bodies(file):
    return [record.body for record in file.read(ALL)]


def age(path, seconds=heartbeat.STALE + 1):
    touched = path.stat().st_mtime - seconds
    os.utime(path, (touched, touched))


def test_what_is_whole_is_delivered_while_the_writer_goes_on(written):
    file = FollowedFile.follow(written.path)
    *_, last = file.read(ALL)
    assert file.unsent == 3
    written.append("call", {"n": 3})
    assert len(file.read(ALL)) == 3, "what has come since is for the next look"
    file.acknowledge(last.sequence, last.end)
    file.close()
    assert (written.unsent, written.settled) == (1, 3)
    again = FollowedFile.follow(written.path)
    assert bodies(again) == [{"n": 3}]
    again.close()
    assert written.path.exists()


def test_the_torn_line_of_a_living_writer_is_not_yet_there(written):
    before = written.path.read_bytes()
    with written.path.open("ab") as file:
        file.write(b"1234abcd [")
    file = FollowedFile.follow(written.path)
    assert bodies(file) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert file.unsent == 3
    file.close()
    assert written.path.read_bytes() == before + b"1234abcd ["
    os.truncate(written.path, len(before))


def test_what_is_behind_a_hole_waits_until_that_is_filled(written):
    """A network file system may show a later page before an earlier one."""
    whole = written.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    hole = b"".join([*lines[:2], b"\0" * len(lines[2]), *lines[3:]])
    written.path.write_bytes(hole)
    file = FollowedFile.follow(written.path)
    (first,) = file.read(ALL)
    file.acknowledge(first.sequence, first.end)
    assert file.unsent == 0
    file.close()
    written.path.write_bytes(whole)
    file = FollowedFile.follow(written.path)
    assert bodies(file) == [{"n": 1}, {"n": 2}]
    file.close()


def test_less_than_was_delivered_may_be_seen_for_a_while(written):
    file = FollowedFile.follow(written.path)
    *_, last = file.read(ALL)
    file.acknowledge(last.sequence, last.end)
    file.close()
    whole = written.path.read_bytes()
    os.truncate(written.path, len(whole) - 10)
    file = FollowedFile.follow(written.path)
    assert (bodies(file), file.unsent) == ([], 0)
    file.close()
    written.path.write_bytes(whole)


def test_a_living_writer_of_another_machine_is_told_by_its_heartbeat(written, elsewhere, monkeypatch):
    monkeypatch.setattr("dbnd._journal.ownership.lock", gained)
    path = written.path
    assert look_at(path).state == "relayed"
    assert JournalFile.adopt(path) is None
    age(path, heartbeat.STALE - 10)
    assert look_at(path).state == "relayed"
    age(path)
    assert look_at(path).state == "waiting"
    file = JournalFile.adopt(path)
    assert bodies(file) == [{"n": 0}, {"n": 1}, {"n": 2}]
    file.abandon()


def test_a_writer_that_has_ended_is_gone_at_once(written, elsewhere):
    written.close()
    assert look_at(written._left[0][0]).state == "waiting"


def test_a_lock_that_has_outlived_its_machine_keeps_nothing_from_being_delivered(written, elsewhere):
    age(written.path)
    assert JournalFile.adopt(written.path) is None
    assert look_at(written.path).state == "waiting"


def test_a_delivered_file_of_a_living_writer_stays(written, elsewhere, monkeypatch):
    monkeypatch.setattr("dbnd._journal.ownership.lock", gained)
    file = FollowedFile.follow(written.path)
    *_, last = file.read(ALL)
    file.acknowledge(last.sequence, last.end)
    file.close()
    tidy(written.directory)
    assert written.path.exists()
    age(written.path)
    tidy(written.directory)
    assert not written.path.exists()


def test_a_writer_whose_file_was_removed_writes_it_anew(written):
    (file,) = written._files
    path, before = written.path, written.path.read_bytes()
    path.unlink()
    file.touch()
    assert path.read_bytes() == before


def test_the_cap_counts_what_the_relay_has_not_removed(tmp_path):
    made = Journal(tmp_path, "u", max_bytes=4_000, relay=True)
    with pytest.raises(JournalFullError):
        for _ in range(100):
            made.append("call", {"text": "x" * 100})
    files = sorted(tmp_path.glob("*.journal"))
    assert 3_000 < sum(path.stat().st_size for path in files) <= 4_000
    accepted = made.accepted
    assert made.unsent == accepted
    for path in files:
        if path != made.path:
            file = JournalFile.adopt(path)
            file.acknowledge(file.last, file.size)
            file.close()
    made.append("call", {"text": "x" * 100})
    assert made.accepted == accepted + 1
    assert 0 < made.unsent < accepted
    made.close()
    assert journal.JOURNAL in {path.suffix for path in tmp_path.iterdir()}


def test_the_lease_is_held_by_one(tmp_path, monkeypatch):
    first = Lease.take(tmp_path)
    assert Lease.take(tmp_path) is None
    assert holder_of(tmp_path) == f"process {os.getpid()} of {socket.gethostname()}"
    # On another machine, which the lock does not reach.
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    monkeypatch.setattr("dbnd._journal.ownership.lock", gained)
    assert Lease.take(tmp_path) is None
    age(tmp_path / "deliverer.lease")
    second = Lease.take(tmp_path)
    assert second.is_held
    first.touch()
    assert not first.is_held
    first.release()
    assert second.is_held
    second.release()
    third = Lease.take(tmp_path)
    assert third.is_held
    third.release()
