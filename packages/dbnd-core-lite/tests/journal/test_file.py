from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import zlib

import pytest

from dbnd._journal import ownership, records
from dbnd._journal.file import JournalFile, unsent_of
from dbnd._journal.header import Header, JournalFormatError, read_header

EVERYTHING = 1 << 20


@pytest.fixture
def path(folder):
    return folder / "x.journal"


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks, as some network ones are."""

    def refuse(fd, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def fill(file, count, start=0):
    for number in range(start, start + count):
        file.append(records.frame(("call", number)))


def bodies(file):
    return [record.body for record in file.read(EVERYTHING)]


def left_by_a_killed_process(path, code=""):
    """A file with 10 events, whose process was killed."""
    script = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from dbnd._journal import records\n"
        "from dbnd._journal.header import Header\nfrom dbnd._journal.file import JournalFile\n"
        f"file = JournalFile.create(Path({str(path)!r}), Header('u'))\n"
        "for n in range(10): file.append(records.frame(('call', n)))\n"
        f"{code}\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_events_are_read_back_in_order_with_their_numbers(path):
    file = JournalFile.create(path, Header("u"))
    fill(file, 5)
    assert [(r.sequence, r.call, r.body) for r in file.read(EVERYTHING)] == [(n + 1, "call", n) for n in range(5)]
    assert (file.last, file.unsent, file.size) == (5, 5, path.stat().st_size)
    file.close()


def test_acknowledged_events_are_not_read_again(path):
    file = JournalFile.create(path, Header("u"))
    fill(file, 5)
    second = file.read(EVERYTHING)[1]
    file.acknowledge(second.sequence, second.end)
    assert file.unsent == 3
    assert bodies(file) == [2, 3, 4]
    file.close()


def test_an_event_larger_than_the_limit_is_read_whole(path):
    file = JournalFile.create(path, Header("u"))
    file.append(records.frame(("call", "x" * 10_000)))
    fill(file, 1)
    assert [r.body for r in file.read(1_000)] == ["x" * 10_000]
    file.close()


def test_close_removes_what_is_delivered_and_keeps_what_is_not(folder):
    files = [JournalFile.create(folder / f"{n}.journal", Header("u")) for n in range(3)]
    for file in files[:2]:
        fill(file, 2)
        for record in file.read(EVERYTHING)[: 2 if file is files[0] else 1]:
            file.acknowledge(record.sequence, record.end)
    for file in files:
        file.close()
    assert sorted(p.name for p in folder.iterdir()) == ["1.journal", "1.journal.ack"]


def test_a_file_is_its_owners_alone(path):
    file = JournalFile.create(path, Header("u"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert ownership.is_owned(path)
    assert JournalFile.adopt(path) is None
    fill(file, 1)
    file.close()
    assert not ownership.is_owned(path)
    adopted = JournalFile.adopt(path)
    assert bodies(adopted) == [0]
    adopted.close()


@pytest.mark.parametrize("locks", [True, False])
def test_what_a_killed_process_has_left_is_adopted_where_it_stopped(path, locks, request):
    if not locks:
        request.getfixturevalue("no_locks")
    left_by_a_killed_process(path, "r = file.read(1000)[3]; file.acknowledge(r.sequence, r.end)")
    assert unsent_of(path) == 6
    adopted = JournalFile.adopt(path)
    assert (adopted.header.url, adopted.last, adopted.acknowledged) == ("u", 10, 4)
    assert bodies(adopted) == [4, 5, 6, 7, 8, 9]
    fill(adopted, 1, start=10)
    assert bodies(adopted)[-1] == 10
    assert JournalFile.adopt(path) is None
    last = adopted.read(EVERYTHING)[-1]
    adopted.acknowledge(last.sequence, last.end)
    adopted.close()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("torn", [b"7", b"00000000 [", b"\0" * 500])
def test_a_torn_last_record_is_cut_off(path, torn):
    left_by_a_killed_process(path)
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(torn)
    adopted = JournalFile.adopt(path)
    assert bodies(adopted) == list(range(10))
    assert path.stat().st_size == whole
    adopted.close()


@pytest.mark.parametrize("number", [1, 4, 10])
def test_a_damaged_record_is_named_and_blocks_nothing(path, number):
    left_by_a_killed_process(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'["call",%d]' % (number - 1), b'["call"\r%d]' % (number - 1)))
    adopted = JournalFile.adopt(path)
    found = adopted.read(EVERYTHING)
    assert [r.sequence for r in found] == list(range(1, 11))
    assert [(r.sequence, r.points) for r in found if r.is_damaged] == [(number, 1)]
    assert [r.body for r in found if not r.is_damaged] == [n for n in range(10) if n != number - 1]
    adopted.close()


def test_a_last_record_whose_line_break_is_damaged_is_whole(path):
    left_by_a_killed_process(path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    adopted = JournalFile.adopt(path)
    assert bodies(adopted) == list(range(10))
    fill(adopted, 1, start=10)
    assert bodies(adopted)[-1] == 10
    adopted.close()


def settle(file):
    """Acknowledge all there is, and return the numbers of good and of lost events."""
    good, lost = [], 0
    while file.unsent:
        for record in file.read(EVERYTHING):
            if record.is_damaged:
                lost += record.points
            else:
                good.append(record.body)
            file.acknowledge(record.sequence, record.end)
    return good, lost


@pytest.mark.parametrize("place", range(0, 170, 7))
@pytest.mark.parametrize("byte", [b"\n", b"?"])
def test_any_byte_of_a_file_in_use_may_change(path, place, byte):
    file = JournalFile.create(path, Header("u"))
    fill(file, 10)
    with path.open("r+b") as other:
        other.seek(file.header_size + place)
        before = other.read(1)
        other.seek(file.header_size + place)
        other.write(byte)
    good, lost = settle(file)
    assert set(good) <= set(range(10))
    assert len(good) >= 8
    # Without the line break between them, two records are still whole.
    assert (len(good), lost) == (10, 0) if before in {byte, b"\n"} else lost >= 10 - len(good) > 0
    fill(file, 2, start=10)
    assert settle(file) == ([10, 11], 0)
    file.close()
    assert not path.exists()


@pytest.mark.parametrize("delivered", [0, 3])
@pytest.mark.parametrize(("start", "size"), [(0, 20), (5, 20), (30, 60), (110, 20), (0, 140), (130, 10)])
def test_bytes_may_be_cut_out_of_a_file_in_use(path, delivered, start, size):
    file = JournalFile.create(path, Header("u"))
    fill(file, 10)
    for record in file.read(EVERYTHING)[:delivered]:
        file.acknowledge(record.sequence, record.end)
    data = path.read_bytes()
    start += file.header_size + 20 * delivered
    path.write_bytes(data[:start] + data[start + size :])
    good, lost = settle(file)
    assert len(good) + lost >= 10 - delivered > len(good)
    fill(file, 2, start=10)
    assert settle(file) == ([10, 11], 0)
    file.close()


def test_what_somebody_else_has_written_into_a_file_in_use_hides_no_event(path):
    file = JournalFile.create(path, Header("u"))
    fill(file, 2)
    with path.open("ab") as other:
        other.write(b"garbage\nmore")
    fill(file, 2, start=2)
    good, _ = settle(file)
    assert good == [0, 1, 3]
    fill(file, 1, start=4)
    assert settle(file) == ([4], 0)
    file.close()


def test_a_file_of_which_all_is_damaged_ends(path):
    file = JournalFile.create(path, Header("u"))
    file.append(b"nonsense\n")
    assert settle(file) == ([], 1)
    file.close()
    assert not path.exists()


def test_a_changed_position_is_not_believed(path):
    left_by_a_killed_process(path, "r = file.read(1000)[3]; file.acknowledge(r.sequence, r.end)")
    ack = path.with_name("x.journal.ack")
    ack.write_bytes(ack.read_bytes().replace(b"04 ", b"05 ", 1))
    adopted = JournalFile.adopt(path)
    assert bodies(adopted) == list(range(10))
    adopted.close()


def header(**changes):
    return records.frame({"journal": 1, "id": "x", "url": "u", **changes})


@pytest.mark.parametrize("change", [{"created": "x"}, {"url": 5}, {"part": None}, {"id": "../x"}, {"chain": []}])
def test_a_header_with_wrong_values_is_no_header(path, change):
    path.write_bytes(header(**change))
    with pytest.raises(JournalFormatError, match="no dbnd has written"):
        read_header(path)


@pytest.mark.parametrize("position", [b"", b"x y", b"%020d %020d" % (99, 10), b"%020d %020d" % (3, 1 << 40)])
def test_a_position_that_cannot_be_is_not_believed(path, position):
    left_by_a_killed_process(path)
    path.with_name("x.journal.ack").write_bytes(b"%b %08x\n" % (position, zlib.crc32(position)))
    adopted = JournalFile.adopt(path)
    assert bodies(adopted) == list(range(10))
    adopted.close()


def test_a_newer_format_is_one_clear_sentence(path):
    path.write_bytes(records.frame({"journal": 99, "id": "x", "url": "u"}))
    for look in (JournalFile.adopt, read_header):
        with pytest.raises(JournalFormatError, match=r"has format 99, and this dbnd reads formats up to 1: update"):
            look(path)
    assert not ownership.is_owned(path)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"nonsense\n", records.frame({"a": 1}), records.frame([1])])
def test_what_is_no_journal_is_said_to_be_none(path, content):
    path.write_bytes(content)
    with pytest.raises(JournalFormatError, match=r"x\.journal is no journal"):
        JournalFile.adopt(path)


def test_a_full_disk_leaves_no_half_line(path):
    """A file size limit stands in for the disk."""
    code = (
        "import resource, signal\n"
        "from pathlib import Path\n"
        "from dbnd._journal import records\n"
        "from dbnd._journal.header import Header\nfrom dbnd._journal.file import JournalFile\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"file = JournalFile.create(Path({str(path)!r}), Header('u'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "kept = 0\n"
        "for n in range(100):\n"
        "    try: file.append(records.frame(('call', {'n': n, 'pad': 'x' * 40})))\n"
        "    except OSError: pass\n"
        "    else: kept += 1\n"
        "print(kept, len(file.read(1 << 20)), file.unsent)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    kept, read, unsent = map(int, done.stdout.split())
    assert 0 < kept < 100
    assert kept == read == unsent
    assert path.read_bytes().endswith(b"\n")


class _InterruptionError(Exception):
    pass


@pytest.mark.parametrize("before", [True, False])
def test_an_append_that_a_signal_handler_interrupts_leaves_the_numbers_right(path, monkeypatch, before):
    """The handler raises just before, or just after, the line is written."""
    file = JournalFile.create(path, Header("u"))
    fill(file, 2)
    write = os.write

    def interrupted(fd, data):
        monkeypatch.setattr(os, "write", write)
        if not before:
            write(fd, data)
        raise _InterruptionError

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(_InterruptionError):
        fill(file, 1, start=2)
    fill(file, 2, start=3)
    assert bodies(file) == ([0, 1, 3, 4] if before else [0, 1, 2, 3, 4])
    assert file.last == len(bodies(file))
    file.close()


@pytest.mark.parametrize("before", [True, False])
def test_a_signal_handler_may_append_in_the_middle_of_an_append(path, monkeypatch, before):
    file = JournalFile.create(path, Header("u"))
    fill(file, 2)
    write = os.write

    def interrupted(fd, data):
        monkeypatch.setattr(os, "write", write)
        if before:
            fill(file, 1, start=100)
            return write(fd, data)
        written = write(fd, data)
        fill(file, 1, start=100)
        return written

    monkeypatch.setattr(os, "write", interrupted)
    fill(file, 1, start=2)
    fill(file, 1, start=3)
    assert bodies(file) == ([0, 1, 100, 2, 3] if before else [0, 1, 2, 100, 3])
    assert (file.last, file.size) == (5, path.stat().st_size)
    file.close()


def test_no_journal_gets_the_number_of_a_standard_stream(path):
    script = (
        "import os, sys; from pathlib import Path; from dbnd._journal import records\n"
        "from dbnd._journal.header import Header\nfrom dbnd._journal.file import JournalFile\n"
        "for fd in range(3): os.close(fd)\n"
        "file = JournalFile.create(Path(sys.argv[1]), Header('http://x'))\n"
        "file.append(records.frame(('log_metrics', [])))\n"
        "(record,) = file.read(1000)\n"
        "file.acknowledge(0, file.header_size)\n"
        "for fd in range(3):\n"
        "    try: os.write(fd, b'said by C code')\n"
        "    except OSError: continue\n"
        "    os._exit(fd + 10)\n"
        "os._exit(len(file.read(1000)))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 1


def test_fsync_is_called_for_each_event_when_asked_for(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    file = JournalFile.create(path, Header("u"), fsync=True)
    before = len(synced)
    fill(file, 3)
    assert len(synced) == before + 3
    file.close()


def test_without_locks_the_owner_is_known_by_its_name(path, no_locks):
    file = JournalFile.create(path, Header("u"))
    fill(file, 1)
    assert ownership.is_owned(path)
    assert JournalFile.adopt(path) is None
    file.close()
    assert not ownership.is_owned(path)
    assert bodies(JournalFile.adopt(path)) == [0]


def test_without_locks_a_process_of_another_host_is_taken_to_live(path, no_locks):
    left_by_a_killed_process(path)
    path.with_name("x.journal.owner").symlink_to("another-host 1 1")
    assert JournalFile.adopt(path) is None
