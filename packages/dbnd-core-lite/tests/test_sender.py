from __future__ import annotations

import threading
import time

import pytest

from dbnd._tracking.journal import Journal
from dbnd._tracking.sender import MAX_EVENTS, Sender
from dbnd._tracking.transport import PartlyAppliedError, RefusedError, TooLargeError, UnreachableError


class ScriptedTransport:
    """Takes batches into a list, or raises what the script says next."""

    def __init__(self, *script):
        self.script = list(script)
        self.batches = []
        self.attempts = []

    def send(self, batch):
        self.attempts.append(batch)
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            raise step
        if callable(step):
            step(batch)
        self.batches.append(batch)

    def close(self):
        pass


@pytest.fixture
def start(tmp_path):
    made = []

    def start(*script):
        journal, transport = Journal(tmp_path, "u"), ScriptedTransport(*script)
        sender = Sender(journal, transport, "u")
        made.append((journal, sender))
        return journal, sender, transport

    yield start
    for journal, sender in made:
        sender.stop()
        journal.close()


def metrics(*numbers):
    return [["attempt", "user", [["n", number, 0] for number in numbers]]]


def numbers(batch):
    return [number for _, _, points in batch.body for _, number, _ in points] if batch.call == "log_metrics" else []


def test_consecutive_metrics_travel_in_one_batch_and_order_is_kept(start):
    journal, sender, transport = start()
    journal.append("init_run", {})
    for _ in range(3):
        journal.append("log_metrics", metrics(0, 1))
    journal.append("set_run_state", {})
    journal.append("log_metrics", metrics(1))
    assert sender.flush(10)
    assert [(b.call, b.first, b.last) for b in transport.batches] == [
        ("init_run", 1, 1),
        ("log_metrics", 2, 4),
        ("set_run_state", 5, 5),
        ("log_metrics", 6, 6),
    ]
    assert numbers(transport.batches[1]) == [0, 1] * 3
    assert transport.batches[0].journal == journal.id


def test_batches_are_bounded(start):
    journal, sender, transport = start()
    for _ in range(MAX_EVENTS + 10):
        journal.append("log_metrics", metrics(1))
    assert sender.flush(60)
    assert max(b.last - b.first + 1 for b in transport.batches) <= MAX_EVENTS
    assert sum(len(numbers(b)) for b in transport.batches) == MAX_EVENTS + 10


def test_a_batch_that_failed_is_sent_again_as_it_was(start):
    journal, sender, transport = start(UnreachableError("down"))
    journal.append("log_metrics", metrics(1))
    sender.notify()
    deadline = time.monotonic() + 20
    while not transport.attempts and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(10):  # more events, which must not slip into the batch that is retried
        journal.append("log_metrics", metrics(1))
    assert sender.flush(20)
    assert [(b.first, b.last) for b in transport.attempts[:2]] == [(1, 1), (1, 1)]
    assert sum(len(numbers(b)) for b in transport.batches) == 11


def test_a_tracker_that_never_answered_gets_one_attempt_at_the_end(start):
    down = UnreachableError("refused")
    journal, sender, transport = start(*[down] * 100)
    journal.append("call", {})
    started = time.monotonic()
    assert not sender.flush(60)
    assert time.monotonic() - started < 30
    assert journal.unsent == 1
    assert sender.trouble == "refused"
    assert len(transport.attempts) <= 2


def test_a_tracker_that_answered_before_is_tried_until_the_time_is_over(start):
    journal, sender, transport = start(None, *[UnreachableError("restarting")] * 2)
    journal.append("a", {})
    assert sender.flush(10)
    journal.append("b", {})
    assert sender.flush(30)
    assert [b.call for b in transport.batches] == ["a", "b"]


def test_retry_after_is_honoured(start):
    journal, sender, transport = start(None, UnreachableError("busy", retry_after=1.0))
    journal.append("a", {})
    assert sender.flush(10)
    journal.append("b", {})
    started = time.monotonic()
    assert sender.flush(30)
    assert time.monotonic() - started >= 0.9
    assert len(transport.attempts) == 3


def test_a_transport_that_breaks_does_not_end_the_sender(start):
    journal, sender, transport = start(None, KeyError("a bug of the transport"))
    journal.append("a", {})
    assert sender.flush(10)
    journal.append("b", {})
    assert sender.flush(30)
    assert [b.call for b in transport.batches] == ["a", "b"]


def test_what_is_refused_for_good_is_kept_aside_and_blocks_nothing(start, capsys):
    def refuse_bad(batch):
        if 66 in numbers(batch):
            raise RefusedError("it answered 400: n is wrong")

    journal, sender, transport = start(*[refuse_bad] * 50)
    for number in (1, 2, 66, 3, 4):
        journal.append("log_metrics", metrics(number))
    journal.append("set_run_state", {})
    assert sender.flush(20)
    assert journal.dead == 1
    delivered = [number for b in transport.batches for number in numbers(b)]
    assert delivered == [1, 2, 3, 4]
    assert transport.batches[-1].call == "set_run_state"
    assert b'["n",66,0]' in journal.dead_path.read_bytes()
    assert "it answered 400" in capsys.readouterr().err


def test_a_batch_that_is_too_large_is_halved(start):
    def at_most_three(batch):
        if len(numbers(batch)) > 3:
            raise TooLargeError("413")

    journal, sender, transport = start(*[at_most_three] * 50)
    for number in range(10):
        journal.append("log_metrics", metrics(number))
    assert sender.flush(20)
    assert [number for b in transport.batches for number in numbers(b)] == list(range(10))
    assert journal.dead == 0


def test_events_that_the_tracker_has_already_are_not_sent_again(start):
    journal, sender, transport = start(PartlyAppliedError(2))
    for number in range(4):
        journal.append("log_metrics", metrics(number))
    assert sender.flush(20)
    assert [(b.first, b.last) for b in transport.attempts] == [(1, 4), (3, 4)]


def test_logging_goes_on_while_the_tracker_hangs(start):
    release = threading.Event()
    journal, sender, _ = start(lambda _: release.wait(20))
    journal.append("a", {})
    sender.notify()
    for _ in range(1000):
        journal.append("log_metrics", metrics(1))
        sender.notify()
    assert journal.unsent == 1001
    assert not sender.flush(0.2)
    release.set()
    assert sender.flush(20)
