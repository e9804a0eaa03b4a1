from __future__ import annotations

import threading
import time

import pytest
from kit.progress import wait_until

from dbnd._journal.journal import Journal
from dbnd._tracking import sender as sender_module
from dbnd._tracking.contracts import BusyError, RefusedError, UnreachableError
from dbnd._tracking.sender import Sender

# Seconds after which something that should have happened has not; nothing waits for it to be over.
PATIENCE = 60


@pytest.fixture
def start(tmp_path, scripted):
    made = []

    def start(*script):
        journal, transport = Journal(tmp_path / "journal", "u"), scripted(*script)
        sender = Sender(journal, transport, "the tracker u")
        made.append((journal, sender))
        return journal, sender, transport

    yield start
    for journal, sender in made:
        sender.close()
        journal.close()


def metrics(number):
    return [["attempt", "user", ["n", number, 0, None, None]]]


def numbers(transport):
    return [n for b in transport.batches if b.call == "log_metrics" for group in b.body for n in group[2][1::5]]


def test_events_are_delivered_without_anybody_waiting(start):
    journal, sender, transport = start()
    for number in range(10):
        journal.append("log_metrics", metrics(number))
        sender.notify()
    wait_until(lambda: not journal.unsent, lambda: str(journal.unsent))
    assert numbers(transport) == list(range(10))


def test_no_thread_is_started_before_the_first_event(start):
    before = set(threading.enumerate())
    _, sender, _ = start()
    assert set(threading.enumerate()) <= before
    sender.notify()
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["dbnd-sender"]


def test_a_batch_that_failed_is_sent_again_as_it_was(start):
    journal, sender, transport = start(UnreachableError("down"))
    journal.append("log_metrics", metrics(0))
    sender.notify()
    wait_until(lambda: transport.attempts, lambda: "nothing was tried")
    for number in range(1, 11):  # more events, which must not slip into the batch that is retried
        journal.append("log_metrics", metrics(number))
    assert sender.flush(PATIENCE)
    assert [(b.first, b.last) for b in transport.attempts[:2]] == [(1, 1), (1, 1)]
    assert numbers(transport) == list(range(11))


def test_a_tracker_that_is_not_there_gets_one_attempt_at_the_end(start):
    journal, sender, transport = start(*[UnreachableError("refused")] * 100)
    journal.append("call", {})
    assert not sender.flush(PATIENCE)
    assert journal.unsent == 1
    assert sender.trouble == "refused"
    assert len(transport.attempts) <= 2


def test_that_attempt_is_made_at_once(start):
    """However long the backoff is by then: somebody waits."""
    journal, sender, transport = start(UnreachableError("refused"))
    journal.append("call", {})
    sender.notify()
    wait_until(lambda: sender.trouble, lambda: "there is no trouble")
    assert sender.flush(PATIENCE)
    assert len(transport.attempts) == 2


def test_an_attempt_that_was_under_way_before_does_not_count(start):
    """Whoever waits may have waited for the tracker to come up, and that attempt has met it before."""
    under_way, waits = threading.Event(), threading.Event()

    def late(_):
        under_way.set()
        assert waits.wait(PATIENCE)
        raise UnreachableError("refused")

    journal, sender, transport = start(late)
    journal.append("call", {})
    sender.notify()
    assert under_way.wait(PATIENCE)
    assert sender.flush(PATIENCE, lambda _: waits.set())
    assert len(transport.attempts) == 2


@pytest.mark.parametrize("trouble", [UnreachableError("restarting"), BusyError("it answered 503")])
def test_a_tracker_that_answered_before_is_tried_until_the_time_is_over(start, trouble):
    journal, sender, transport = start(None, *[trouble] * 2)
    journal.append("a", {})
    assert sender.flush(PATIENCE)
    journal.append("b", {})
    assert sender.flush(PATIENCE)
    assert [b.call for b in transport.batches] == ["a", "b"]


