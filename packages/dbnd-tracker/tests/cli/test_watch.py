"""``dbnd watch``: what a terminal shows of a run that a tracker holds, embedded or behind HTTP."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from dbnd._base.errors import DatabandError, UsageError
from dbnd._terminal.text import width
from dbnd_tracker._cli.plot import chart
from dbnd_tracker._cli.references import resolve
from dbnd_tracker._cli.watch import watch
from dbnd_tracker._cli.watched import WatchedRun
from dbnd_tracker._reader import DatabaseReader, HttpReader, RunReader
from dbnd_tracker._server.app import create_app
from dbnd_tracker._server.process import listen, make_server
from dbnd_tracker._settings import TrackerSettings

Lines = list[str]


def has(*texts: str) -> Callable[[Lines], bool]:
    return lambda lines: all(any(text in line for line in lines) for text in texts)


def is_drawn(line: str) -> bool:
    return bool(re.search("[\u2801-\u28ff]", line))


class Watchable:
    """A run of a tracker that goes on: a root task, and one that logs."""

    def __init__(self, tracker: Any, error: Any, name: str = "bold_curie") -> None:
        self.tracker = tracker
        self.error = {**error, "msg": "the data is bad"}
        self.run, self.root = tracker.started(name=name, job="train")
        self.fit = self.run.task(name="fit")
        tracker.call("add_task_runs", self.run.add(self.fit))
        for task in (self.root, self.fit):
            tracker.call("update_task_run_attempts", task.update("RUNNING"))

    def log(self, steps: range, **values: Callable[[int], float]) -> None:
        points = [self.fit.metric(key, value_float=of(step), step=step) for key, of in values.items() for step in steps]
        self.tracker.call("log_metrics", self.fit.metrics(*points))

    def end(self, state: str) -> None:
        for task in (self.fit, self.root):
            given = {"error": self.error} if state == "FAILED" and task is self.fit else {}
            self.tracker.call("update_task_run_attempts", task.update(state, **given))
        self.tracker.call("set_run_state", self.run.state(state))


@pytest.fixture
def going(configured_tracker: Any, error: Any) -> Watchable:
    """A run that goes on, in a database and behind a server."""
    return Watchable(configured_tracker, error)


def test_a_run_is_watched_until_it_ends(going: Watchable, terminal: Any) -> None:
    going.log(range(20), loss=lambda step: 1 / (step + 1), accuracy=lambda step: step / 40)
    shown = terminal("watch", columns=120, lines=40)
    lines = shown.wait_for(has("● fit", "loss 0.05", "accuracy 0.475"))
    start = next(place for place, line in enumerate(lines) if "bold_curie · train" in line)
    (heads,) = [place for place, line in enumerate(lines) if re.match("loss 0.05 +accuracy 0.475$", line)]
    assert heads > start
    shown.wait_for(lambda lines: sum(map(is_drawn, lines)) >= 10)
    going.log(range(20, 40), loss=lambda step: 1 / (step + 1))
    shown.wait_for(has("loss 0.025"))
    shown.resize(60, 30)
    shown.wait_for(lambda lines: len(lines) == 30 and has("loss 0.025", "accuracy 0.475", "● fit")(lines))
    going.end("SUCCESS")
    assert shown.end() == 0
    assert has("dbnd: Run bold_curie succeeded after ", "  tasks    2 succeeded")(shown.lines)
    assert any(is_drawn(line) for line in shown.lines)  # the last picture of the charts stays
    assert shown.has_whole_screen


def test_ctrl_c_leaves_the_run_alone(going: Watchable, terminal: Any) -> None:
    shown = terminal("watch", "bold_curie")
    shown.wait_for(has("● fit"))
    shown.type(b"\x03")
    assert shown.end() == 130
    assert shown.lines[-1] == "dbnd: The run bold_curie goes on."
    assert shown.has_whole_screen
    going.end("SUCCESS")


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(watch, arguments)
    if isinstance(result.exception, DatabandError):
        raise result.exception
    return result


def test_without_a_terminal_there_are_lines(going: Watchable) -> None:
    Watchable(going.tracker, going.error, name="newer").end("SUCCESS")
    going.log(range(3), loss=lambda step: step / 3)
    threading.Timer(2, going.end, ("FAILED",)).start()
    done = invoke()  # the one that goes on, not the newest
    assert done.exit_code == 10
    assert done.stdout == ""
    ended, *lines = [re.sub(r"\d+(\.\d+)?(ms|s|m \d+s|h \d+m)$", "TIME", line) for line in done.stderr.splitlines()]
    assert ended.startswith("dbnd: ")
    assert "failed after TIME" in ended
    assert any(line.startswith("dbnd: error: Run bold_curie failed after ") for line in lines)
    assert any(re.match("  failed +.*ValueError: the data is bad$", line) for line in lines)
    assert any(re.match("  metrics +loss +0.6667 +min 0 +max 0.6667", line) for line in lines)


def test_a_run_that_is_over_is_summed_up_at_once(going: Watchable) -> None:
    going.end("SUCCESS")
    assert invoke("latest").exit_code == 0
    with pytest.raises(UsageError, match="There is no run 'nothing'"):
        invoke("nothing")


@contextmanager
def served(tracker: Any, port: int) -> Iterator[int]:
    with listen("127.0.0.1", port) as listening:
        server = make_server(create_app(tracker.database, TrackerSettings()), grace=1)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


def test_a_tracker_that_is_away_is_asked_again(tracker: Any, error: Any, home: Path) -> None:
    from dbnd._config.settings import CoreSettings

    del home
    run = Watchable(tracker, error)
    with served(tracker, 0) as port:
        reader = HttpReader(f"http://127.0.0.1:{port}", CoreSettings())
        watched = watched_in(reader, run)
        watched.read(None)
        assert not has("! The tracker")(watched.picture((100, 20), 0, colour=False))
    watched.read(None)
    assert has("! The tracker http://127.0.0.1", "● fit")(watched.picture((100, 20), 0, colour=False))
    run.end("SUCCESS")
    with served(tracker, port):
        assert len(watched.read(None)) == 2
        assert not has("! The tracker")(watched.picture((100, 20), 0, colour=False))
        assert watched.has_ended
    reader.close()


def watched_in(reader: RunReader, run: Watchable, *patterns: str) -> WatchedRun:
    detail = reader.run(run.run.uid)
    assert detail is not None
    return WatchedRun(reader, detail, patterns)


def test_what_is_nested_in_a_run_is_watched_until_it_ends(tracker: Any, error: Any) -> None:
    run = Watchable(tracker, error)
    row = resolve(DatabaseReader(tracker.database, "the database"), run.fit.uid)
    watched = WatchedRun(DatabaseReader(tracker.database, "the database"), row, ())
    watched.read(None)
    assert not watched.has_ended
    run.end("FAILED")
    tracker.call("set_run_state", run.run.state("SUCCESS"))
    assert watched.read(None) == ["fit failed after 0ms"]
    assert (watched.has_ended, watched.state, watched.run.name) == (True, "failed", "fit")
    assert [task.task_run.af_id for task in watched.tasks.values()] == ["fit"]


def test_what_is_drawn(tracker: Any, server: Any, error: Any) -> None:
    from dbnd._config.settings import CoreSettings

    run = Watchable(tracker, error)
    names = ["system/cpu", *(f"m{i}" for i in range(6)), "val_loss"]
    run.log(range(5), **dict.fromkeys(names, float))
    run.log(range(1), single=float)
    reader = HttpReader(server.url, CoreSettings())

    def titles(size: tuple[int, int], *patterns: str) -> Lines:
        watched = watched_in(reader, run, *patterns)
        watched.read(size)
        lines = watched.charts(size, colour=False)
        assert all(width(line) <= size[0] for line in lines)
        assert len(lines) <= size[1]
        return re.findall(r"(\S+) 4(?!\S)", "\n".join(lines)) + [line for line in lines if "more" in line]

    # Losses first, the machine last, and no chart of one point.
    assert titles((110, 40)) == ["val_loss", *(f"m{i}" for i in range(6)), "system/cpu"]
    assert titles((50, 15)) == ["val_loss", "m0", "… and 6 more metrics: --metric NAME draws them"]
    assert titles((50, 15), "*cpu", "m5") == ["m5", "system/cpu"]
    assert titles((50, 5)) == titles((23, 50)) == []
    # What goes on comes before what has ended.
    tracker.call("log_metrics", run.root.metrics(*(run.root.metric("r", value_float=x, step=x) for x in range(5))))
    assert titles((50, 15), "m0", "r") == ["r", "m0"]
    tracker.call("update_task_run_attempts", run.root.update("SUCCESS"))
    assert titles((50, 15), "m0", "r") == ["m0", "r"]
    reader.close()


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30),
    st.integers(20, 80),
    st.integers(4, 12),
    st.text(max_size=20),
)
def test_a_chart_has_its_size_whatever_it_draws(values: list[float], columns: int, lines: int, title: str) -> None:
    drawn = chart(title, list(enumerate(values)), columns, lines, x_labels=("0", "29"))
    assert [width(line) for line in drawn] == [columns] * lines
    assert any(map(is_drawn, drawn)) == any(map(math.isfinite, values))


def test_a_chart_shows_a_line_its_gaps_and_its_axes() -> None:
    rising = chart("m", [(0, 0.0), (10, 9.0)], 10, 6, x_labels=("0", "10"))
    assert rising == ["m         ", "9 ┤     ⡠⠊", "  │   ⢀⠔⠁ ", "  │ ⢀⠔⠁   ", "0 ┤⡠⠊     ", "   0    10"]
    gap = chart("m", [(0, 0.0), (1, math.nan), (2, 0.0)], 10, 4, x_labels=("0", "2"))
    assert gap == ["m         ", "  │       ", "0 ┤⠁     ⠈", "   0     2"]
    log = chart("m", [(0, 1e-3), (1, 1.0)], 12, 6, x_labels=("0", "1"))
    assert log == ["m           ", "    1 ┤   ⢀⠎", "      │  ⢠⠊ ", "  log ┤ ⡠⠃  ", "0.001 ┤⡰⠁   ", "       0   1"]
