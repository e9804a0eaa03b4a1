"""The page on the format of points says what is so: its lines of NumPy read them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from kit.payloads import Run, Tracker

from dbnd_tracker._storage.database import open_database
from dbnd_tracker._storage.upkeep.sealing import seal_all

PAGE = Path(__file__).parents[1] / "docs/storage-format.md"
VALUES = [0.5, math.nan, 3, 2**60 + 1, "text", -math.inf, *(i / 7 for i in range(5_000))]


def test_the_lines_of_the_page_read_what_was_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code.count("\n") <= 25
    database = open_database(str(tmp_path / "tracker.db"))
    tracker = Tracker(database)
    run = Run()
    task = run.task()
    tracker.call("init_run", run.init())
    tracker.call("add_task_runs", run.add(task))
    points = [task.metric("loss", value_json=value, step=3 * i) for i, value in enumerate(VALUES)]
    tracker.call("log_metrics", task.metrics(*points))
    tracker.call("set_run_state", run.state("SUCCESS"))
    assert seal_all(database) == len(VALUES)
    database.close()

    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)

    assert capsys.readouterr().out.split()[:4] == ["loss", "1", "4096", str(3 * 4095)]
    unpack, connection = names["unpack"], names["database"]
    [data] = connection.execute("SELECT data FROM segments WHERE first = 1").fetchone()  # type: ignore[attr-defined]
    flags, step, time, value, texts = unpack(data, 4096)  # type: ignore[operator]
    assert flags.tolist()[:6] == [0, 16, 1, 19, 18, 0]
    assert step.tolist() == [3 * i for i in range(4096)]
    assert set(time.tolist()) == {1_772_600_767_000_008}
    assert value.tolist()[6:] == [i / 7 for i in range(4090)]
    assert (value[0], value[2], value[5]) == (0.5, 3.0, -math.inf)
    assert texts == [str(2**60 + 1), "text"]
    connection.close()  # type: ignore[attr-defined]