def test_a_tracker_that_answers_at_all_is_tried_until_the_time_is_over(start):
    journal, sender, transport = start(BusyError("it answered 502"), BusyError("the connection broke"))
    journal.append("a", {})
    assert sender.flush(PATIENCE)
    assert [b.call for b in transport.batches] == ["a"]
    # Its thread notes that after the delivery.
    wait_until(lambda: sender.trouble is None, lambda: str(sender.trouble))


def test_retry_after_is_honoured_while_somebody_waits(start):
    journal, sender, transport = start(None, BusyError("busy", retry_after=1.5))
    journal.append("a", {})
    assert sender.flush(PATIENCE)
    journal.append("b", {})
    started = time.monotonic()
    assert sender.flush(PATIENCE)
    assert time.monotonic() - started >= 1.4
    assert len(transport.attempts) == 3


def test_nobody_waits_for_a_tracker_that_wants_to_be_left_alone_for_longer(start):
    journal, sender, transport = start(None, *[BusyError("busy", retry_after=3600)] * 5)
    journal.append("a", {})
    assert sender.flush(PATIENCE)
    journal.append("b", {})
    started = time.monotonic()
    assert not sender.flush(PATIENCE)
    assert time.monotonic() - started < PATIENCE / 2
    assert len(transport.attempts) == 2
    assert not sender.flush(PATIENCE)
    assert len(transport.attempts) == 2  # nor is it asked before that


def test_who_keeps_up_rests_longer_than_who_is_behind(start, monkeypatch):
    monkeypatch.setattr(sender_module, "_LONG_BEHIND", 0.5)
    journal, sender, _ = start(None, BusyError("busy", retry_after=3600))
    time.sleep(0.6)  # nothing has been logged: that is not being behind
    journal.append("a", {})
    assert sender.flush(PATIENCE)
    wait_until(lambda: sender._rest_after(0.004) == sender_module._REST * 0.004, lambda: "it rests otherwise")
    journal.append("b", {})
    assert not sender.flush(PATIENCE)
    wait_until(lambda: sender._rest_after(0.004) == sender_module._SHORTER_REST * 0.004, lambda: "it rests otherwise")


@pytest.mark.parametrize("busy", [0.0, 0.001, 0.01, 0.1, 10.0])
def test_a_rest_leaves_time_for_a_point_to_be_visible_within_two_seconds(start, busy):
    journal, sender, _ = start()
    journal.append("a", {})
    assert sender.flush(PATIENCE)
    assert 0.1 < sender._rest_after(busy) < 1.9


def test_a_steady_trickle_of_points_travels_in_few_batches_and_needs_no_flush(start):
    journal, sender, transport = start()
    journal.append("init_run", {})
    sender.notify()
    wait_until(lambda: transport.batches, lambda: "nothing was sent")
    started, logged = time.monotonic(), 0
    while time.monotonic() - started < 1.5:
        journal.append("log_metrics", metrics(logged))
        sender.notify()
        logged += 1
        time.sleep(0.001)
    wait_until(lambda: len(numbers(transport)) == logged, lambda: str(numbers(transport)))
    assert numbers(transport) == list(range(logged))
    assert len(transport.batches) <= 2 + (time.monotonic() - started) / sender_module._LEAST_REST


def test_a_transport_that_breaks_does_not_end_the_sender(start):
    journal, sender, transport = start(None, KeyError("a bug of the transport"))
    journal.append("a", {})
    assert sender.flush(PATIENCE)
    journal.append("b", {})
    assert sender.flush(PATIENCE)
    assert [b.call for b in transport.batches] == ["a", "b"]


def test_what_is_refused_is_said_and_counted(start, capsys):
    journal, sender, transport = start(RefusedError("it answered 400: n is wrong"), RefusedError("once more"))
    for call in "abc":
        journal.append(call, {})
    assert sender.flush(PATIENCE)
    assert [b.call for b in transport.batches] == ["c"]
    assert sender.losses.dead == 2
    said = capsys.readouterr().err
    assert said.count("refused an event") == 1  # at most one message a minute
    assert "it answered 400" in said
    assert sender.losses.sentences()[0].partition("kept in ")[2].removesuffix(".") in said


