from __future__ import annotations

import zlib

import pytest
from kit.letters import letters

from dbnd._journal import records
from dbnd._journal.file import JournalFile, unsent_of
from dbnd._journal.header import Header, read_header
from dbnd._tracking.contracts import BusyError, PartlyAppliedError, RefusedError, TooLargeError, UnreachableError
from dbnd._tracking.delivery import MAX_POINTS, Delivery


@pytest.fixture
def start(tmp_path, scripted):
    made = []

    def start(*script):
        file = JournalFile.create(tmp_path / "x.journal", Header("u", id="1" * 32))
        transport, buried = scripted(*script), []
        delivery = Delivery(file, transport, lambda *what: buried.append(what))
        made.append(file)
        return file, delivery, transport, buried

    yield start
    for file in made:
        file.close()


def metrics(*values):
    return [["attempt", "user", [part for value in values for part in ("n", value, 0, None, None)]]]


def numbers(batch):
    return [number for group in batch.body for number in group[2][1::5]] if batch.call == "log_metrics" else []


def log(file, *values):
    for value in values:
        file.append(records.frame(("log_metrics", metrics(value)) if isinstance(value, int) else (value, {})))


def deliver(delivery):
    while delivery.step():
        pass


def sent(transport):
    return [(b.call, b.first, b.last) for b in transport.batches]


def test_consecutive_metrics_travel_in_one_batch_and_order_is_kept(start):
    file, delivery, transport, _ = start()
    log(file, "init_run", 1, 2, 3, "set_run_state", "set_run_state", 4)
    deliver(delivery)
    assert sent(transport) == [
        ("init_run", 1, 1),
        ("log_metrics", 2, 4),
        ("set_run_state", 5, 5),
        ("set_run_state", 6, 6),
        ("log_metrics", 7, 7),
    ]
    assert numbers(transport.batches[1]) == [1, 2, 3]
    assert {b.journal for b in transport.batches} == {"1" * 32}
    assert file.unsent == 0


def test_groups_of_one_attempt_and_source_that_follow_each_other_become_one(start):
    file, delivery, transport, _ = start()
    for attempt, source, value in (("a", "user", 1), ("a", "user", 2), ("a", "mlflow", 3), ("b", "mlflow", 4)):
        file.append(records.frame(("log_metrics", [[attempt, source, ["n", value, 0, None, None]]])))
    deliver(delivery)
    (batch,) = transport.batches
    assert batch.body == [
        ["a", "user", ["n", 1, 0, None, None, "n", 2, 0, None, None]],
        ["a", "mlflow", ["n", 3, 0, None, None]],
        ["b", "mlflow", ["n", 4, 0, None, None]],
    ]


