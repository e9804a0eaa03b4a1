"""A state machine over journals, delivery and `dbnd sync`: no accepted event is lost, none is taken twice.

Processes are journals of this one process that are given up in mid-air when they "crash"; forks are real. The tracker
is a model of ours: it takes a batch once, and does to the next ones what it is told to.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter, deque
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dbnd._context.registry import load_config
from dbnd._journal import journal, records
from dbnd._journal.journal import Journal
from dbnd._journal.leftovers import find
from dbnd._run.sync import Sync
from dbnd._tracking import delivery
from dbnd._tracking.contracts import PartlyAppliedError, RefusedError, TooLargeError, UnreachableError
from dbnd._tracking.sender import Sender

URL = "http://tracker"
OK, DOWN, LOST, TOO_LARGE = "ok", "down", "lost", "too large"
FAULTS = st.lists(st.sampled_from([OK, DOWN, LOST, TOO_LARGE]), min_size=1, max_size=4)
# Small, so that a few events make several files and several batches of one file.
FILE_SIZE, BATCH_BYTES, MAX_PROCESSES = 600, 300, 3


class Tracker:
    """Takes each numbered event once, as ours does, and fails as its script says."""

    deadline: float | None = None

    def __init__(self):
        self.script = deque()
        self.values = []
        self.refuses_bad = True
        self._applied: dict[str, int] = {}

    def send(self, batch):
        what = self.script.popleft() if self.script else OK
        if what == DOWN:
            raise UnreachableError("it is down")
        if what == TOO_LARGE and batch.last > batch.first:
            raise TooLargeError("413")
        applied = self._applied.get(batch.journal, 0)
        if batch.first <= applied < batch.last:
            raise PartlyAppliedError(applied)
        if batch.last > applied:
            values = values_of(batch.call, batch.body)
            if self.refuses_bad and any(value < 0 for value in values):
                raise RefusedError("bad")
            self.values += values
            self._applied[batch.journal] = batch.last
        if what == LOST:
            raise UnreachableError("its answer is lost")

    def heartbeat(self, run_uid):
        return None

    def check(self):
        """It takes calls in general, so that an event that it refuses is to blame itself."""

    def close(self):
        pass


def values_of(call, body):
    """The values of an event; a bad one is negative."""
    if call == "log_metrics":
        return [value for group in body for value in group[2][1::5]]
    return [body["value"]]


class Process:
    """A journal with its sender, whose steps are taken by the test and not by a thread."""

    def __init__(self, folder, tracker):
        self.journal = Journal(folder, URL)
        self.sender = Sender(self.journal, tracker, URL)

    def append(self, value, *, is_metric):
        body: Any = [["attempt", "user", ["n", value, 0, None, None]]] if is_metric else {"value": value}
        self.journal.append("log_metrics" if is_metric else "set_run_state", body)

    def step(self):
        """Send one batch, if there is one; what the sender's thread makes of a failure is to try again."""
        try:
            return self.sender._step()
        except UnreachableError:
            return True


class DeliveryMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(journal, "_FILE_SIZE", FILE_SIZE)
        self.patch.setattr(delivery, "MAX_BYTES", BATCH_BYTES)
        self.home = Path(tempfile.mkdtemp(prefix="dbnd-machine-"))
        self.folder = self.home / "journal"
        self.config = load_config(conf={"core.databand_url": URL})
        self.tracker = Tracker()
        self.processes: list[Process] = []
        self.accepted: list[int] = []
        self.logger: dict[int, object] = {}
        self.count = 0

    def next_value(self, *, bad=False):
        self.count += 1
        return -self.count if bad else self.count

    def accept(self, values, process):
        """Its calls have returned; ``process`` is whatever tells processes apart."""
        self.accepted += values
        self.logger.update(dict.fromkeys(values, process))

    def pick(self, number):
        """One of the processes; a new one if there is none."""
        if not self.processes:
            self.start()
        return self.processes[number % len(self.processes)]

    @initialize()
    def first_process(self):
        self.start()

    @precondition(lambda self: len(self.processes) < MAX_PROCESSES)
    @rule()
    def start(self):
        self.processes.append(Process(self.folder, self.tracker))

    @rule(number=st.integers(0, 2), kinds=st.lists(st.sampled_from(["metric"] * 6 + ["state", "bad"]), max_size=12))
    def append(self, number, kinds):
        for kind in kinds:
            value = self.next_value(bad=kind == "bad")
            process = self.pick(number)
            process.append(value, is_metric=kind != "state")
            self.accept([value], process)

    @rule(number=st.integers(0, 2), faults=FAULTS)
    def deliver(self, number, faults):
        """Send some batches; each meets what stands for it in ``faults``."""
        self.tracker.script.extend(faults)
        for _ in faults:
            self.pick(number).step()
        self.tracker.script.clear()

    @rule(
        number=st.integers(0, 2),
        in_flight=st.booleans(),
        more=st.integers(0, 3),
        torn=st.booleans(),
        ack=st.sampled_from(["kept", "lost", "damaged"]),
    )
    def crash(self, number, in_flight, more, torn, ack):
        """The process is killed: with a batch in flight, in an append, before its acknowledgement is on the disk."""
        process = self.pick(number)
        if in_flight:
            self.deliver(number, [LOST])
        self.append(number, ["metric"] * more)
        path = process.journal.path
        if torn:
            line = records.frame(("log_metrics", [["attempt", "user", ["n", self.next_value(), 0, None, None]]]))
            with path.open("ab") as file:
                file.write(line[: len(line) // 2])
        ack_path = path.with_name(f"{path.name}.ack")
        if ack_path.exists() and ack != "kept":
            ack_path.write_bytes(b"" if ack == "lost" else b"\0" * 42)
        self.processes.remove(process)
        process.journal.abandon()

    @rule(number=st.integers(0, 2))
    def close(self, number):
        process = self.pick(number)
        self.processes.remove(process)
        process.journal.close()

    @rule(number=st.integers(0, 2), values=st.integers(0, 6), is_killed=st.booleans())
    def fork(self, number, values, is_killed):
        """A child gives up what is its parent's, logs into a journal of its own, and leaves it behind."""
        parent = self.pick(number)
        own = [self.next_value() for _ in range(values)]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                parent.journal.abandon()
                child = Process(self.folder, self.tracker)
                for value in own:
                    child.append(value, is_metric=True)
                if not is_killed:
                    child.journal.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        self.accept(own, pid)

    @rule(retry_dead=st.booleans(), faults=FAULTS)
    def sync(self, retry_dead, faults):
        """One `dbnd sync`; it gives up at the first trouble, and leaves the living alone."""
        self.tracker.script.extend(faults)
        work = Sync(self.folder, self.config, retry_dead=retry_dead, transports={URL: self.tracker})
        work.deliver(patience=0)
        self.tracker.script.clear()

    @invariant()
    def nothing_is_taken_twice(self):
        assert [value for value, count in Counter(self.tracker.values).items() if count > 1] == []

    @invariant()
    def nothing_is_invented(self):
        assert set(self.tracker.values) <= set(self.accepted)

    @invariant()
    def what_one_process_logged_is_taken_in_order(self):
        last: dict[object, int] = {}
        for value in self.tracker.values:
            if value > 0:  # one that was refused before comes later
                assert last.get(self.logger[value], 0) < value
                last[self.logger[value]] = value

    def teardown(self):
        try:
            self.deliver_everything()
        finally:
            self.patch.undo()
            rmtree(self.home)

    def deliver_everything(self):
        for process in self.processes:
            while process.step():
                pass
            process.journal.close()
        self.sync(retry_dead=False, faults=[])
        good = [value for value in self.accepted if value > 0]
        assert sorted(value for value in self.tracker.values if value > 0) == good
        dead = [leftover for leftover in find(self.folder) if leftover.is_dead]
        assert sum(leftover.events for leftover in dead) == len(self.accepted) - len(good)
        self.tracker.refuses_bad = False
        self.sync(retry_dead=True, faults=[])
        self.nothing_is_taken_twice()
        self.what_one_process_logged_is_taken_in_order()
        assert sorted(self.tracker.values) == sorted(self.accepted)
        assert list(self.folder.glob("*")) == []


DeliveryMachine.TestCase.settings = settings(stateful_step_count=30)
test_no_event_is_lost_or_taken_twice = DeliveryMachine.TestCase