def test_a_tracker_that_is_down_is_said_once_a_minute(start, capsys, monkeypatch):
    monkeypatch.setattr("dbnd._tracking.delivery._LEAST", 0.001)
    journal, sender, transport = start(*[UnreachableError("refused")] * 5)
    journal.append("call", {})
    sender.notify()
    wait_until(lambda: not journal.unsent, lambda: str(journal.unsent))
    assert len(transport.attempts) == 6
    assert capsys.readouterr().err.count("does not take events (refused)") == 1


def test_a_training_that_never_rests_lets_the_sender_in(start):
    """Steps of about a millisecond, each with a log call, whose write is too short for another thread to wake up."""
    handovers, is_over = 50, threading.Event()

    def work(_):
        for _ in range(handovers):
            time.sleep(2e-4)  # as long as a statement of SQLite's; it gives the interpreter away
        is_over.set()

    journal, sender, _ = start(work)
    calls = 0
    while not is_over.is_set() and calls < 60 * handovers:
        sum(n * n for n in range(20_000))
        journal.append("log_metrics", metrics(calls))
        sender.notify()
        calls += 1
    assert is_over.is_set()


def test_logging_goes_on_while_the_tracker_hangs(start):
    release = threading.Event()
    journal, sender, _ = start(lambda _: release.wait(PATIENCE))
    journal.append("a", {})
    sender.notify()
    for _ in range(1000):
        journal.append("log_metrics", metrics(1))
        sender.notify()
    assert journal.unsent == 1001
    assert not sender.flush(0.2)
    release.set()
    assert sender.flush(PATIENCE)


def test_what_is_logged_during_a_flush_is_not_waited_for(start):
    journal, sender, _ = start(lambda _: journal.append("late", {}))
    journal.append("a", {})
    assert sender.flush(PATIENCE)