def test_batches_are_bounded_in_points_but_an_event_is_never_split(start):
    file, delivery, transport, _ = start()
    for _ in range(5):
        file.append(records.frame(("log_metrics", metrics(*range(MAX_POINTS // 2 - 1)))))
    file.append(records.frame(("log_metrics", metrics(*range(MAX_POINTS + 7)))))
    deliver(delivery)
    counts = [len(numbers(batch)) for batch in transport.batches]
    assert sum(counts) == 5 * (MAX_POINTS // 2 - 1) + MAX_POINTS + 7
    assert max(counts) == counts[-1] == MAX_POINTS + 7
    assert max(counts[:-1]) <= MAX_POINTS


def test_a_batch_that_failed_is_sent_again_as_it_was(start):
    file, delivery, transport, _ = start(UnreachableError("down"))
    log(file, 1)
    with pytest.raises(UnreachableError):
        delivery.step()
    log(file, 2, 3)  # which must not slip into the batch that is sent again
    deliver(delivery)
    assert [(b.first, b.last) for b in transport.attempts] == [(1, 1), (1, 1), (2, 3)]


def test_what_is_refused_for_good_is_kept_aside_and_blocks_nothing(start, tmp_path):
    def refuse_bad(batch):
        if 66 in numbers(batch):
            raise RefusedError("it answered 400: n is wrong")

    file, delivery, transport, buried = start(*[refuse_bad] * 50)
    log(file, 1, 2, 66, 3, 4, "set_run_state")
    deliver(delivery)
    assert [number for b in transport.batches for number in numbers(b)] == [1, 2, 3, 4]
    assert transport.batches[-1].call == "set_run_state"
    ((record, reason, path),) = buried
    assert (record.sequence, reason, path) == (3, "it answered 400: n is wrong", tmp_path / f"{'1' * 32}.dead")
    assert list(letters(path)) == [("log_metrics", metrics(66), "it answered 400: n is wrong", 3)]


def test_an_event_is_buried_once_even_if_the_process_was_killed_before_it_went_on(start, monkeypatch):
    file, delivery, _, buried = start(RefusedError("bad"), RefusedError("bad"), RefusedError("bad"))
    log(file, "a", "b")
    with monkeypatch.context() as killed:
        killed.setattr(file, "acknowledge", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            delivery.step()
    deliver(delivery)
    assert len(buried) == 2
    assert [call for call, *_ in letters(buried[0][2])] == ["a", "b"]


@pytest.mark.parametrize("check", [RefusedError("it answered 404"), UnreachableError("gone"), ValueError("mine")])
def test_what_refuses_every_call_has_refused_no_event(start, check, monkeypatch):
    file, delivery, transport, buried = start(RefusedError("it answered 404"), RefusedError("it answered 404"))
    log(file, 1, "set_run_state")
    with monkeypatch.context() as other:

        def fail():
            raise check

        other.setattr(transport, "check", fail)
        with pytest.raises(UnreachableError):
            delivery.step()
    assert (buried, file.unsent) == ([], 2)
    deliver(delivery)
    assert [record.sequence for record, *_ in buried] == [1]
    assert sent(transport) == [("set_run_state", 2, 2)]


def test_dead_letters_are_a_file_that_can_be_delivered(start, scripted):
    file, delivery, _, buried = start(RefusedError("bad"), RefusedError("bad"))
    log(file, 66, "set_run_state")
    deliver(delivery)
    dead = JournalFile.adopt(buried[0][2])
    transport = scripted()
    deliver(Delivery(dead, transport, lambda *_: None))
    assert sent(transport) == [("log_metrics", 1, 1), ("set_run_state", 2, 2)]
    assert transport.batches[0].journal == dead.header.id != file.header.id
    dead.close()
    assert not buried[0][2].exists()


def test_dead_letters_that_somebody_delivers_are_left_to_him(start):
    file, delivery, _, buried = start(RefusedError("bad"), RefusedError("bad"))
    log(file, "a")
    deliver(delivery)
    taken = JournalFile.adopt(buried[0][2])
    log(file, "b")
    deliver(delivery)
    assert buried[1][2] != buried[0][2]
    assert [call for call, *_ in letters(buried[1][2])] == ["b"]
    taken.close()


def test_a_batch_that_is_too_large_is_halved_and_batches_grow_again(start):
    limits = [3] * 8 + [1_000] * 50

    def at_most(batch):
        if len(numbers(batch)) > limits.pop(0):
            raise TooLargeError("413")

    file, delivery, transport, buried = start(*[at_most] * 50)
    log(file, *range(40))
    deliver(delivery)
    assert [number for b in transport.batches for number in numbers(b)] == list(range(40))
    assert buried == []
    assert max(len(numbers(b)) for b in transport.batches) > 3


def test_one_event_that_is_too_large_is_buried(start):
    file, delivery, transport, buried = start(TooLargeError("413"))
    log(file, 1, "a")
    deliver(delivery)
    assert [b.call for b in transport.batches] == ["a"]
    assert [reason for _, reason, _ in buried] == ["it is too large"]


@pytest.mark.parametrize(("last", "sent_again"), [(2, [(3, 4)]), (4, []), (9, [])])
def test_events_that_the_tracker_has_already_are_not_sent_again(start, last, sent_again):
    file, delivery, transport, _ = start(PartlyAppliedError(last))
    log(file, 0, 1, 2, 3)
    deliver(delivery)
    assert [(b.first, b.last) for b in transport.attempts] == [(1, 4), *sent_again]
    assert file.unsent == 0


def test_an_answer_about_other_events_is_trouble_and_no_success(start):
    file, delivery, _, _ = start(None, PartlyAppliedError(1))
    log(file, "a", 1, 2)
    assert delivery.step()
    with pytest.raises(UnreachableError, match="other events"):
        delivery.step()
    assert file.unsent == 2


def line_of(data):
    return b"%08x %b\n" % (zlib.crc32(data), data)


UNREADABLE = line_of(b'["log_metrics",[["attempt","user",["n",%b,0,null,"j"]]]]' % (b"9" * 5_001))


def test_an_event_that_cannot_be_read_becomes_a_dead_letter_and_blocks_nothing(start):
    file, delivery, transport, buried = start()
    log(file, 1, 2)
    file.append(UNREADABLE)
    log(file, 3, "set_run_state")
    deliver(delivery)
    assert [number for b in transport.batches for number in numbers(b)] == [1, 2, 3]
    assert transport.batches[-1].call == "set_run_state"
    ((record, reason, path),) = buried
    assert (record.sequence, record.call) == (3, "log_metrics")
    assert "it cannot be read: " in reason
    # As it stood: the number is there for a Python that reads it.
    assert b"9" * 5_001 in path.read_bytes()
    assert path.suffix == ".dead"


def test_a_dead_letter_that_cannot_be_read_is_tried_again_and_kept_again(start, scripted):
    file, delivery, _, buried = start()
    file.append(UNREADABLE)
    deliver(delivery)
    dead = JournalFile.adopt(buried[0][2])
    again = []
    deliver(Delivery(dead, scripted(), lambda *what: again.append(what)))
    dead.close()
    assert not buried[0][2].exists()
    assert b"9" * 5_001 in again[0][2].read_bytes()


@pytest.mark.parametrize(
    "error", [KeyError("a"), RecursionError("deep"), UnicodeEncodeError("ascii", "x", 0, 1, "no"), MemoryError()]
)
def test_an_event_that_a_transport_chokes_on_becomes_a_dead_letter(start, error):
    def choke(batch):
        if 66 in numbers(batch):
            raise error

    file, delivery, transport, buried = start(*[choke] * 100)
    log(file, *range(60, 70))
    with pytest.raises(BusyError, match=type(error).__name__):  # it may be a passing trouble
        delivery.step()
    deliver(delivery)
    assert [number for b in transport.batches for number in numbers(b)] == [n for n in range(60, 70) if n != 66]
    ((record, reason, _),) = buried
    assert record.sequence == 7
    assert f"it cannot be sent: {type(error).__name__}" in reason


def test_a_transport_that_is_broken_buries_nothing(start):
    file, delivery, transport, buried = start(*[KeyError("broken")] * 5)

    def check():
        raise KeyError("broken")

    transport.check = check
    log(file, 1)
    for _ in range(5):
        with pytest.raises(BusyError):
            delivery.step()
    deliver(delivery)
    assert (len(transport.batches), buried) == (1, [])


def test_an_operating_system_in_trouble_buries_nothing(start):
    file, delivery, transport, buried = start(*[ConnectionResetError()] * 5)
    log(file, 1)
    for _ in range(5):
        with pytest.raises(ConnectionResetError):
            delivery.step()
    deliver(delivery)
    assert (len(transport.batches), buried) == (1, [])


def test_the_bytes_of_a_damaged_event_are_kept_aside_once(start, monkeypatch):
    file, delivery, transport, buried = start()
    good = records.frame(("log_metrics", metrics(2)))
    bad = good.replace(b"user", b"uzer")
    for line in (good, bad, good, bad, good):
        file.append(line)
    with monkeypatch.context() as killed:  # before it has noted that the first one is kept
        killed.setattr(file, "acknowledge", lambda *_: (_ for _ in ()).throw(MemoryError))
        delivery._read = file.read(1 << 20)[1:]
        with pytest.raises(MemoryError):
            delivery.step()
    delivery._read, delivery._batch = [], []
    deliver(delivery)
    assert [numbers(b) for b in transport.batches] == [[2], [2], [2]]
    assert [(record.sequence, reason) for record, reason, _ in buried] == [(2, "it is damaged"), (4, "it is damaged")]
    (path,) = {path for *_, path in buried}
    assert path.suffix == ".damaged"
    _, *kept = path.read_bytes().splitlines(keepends=True)
    assert kept == [b"2 " + bad, b"4 " + bad]
    assert read_header(path).url == "u"
    assert unsent_of(path) == 2
