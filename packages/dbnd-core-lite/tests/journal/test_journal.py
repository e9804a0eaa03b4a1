from __future__ import annotations

import signal
import subprocess
import sys
import threading
import uuid
from unittest import mock

import pytest

from dbnd._journal import journal as journal_module
from dbnd._journal.file import JournalFile
from dbnd._journal.journal import Journal, JournalClosedError, JournalFullError

EVERYTHING = 1 << 24


@pytest.fixture
def journal(folder):
    made = Journal(folder, "http://h")
    yield made
    made.close()


def read(journal):
    """The bodies of all events that are not delivered, over all files."""
    return [record.body for file in journal._files for record in file.read(EVERYTHING)]


def deliver(journal, count):
    """Acknowledge the next ``count`` events and return their bodies."""
    done = []
    while len(done) < count and (file := journal.front()):
        records = file.read(EVERYTHING)[: count - len(done)]
        file.acknowledge(records[-1].sequence, records[-1].end)
        done += [record.body for record in records]
    journal.front()
    return done


def test_threads_append_whole_lines(journal):
    def log(thread):
        for number in range(200):
            journal.append("call", [thread, number])

    threads = [threading.Thread(target=log, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read(journal)
    assert journal.accepted == journal.unsent == len(found) == 1600
    for thread in range(8):
        assert [number for t, number in found if t == thread] == list(range(200))


def test_journals_are_told_apart_where_a_test_suite_has_replaced_uuid4(folder):
    with mock.patch("uuid.uuid4", return_value=uuid.UUID(int=1)):
        journals = [Journal(folder, "http://h") for _ in range(2)]
    for number, journal in enumerate(journals):
        journal.append("call", number)
    assert journals[0].path != journals[1].path
    for journal in journals:
        journal.close()
    assert len(list(folder.glob("*.journal"))) == 2


def test_accepted_means_kept(folder):
    """What had been appended when the process was killed is in the file."""
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from dbnd._journal.journal import Journal\n"
        f"journal = Journal(Path({str(folder)!r}), 'u')\n"
        "for n in range(100): journal.append('call', n)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    (path,) = folder.glob("*.journal")
    file = JournalFile.adopt(path)
    assert [record.body for record in file.read(EVERYTHING)] == list(range(100))
    file.close()


def test_a_journal_goes_on_in_further_files_and_removes_delivered_ones(folder, monkeypatch):
    monkeypatch.setattr(journal_module, "_FILE_SIZE", 1_000)
    journal = Journal(folder, "u")
    for number in range(200):
        journal.append("call", number)
    paths = list(folder.glob("*.journal"))
    assert len(paths) > 3
    assert all(path.stat().st_size <= 1_000 for path in paths)
    headers = [file.header for file in journal._files]
    assert [header.part for header in headers] == list(range(len(headers)))
    assert {header.chain for header in headers[1:]} == {headers[0].id}
    assert sorted(headers, key=lambda header: header.order) == headers
    assert read(journal) == list(range(200))
    assert deliver(journal, 150) == list(range(150))
    assert (journal.accepted, journal.settled, journal.unsent) == (200, 150, 50)
    assert len(list(folder.glob("*.journal"))) < len(paths)
    assert deliver(journal, 50) == list(range(150, 200))
    journal.close()
    assert list(folder.iterdir()) == []


def test_a_journal_is_never_larger_than_its_cap_and_has_room_again_after_delivery(folder):
    journal = Journal(folder, "u", max_bytes=10_000)

    def fill():
        kept = []
        for number in range(1_000):
            try:
                journal.append("call", number)
            except JournalFullError as error:
                assert "core.journal_max_bytes = 10000" in str(error)  # noqa: PT017  it is raised many times
            else:
                kept.append(number)
            assert sum(path.stat().st_size for path in folder.glob("*.journal")) <= 10_000
        return kept

    first = fill()
    assert 200 < len(first) < 1_000
    assert first == list(range(len(first)))
    assert deliver(journal, len(first)) == first
    second = fill()
    assert len(second) > 200
    assert deliver(journal, len(second)) == second
    journal.close()


def test_an_event_larger_than_a_file_is_kept(folder):
    journal = Journal(folder, "u", max_bytes=10_000)
    journal.append("call", "x" * 5_000)
    journal.append("call", 1)
    assert [len(str(body)) for body in read(journal)] == [5_000, 1]
    with pytest.raises(JournalFullError):
        journal.append("call", "x" * 10_000)
    journal.close()


def test_a_closed_journal_takes_nothing(folder):
    journal = Journal(folder, "u")
    journal.append("call", 1)
    journal.close()
    journal.close()
    with pytest.raises(JournalClosedError):
        journal.append("call", 2)
    assert len(list(folder.glob("*.journal"))) == 1


def test_the_folder_is_the_owners_alone(home):
    made = Journal(home / "dbnd/journal", "u")
    assert [folder.stat().st_mode & 0o777 for folder in (home / "dbnd", made.path.parent)] == [0o700, 0o700]
    made.close()
