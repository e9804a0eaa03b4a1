"""``dbnd runs``: filters, comparison, export, pages and deletion, on every kind of tracker."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from sqlalchemy import func, select

from dbnd._base.errors import DatabandError, UsageError
from dbnd.plugins import plain
from dbnd_tracker._cli.references import complete_run
from dbnd_tracker._cli.runs import runs
from dbnd_tracker._errors import RemoteError, TrackerError
from dbnd_tracker._queries.language.expressions import QueryError
from dbnd_tracker._queries.language.grammar import parse_filter
from dbnd_tracker._queries.table.run_table import list_runs
from dbnd_tracker._storage import models as models
from dbnd_tracker._storage.points.models import Metric, Segment

TABLES = (
    *(models.Run, models.TaskRun, models.Attempt, models.TaskDefinition, models.TaskRelation, models.Param, models.Tag),
    *(models.MetricSeries, Metric, Segment, models.Artifact, models.Target, models.DatasetOperation),
)


def invoke(*arguments: str, input_: str | None = None) -> Result:
    result = CliRunner().invoke(runs, arguments, input=input_)
    if isinstance(result.exception, DatabandError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def names(*arguments: str) -> list[str]:
    """Names of the runs that are listed, or that what is listed is nested in."""
    rows = json.loads(invoke("list", "--json", *arguments).stdout)
    return [*dict.fromkeys((*row["nested_in"], row["name"])[0] for row in rows)]


def fill(tracker: Any, make_run: Any) -> dict[str, Any]:
    """Three runs: a day, a week and a month old, with metrics, params and tags."""
    made = {}
    for name, days, loss, rate, team in (("young", 1, 0.125, "0.1", "a"), ("week", 7, 0.5, "1e-3", "b")):
        run = make_run(name=name, job="etl")
        task = run.task()
        start = (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()
        tracker.call("init_run", run.init(start_time=start, user=f"user {name}", project_name=f"p {name}"))
        tracker.call("add_task_runs", run.add(task))
        points = [task.metric("loss", value_float=value, step=i) for i, value in enumerate((1.0, math.nan, loss))]
        others = [
            task.metric("note", value_str="fine, thanks"),
            task.metric("rows", value_int=7),
            task.metric("shape", value_json=[1, {"a": None}]),
            task.metric("rate", "mlflow.param", value_str=rate),
            task.metric("team", "mlflow.tag", value_str=team),
        ]
        tracker.call("log_metrics", task.metrics(*points, *others))
        tracker.call("log_artifact", {"task_run_attempt_uid": task.attempt, "name": "model", "path": "s3://b/m"})
        tracker.call("set_run_state", run.state("SUCCESS" if name == "young" else "FAILED"))
        made[name] = run
    old = make_run(name="old", job="report")
    tracker.call("init_run", old.init(start_time=(datetime.now(timezone.utc) - timedelta(days=30)).isoformat()))
    made["old"] = old
    return made


@pytest.fixture
def embedded(home: Path, open_tracker: Callable[[str], Any], make_run: Any) -> Any:
    """The embedded tracker, filled."""
    tracker = open_tracker(str(home / "dbnd" / "tracker.db"))
    tracker.made = fill(tracker, make_run)
    return tracker


@pytest.fixture
def anywhere(configured_tracker: Any, make_run: Any) -> Any:
    """A filled tracker, read directly and through a server."""
    configured_tracker.made = fill(configured_tracker, make_run)
    return configured_tracker


def test_filters(anywhere: Any) -> None:
    assert names() == ["young", "week", "old"]
    assert names("--since", "3d") == ["young"]
    assert names("--since", "2w", "--until", "2d") == ["week"]
    assert names("--since", (datetime.now().astimezone() - timedelta(days=8)).isoformat()) == ["young", "week"]
    assert names("--job", "etl", "--state", "FAILED") == ["week"]
    assert names("--user", "user young") == names("--project", "p young") == ["young"]
    assert names("--name", "%o%") == ["young", "old"]
    for expression, found in {
        "metrics.loss < 0.5": ["young"],
        "metric.loss <= 0.5": ["young", "week"],
        "metrics.loss != 0.125": ["week"],
        "metrics.`loss` > 0.4999": ["week"],
        "metrics.rows = 7.0": ["young", "week"],
        "metrics.note = 'fine, thanks'": ["young", "week"],
        "metrics.note != fine": ["young", "week"],
        "metrics.note > 3": [],
        "metrics.loss < 0.5 and params.rate = 0.1": ["young"],
        "metrics.loss < 0.2 or tags.team = b": ["young", "week"],
        "not (metrics.loss < 0.5 or name = 'old') and params.lr is not null": ["week"],
        "metrics.loss is null and params.lr is null": ["young", "week", "old"],  # their roots log nothing
        "metrics.loss is null and not tags.team in (a, b) and name = 'old'": ["old"],
        "status in (SUCCESS, 'running') and attributes.job like 'e%'": ["young"],
        "params.rate = 0.1": ["young"],
        "params.rate = 0.001": ["week"],
        "params.rate < 0.05": ["week"],
        'params.rate ~ "1e%"': ["week"],
        "params.lr >= 0.1": ["young", "week"],
        "tags.team = a": ["young"],
        "tags.team != a": ["week"],
        "params.nothing = 1": [],
    }.items():
        assert names("--where", expression) == found, expression
    assert names("--where", "metrics.loss < 1", "--where", "tags.team = b") == ["week"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--where", "loss < 1"], "cannot be understood: runs have no 'loss'"),
        (["--where", "metrics.loss < abc"], "compares with a number, and 'abc' is none"),
        (["--where", "metrics.loss <> 1"], "an operator is expected here"),
        (["--where", "metrics.loss < 1", "--where", "metrics.loss < 1 or 1"], "name such as metrics.loss is expected"),
        (["--where", " "], "--where is empty"),
        (["--state", "finished"], "there are scheduled, running, success, failed, shutdown, cancelled, lost"),
        (["--since", "0001-01-01T00:00+05:00"], "neither an age"),
        (["--since", "yesterday"], "neither an age"),
        (["--since", "99999999999999w"], "neither an age"),
    ],
)
def test_filters_that_cannot_be_understood(embedded: Any, arguments: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        invoke("list", *arguments)


@pytest.mark.parametrize("arguments", [["--where", "metrics.loss <"], ["metrics.loss <"]])
def test_the_place_of_what_is_wrong_is_shown_below_it(embedded: Any, arguments: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        invoke("list", *arguments)
    _, shown, caret = plain(caught.value.args[0]).split("\n")
    assert (shown, caret.index("^")) == ("  metrics.loss <", len(shown))


def test_conditions_of_the_read_api_that_do_not_exist() -> None:
    for (name, operator, value), sentence in {
        ("metrics.loss", "startswith", "0"): "an operator is expected",
        ("start_time", "eq", "2026-01-01"): "does not exist for times",
        ("start_time", "lt", "soon"): "is no time in ISO 8601",
        ("metrics.", "lt", "1"): "a name is expected",
        ("shoe size", "eq", "1"): "runs have no 'shoe size'",
    }.items():
        with pytest.raises(QueryError, match=sentence):
            parse_filter(json.dumps([{"name": name, "op": operator, "val": value}]))


def test_times_of_the_read_api(embedded: Any) -> None:
    for moment in ("2100-01-01", "2100-01-01T00:00:00Z", "2100-01-01T00:00:00+02:00"):
        with embedded.database.read() as session:
            wanted = parse_filter(json.dumps([{"name": "start_time", "op": "lt", "val": moment}]))
            assert len(list_runs(session, wanted).data) == 3


def test_lists_are_searched_sorted_and_have_columns(anywhere: Any) -> None:
    assert names("week", "metrics.loss > 0") == ["week"]
    assert names("--sort", "metrics.loss") == ["young", "week", "old"]
    assert names("--sort", "-metrics.loss") == ["week", "young", "old"]
    lines = invoke("list", "metrics.loss < 0.3", "--columns", "max:metrics.loss,params.rate").stdout.splitlines()
    assert lines[0].split()[-2:] == ["max:loss", "rate"]
    assert lines[1].split()[-2:] == ["1", "0.1"]
    assert "loss" in invoke("list", "--sort", "metrics.loss").stdout.splitlines()[0]
    for arguments, sentence in (
        (["--sort", "shoe"], "cannot be sorted by 'shoe'"),
        (["--columns", "shoe"], "no column 'shoe'"),
        (["shoe < 1"], "runs have no 'shoe'"),
    ):
        with pytest.raises(UsageError, match=sentence):
            invoke("list", *arguments)


def test_a_narrow_list_has_what_is_asked_for_and_no_half_of_a_time(embedded: Any, terminal: Any) -> None:
    shown = terminal("runs", "list", "--columns", "metrics.loss,max:metrics.loss,params.rate,tags.team", columns=80)
    assert shown.end() == 0
    head, *rows = shown.lines
    assert head.split() == ["RUN", "NAME", "JOB", "STATE", "USER", "loss", "max:loss", "rate", "team"]
    assert rows[0].split()[-4:] == ["0.125", "1", "0.1", "a"]


def test_what_is_nested_in_a_run_is_shown_and_not_deleted(anywhere: Any) -> None:
    rows = json.loads(invoke("list", "--json", "young metrics.loss < 0.3").stdout)
    uid = rows[0]["task_run_uid"]
    lines = invoke("show", uid[:13]).stdout.splitlines()
    assert lines[:3] == ["Run: train", "Nested in: young", f"Uid: {uid}"]
    (exported,) = json.loads(invoke("export", uid).stdout)
    assert [task["task_run_uid"] for task in exported["task_runs"]] == [uid]
    with pytest.raises(UsageError, match="only whole runs can be deleted"):
        invoke("delete", "-y", uid)


def test_the_tree_says_of_which_task_run_another_one_follows(embedded: Any, make_run: Any) -> None:
    run = make_run(name="forest")
    outer = [run.task("outer"), run.task("outer")]
    embedded.call("init_run", run.init())
    embedded.call("add_task_runs", run.add(*outer))
    for each in outer:
        embedded.call("add_task_runs", run.add(run.task("inner"), run.task("inner"), parent=each))
    lines = invoke("show", "forest").stdout.splitlines()
    assert [line.removesuffix("scheduled").rstrip() for line in lines if "── " in line] == [
        "├── outer",
        "│   ├── inner",
        "│   └── inner",
        "└── outer",
        "    ├── inner",
        "    └── inner",
    ]


def test_comparison(anywhere: Any) -> None:
    text = invoke("compare", "young", "week").stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "rate 0.1 1e-3" in lines
    assert "loss 0.125 0.5" in lines
    assert "state success failed" in lines
    assert not any(line.startswith("lr ") for line in lines)
    assert "1 params are the same in all; --all shows them." in lines
    assert any(line.startswith("lr ") for line in invoke("compare", "young", "week", "--all").stdout.splitlines())
    found = json.loads(invoke("compare", "young", "week", "old", "--json").stdout)
    assert found["runs"] == [anywhere.made[name].uid for name in ("young", "week", "old")]
    assert found["params"]["rate"] == ["0.1", "1e-3", None]
    assert found["metrics"]["loss"] == [0.125, 0.5, None]
    with pytest.raises(UsageError, match="at least two runs"):
        invoke("compare", "young", anywhere.made["young"].uid)


def test_export(anywhere: Any) -> None:
    (run,) = json.loads(invoke("export", "young").stdout)
    points = {key: points for task in run["task_runs"] for key, points in task["points"].items()}
    assert [point["value"] for point in points["loss"]] == [1.0, "NaN", 0.125]
    assert run["run_uid"] == anywhere.made["young"].uid
    invoke("export", "young", "week", "-o", "points.csv")
    with Path("points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    mine = [row for row in rows if row["run_name"] == "young"]
    assert [row["value"] for row in mine if row["metric"] == "loss"] == ["1.0", "nan", "0.125"]
    assert [row["step"] for row in mine if row["metric"] == "loss"] == ["0", "1", "2"]
    texts = {row["metric"]: row["text"] for row in mine if row["text"]}
    assert texts == {"note": "fine, thanks", "shape": '[1, {"a": null}]'}
    assert {row["timestamp"] for row in mine} == {"2026-03-04T05:06:07+00:00"}
    assert {row["task"] for row in mine} == {"train"}


def test_export_to_parquet(embedded: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    done = invoke("export", "young", "week", "-o", "points.parquet")
    assert "with 12 points" in done.stderr
    table = parquet.read_table("points.parquet").to_pydict()
    invoke("export", "young", "week", "-o", "points.csv")
    with Path("points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert table["metric"] == [row["metric"] for row in rows]
    assert [str(float(row["value"])) if row["value"] else "None" for row in rows] == [str(v) for v in table["value"]]
    assert table["timestamp"][0] == datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc)


def test_exports_that_cannot_be(embedded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="Parquet needs a file"):
        invoke("export", "young", "--format", "parquet")
    with pytest.raises(TrackerError, match="cannot be written: No such file or directory"):
        invoke("export", "young", "-o", "nowhere/points.csv")
    Path("points.csv").write_text("precious")
    monkeypatch.setattr("dbnd_tracker._reader.DatabaseReader.points", lambda *_: 1 / 0)
    assert isinstance(CliRunner().invoke(runs, ["export", "young", "-o", "points.csv"]).exception, ZeroDivisionError)
    assert Path("points.csv").read_text() == "precious"
    assert list(Path().glob("*.part")) == []


def rows_of(tracker: Any) -> dict[str, int]:
    with tracker.database.read() as session:
        return {table.__tablename__: session.scalar(select(func.count()).select_from(table)) for table in TABLES}


def test_deletion(anywhere: Any) -> None:
    before = rows_of(anywhere)
    assert invoke("delete", "young", "--yes").stderr.startswith("dbnd: Deleted young (")
    assert names() == ["week", "old"]
    with pytest.raises(UsageError, match="There is no run 'young'"):
        invoke("delete", "young", "--yes")
    after = rows_of(anywhere)
    assert after["metrics"] == before["metrics"] - 6
    assert after["params"] == before["params"] - 2
    assert json.loads(invoke("show", "week", "--json").stdout)["task_runs"][1]["metrics"]
    uids = [anywhere.made[name].uid for name in ("week", "old")]
    assert json.loads(invoke("delete", "week", "old", "--yes", "--force", "--json").stdout) == {"deleted": uids}
    assert set(rows_of(anywhere).values()) == {0}


def test_deletion_asks(embedded: Any) -> None:
    for answer in ("n\n", "\n"):
        with pytest.raises(TrackerError, match="Nothing was deleted"):
            invoke("delete", "young", input_=answer)
    with pytest.raises(UsageError, match="add --yes"):
        invoke("delete", "young", input_="")
    with pytest.raises(UsageError, match=r"The run old .* still goes on"):
        invoke("delete", "old", "--yes")
    assert names() == ["young", "week", "old"]
    done = invoke("delete", "young", "week", input_="y\n")
    assert "Delete young (" in done.stderr
    assert names() == ["old"]


def test_the_page_of_a_run(embedded: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = embedded.made["young"].uid
    monkeypatch.setenv("DBND__TRACKER__PORT", "9")
    with pytest.raises(RemoteError, match="start one with `dbnd tracker start`") as caught:
        invoke("open", "young")
    assert f"http://localhost:9/app/jobs/etl/{uid}" in str(caught.value)
    server = serve(embedded.database)
    port = server.url.rpartition(":")[2]
    monkeypatch.setenv("DBND__TRACKER__PORT", port)
    assert invoke("open", "young").stdout == f"http://localhost:{port}/app/jobs/etl/{uid}\n"
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", server.url.replace("//", "//user:hunter2@"))
    shown = json.loads(invoke("open", "young", "--json").stdout)
    assert shown == {"url": f"{server.url}/app/jobs/etl/{uid}"}
    assert requests.get(shown["url"], timeout=30).ok


def test_runs_are_completed(anywhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(text: str) -> list[str]:
        return [item.value for item in complete_run(None, None, text)]  # type: ignore[arg-type]

    uids = [anywhere.made[name].uid[:8] for name in ("young", "week", "old")]
    assert completed("") == ["latest", *uids]
    assert completed("la") == ["latest"]
    assert completed(uids[1]) == [uids[1]]
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", "http://127.0.0.1:9")
    assert completed("") == []


def test_ctrl_c_at_a_question_is_no_answer(embedded: Any, terminal: Any) -> None:
    shown = terminal("runs", "delete", "young", columns=200)
    shown.wait_for(lambda lines: any("for good? [y/N]" in line for line in lines))
    # Python prints the question and then reads: a signal in between is heard when something is read.
    time.sleep(1)
    shown.type(b"\x03")
    assert shown.end() == 130
    assert shown.lines[-1] == "dbnd: error: Interrupted."
    assert "young" in names()
    del embedded