def test_several_threads_may_wait(start):
    journal, sender, _ = start()
    done = []

    def log_and_flush():
        for _ in range(100):
            journal.append("log_metrics", metrics(1))
        done.append(sender.flush(PATIENCE))

    threads = [threading.Thread(target=log_and_flush) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert done == [True] * 4


def test_progress_of_a_flush_is_told(start, monkeypatch):
    monkeypatch.setattr(sender_module, "_LOOK", 0.01)
    told, seen = [], threading.Event()

    def take_slowly(_):
        seen.wait(PATIENCE)

    def progress(left):
        told.append(left)
        if len(told) > 2:
            seen.set()

    journal, sender, _ = start(take_slowly)
    for call in "abcd":
        journal.append(call, {})
    assert sender.flush(PATIENCE, progress)
    assert told[0] == 4
    assert told == sorted(told, reverse=True)


def test_without_a_thread_a_flush_delivers_itself_within_its_time(start, monkeypatch):
    """At the end of the interpreter no thread can be started."""

    def refuse(_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    deadlines = []
    journal, sender, transport = start(lambda _: deadlines.append(transport.deadline))
    journal.append("a", {})
    journal.append("b", {})
    assert sender.flush(PATIENCE)
    assert [b.call for b in transport.batches] == ["a", "b"]
    assert 0 < deadlines[0] - time.monotonic() <= PATIENCE
    assert transport.deadline is None


def test_heartbeats_go_on_while_nothing_is_logged(start):
    journal, sender, transport = start()
    journal.append("init_run", {})
    states = []
    sender.beat("run", 0.05, lambda state: states.append(state) or True)
    sender.notify()
    wait_until(lambda: len(states) >= 3, lambda: str(states))
    assert set(transport.beats) == {"run"}
    assert set(states) == {"running"}
    sender.end_beat("run")
    assert sender.flush(PATIENCE)
    count = len(transport.beats)
    time.sleep(0.3)
    assert len(transport.beats) <= count + 1


def test_no_heartbeat_is_sent_to_a_tracker_that_takes_nothing(start):
    journal, sender, transport = start(*[UnreachableError("refused")] * 1000)
    journal.append("init_run", {})
    sender.beat("run", 0.01, lambda _: True)
    sender.notify()
    wait_until(lambda: len(transport.attempts) >= 2, lambda: str(transport.attempts))
    assert transport.beats == []


def test_a_heartbeat_that_fails_disturbs_nothing(start):
    journal, sender, transport = start()

    def fail(run_uid):
        transport.beats.append(run_uid)
        raise BusyError("it answered 500")

    transport.heartbeat = fail
    journal.append("a", {})
    sender.beat("run", 0.02, lambda _: True)
    sender.notify()
    wait_until(lambda: len(transport.beats) >= 2, lambda: str(transport.beats))
    journal.append("b", {})
    assert sender.flush(PATIENCE)
    assert [b.call for b in transport.batches] == ["a", "b"]


def taking(seconds, number, *script):
    """A script of a tracker that thinks for so long about each of so many batches."""
    return [lambda _: time.sleep(seconds)] * number + list(script)


def test_a_drain_waits_as_long_as_the_tracker_takes_events(start):
    journal, sender, transport = start(*taking(0.25, 8))
    for number in range(8):
        journal.append(f"call{number}", {})
    assert sender.flush(1.0, longest=PATIENCE)
    assert len(transport.batches) == 8


def test_a_flush_with_a_limit_keeps_it_whatever_the_tracker_takes(start):
    release = threading.Event()
    journal, sender, _ = start(*taking(0.05, 3), lambda _: release.wait(PATIENCE))
    for number in range(5):
        journal.append(f"call{number}", {})
    started = time.monotonic()
    assert not sender.flush(0.5)
    assert time.monotonic() - started < PATIENCE / 2
    release.set()


def test_a_drain_ends_when_the_tracker_takes_no_more_and_says_so(start):
    release = threading.Event()
    journal, sender, _ = start(None, lambda _: release.wait(PATIENCE))
    for number in range(3):
        journal.append(f"call{number}", {})
    assert not sender.flush(0.5, longest=PATIENCE)
    assert sender.outcome == "it took 1, and then none within the 0.5 s of core.flush_timeout"
    assert not sender.flush(0.2, longest=PATIENCE)
    assert sender.outcome == "it has taken none within the 0.2 s of core.flush_timeout"
    assert not sender.flush(0)
    assert sender.outcome == "core.flush_timeout leaves no time to wait for it"
    release.set()


def test_a_drain_ends_some_time_also_when_the_tracker_takes_on_and_on(start):
    journal, sender, _ = start(*taking(0.1, 1000))
    for number in range(1000):
        journal.append(f"call{number}", {})
    assert not sender.flush(0.5, longest=1.0)
    assert "and nobody waits longer" in sender.outcome


def test_a_drain_without_a_thread_waits_for_progress_too(start, monkeypatch):
    monkeypatch.setattr(Sender, "_start", lambda _: None)  # as at the end of the interpreter, which starts no threads
    journal, sender, transport = start(*taking(0.25, 6))
    for number in range(6):
        journal.append(f"call{number}", {})
    assert sender.flush(0.5, longest=PATIENCE)
    assert len(transport.batches) == 6


def test_a_deleted_run_is_named_once_and_what_was_dropped_is_counted(start, capsys):
    journal, sender, transport = start()
    send = transport.send
    transport.send = lambda batch: send(batch) or {"1234": batch.last - batch.first + 1}
    for _ in range(2):
        journal.append("log_metrics", metrics(1))
        assert sender.flush(PATIENCE)
    assert sender.losses.dropped == {"1234": 2}
    assert capsys.readouterr().err.count("The run 1234 was deleted from the tracker u") == 1
