from __future__ import annotations

import subprocess
import sys
import threading
import zlib

import pytest

from dbnd._tracking.journal import Journal, JournalClosedError


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal", "http://h")
    yield made
    made.close()


def test_events_are_read_back_in_order_with_their_numbers(journal):
    for number in range(5):
        assert journal.append("call", {"n": number}) == number + 1
    records = journal.read(100, 1 << 20)
    assert [(r.sequence, r.call, r.body["n"]) for r in records] == [(n + 1, "call", n) for n in range(5)]


def test_acknowledged_events_are_not_read_again(journal):
    for number in range(5):
        journal.append("call", {"n": number})
    first = journal.read(2, 1 << 20)
    journal.acknowledge(first[-1])
    assert journal.unsent == 3
    assert [r.sequence for r in journal.read(100, 1 << 20)] == [3, 4, 5]


def test_an_event_larger_than_the_limit_is_read_whole(journal):
    journal.append("call", {"text": "x" * 10_000})
    journal.append("call", {"text": "y"})
    (record,) = journal.read(100, 1_000)[:1]
    assert len(record.body["text"]) == 10_000


def test_lines_carry_the_checksum_of_their_json(journal):
    journal.append("call", {"text": "ünïcode\n\u2028"})
    for line in journal.path.read_bytes().splitlines():
        checksum, _, data = line.partition(b" ")
        assert int(checksum, 16) == zlib.crc32(data)


def test_close_removes_what_is_delivered_and_keeps_what_is_not(tmp_path):
    folder = tmp_path / "journal"
    delivered, unsent = Journal(folder, "u"), Journal(folder, "u")
    for journal in (delivered, unsent):
        journal.append("call", {})
    delivered.acknowledge(delivered.read(10, 1000)[-1])
    delivered.close()
    unsent.close()
    unsent.close()
    assert sorted(p.name for p in folder.iterdir()) == [f"{unsent.id}.ack", f"{unsent.id}.journal"]
    with pytest.raises(JournalClosedError):
        unsent.append("call", {})


def test_threads_append_whole_lines(journal):
    def log(thread):
        for number in range(200):
            journal.append("call", {"thread": thread, "n": number})

    threads = [threading.Thread(target=log, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = journal.read(10_000, 1 << 24)
    assert [r.sequence for r in records] == list(range(1, 1601))
    for thread in range(8):
        assert [r.body["n"] for r in records if r.body["thread"] == thread] == list(range(200))


def test_accepted_means_kept(tmp_path):
    """What had been appended when the process was killed is in the file."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from dbnd._tracking.journal import Journal\n"
        f"j = Journal(Path({str(tmp_path)!r}), 'u')\n"
        "for n in range(100): j.append('call', {'n': n})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    (path,) = tmp_path.glob("*.journal")
    assert len(path.read_bytes().splitlines()) == 101


def test_a_full_disk_leaves_no_half_line(tmp_path):
    """A file size limit stands in for the disk."""
    code = (
        "import resource, signal\n"
        "from pathlib import Path\n"
        "from dbnd._tracking.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"j = Journal(Path({str(tmp_path)!r}), 'u')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "kept = 0\n"
        "for n in range(100):\n"
        "    try: j.append('call', {'n': n, 'pad': 'x' * 40})\n"
        "    except OSError: pass\n"
        "    else: kept += 1\n"
        "print(kept, len(j.read(1000, 1 << 20)), j.unsent)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    kept, read, unsent = map(int, done.stdout.split())
    assert 0 < kept < 100
    assert kept == read == unsent
    (path,) = tmp_path.glob("*.journal")
    assert path.read_bytes().endswith(b"\n")


def test_files_are_the_owners_alone(journal):
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700
