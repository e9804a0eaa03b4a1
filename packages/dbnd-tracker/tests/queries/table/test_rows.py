"""Runs and the task runs nested in them as rows: what is found, by what names, and with whose values."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy import event

from dbnd_tracker._queries.language.expressions import Field, QueryError
from dbnd_tracker._queries.language.grammar import MAX_DEPTH, MAX_WORDS, parse_expression, parse_query
from dbnd_tracker._queries.table.run_table import list_runs, nested_table, parse_order, run_table
from dbnd_tracker._queries.table.suggestions import known_values

IDS = ("aa11" + "0" * 28, "ab22" + "0" * 28, "ab33" + "0" * 28)
NAMES = ("gentle-fox-1", "trial", "trial")


@pytest.fixture
def sweep(tracker: Any, make_run: Any) -> Any:
    """A run whose root is an MLflow run, with two MLflow runs nested in it, which have losses; and another run."""
    run = make_run(name="mild_godel", job="sweep")
    trials = [run.task("trial"), run.task("trial")]
    tracker.call("init_run", run.init())
    tracker.call("add_task_runs", run.add(*trials))
    for task, run_id, name in zip((run.root, *trials), IDS, NAMES, strict=True):
        url = f"http://mlflow/#/experiments/7/runs/{run_id}"
        links = {"task_run_attempt_uid": task.attempt, "external_links_dict": {"mlflow": url}}
        tracker.call("save_external_links", links)
        tracker.call("log_metric", task.metric("mlflow.runName", "mlflow.tag", value_str=name))
        tracker.call("log_metric", task.metric("dbnd.experiment", "mlflow.tag", value_str="wine"))
    for number, task in enumerate(trials):
        losses = [
            task.metric("loss", value_float=value, step=step) for step, value in enumerate((5.0, 1.0, number + 2.0))
        ]
        tracker.call("log_metrics", task.metrics(*losses, task.metric("lr", "mlflow.param", value_str="0.1")))
    tracker.call("log_metric", run.root.metric("best", value_float=0.9))
    tracker.call("log_metric", trials[1].metric("dbnd.lifecycle_stage", "mlflow.tag", value_str="deleted"))
    tracker.call("init_run", make_run(name="other", job="other").init())
    tracker.sweep = run, trials
    return tracker


def rows(tracker: Any, query: str, sort: str = "-started", columns: tuple[str, ...] = ()) -> list[Any]:
    asked, (order, descending) = parse_query(query), parse_order(sort)
    conditions = [parse_expression(text) for text in asked.conditions]
    fields = [field for text in columns if (field := Field.parse(text))]
    with tracker.database.read() as session:
        found = list_runs(session, *conditions, search=asked.words, order=order, descending=descending, columns=fields)
    return found.data


def test_a_row_is_tested_by_its_own_values_and_shows_them(sweep: Any) -> None:
    run, trials = sweep.sweep
    (row,) = rows(
        sweep, "metrics.loss < 2.5", columns=("metrics.loss", "min:metrics.loss", "max:metrics.loss", "params.lr")
    )
    assert (row.uid, row.run_uid, row.name, row.nested_in) == (trials[0].uid, run.uid, "trial", ["mild_godel"])
    assert row.values == {"metrics.loss": 2.0, "min:metrics.loss": 1.0, "max:metrics.loss": 5.0, "params.lr": "0.1"}
    assert [found.uid for found in rows(sweep, "metrics.best > 0")] == [run.uid]
    assert rows(sweep, "metrics.best > 0 and metrics.loss > 0") == []
    assert [found.uid for found in rows(sweep, "mild metrics.loss > 0", "metrics.loss")] == [
        task.uid for task in trials
    ]


@pytest.mark.parametrize("sort", ["-started", "started", "name", "-metrics.loss"])
def test_pages_turn_through_runs_and_what_is_nested_in_them(sweep: Any, sort: str) -> None:
    run, trials = sweep.sweep
    wanted = parse_expression("metrics.loss > 0 or metrics.best > 0")
    order, descending = parse_order(sort)
    with sweep.database.read() as session:

        def turn(**place: Any) -> Any:
            return run_table(session, wanted, order=order, descending=descending, **place)

        uids = [row.uid for row in turn().rows]
        assert sorted(uids) == sorted([run.uid, *(task.uid for task in trials)])
        forwards = [turn(limit=1)]
        while forwards[-1].has_next:
            forwards.append(turn(limit=1, after=forwards[-1].rows[-1].uid))
        assert [row.uid for page in forwards for row in page.rows] == uids
        assert {page.total for page in forwards} == {3}
        back = turn(limit=1, before=uids[-1])
        assert ([row.uid for row in back.rows], back.has_previous, back.has_next) == ([uids[1]], True, True)
        assert [row.uid for row in turn(limit=2, offset=1).rows] == uids[1:]


def test_sorted_by_what_was_logged_rows_with_a_value_come_first_and_runs_without_one_last(sweep: Any) -> None:
    _, trials = sweep.sweep
    for sort, uids in (("metrics.loss", trials), ("-metrics.loss", trials[::-1]), ("best:metrics.loss", None)):
        found = rows(sweep, "", sort)
        # The sweep itself has no loss, and what is nested in it stands for it.
        assert [row.nested_in for row in found] == [["mild_godel"], ["mild_godel"], []]
        assert uids is None or [row.uid for row in found[:2]] == [task.uid for task in uids]


def test_runs_are_found_by_mlflows_names_ids_and_experiments(sweep: Any, make_run: Any) -> None:
    run, trials = sweep.sweep
    uids = {task.uid for task in trials}
    for query, expected in {
        "name = 'gentle-fox-1'": {run.uid},
        "gentle": {run.uid},
        "wine": {run.uid},
        "experiment = wine": {run.uid},
        "experiment != wine": {"other"},
        "name = trial": uids,
        "trial": uids,
        "aa11": {run.uid},
        "AB2": set(),
        "ab22": {trials[0].uid},
        f"mlflow_run_id = {IDS[2]}": {trials[1].uid},
        "mlflow_run_id like 'ab%'": uids,
        "mlflow_run_id != 'x' and name ilike 'TRIAL'": uids,
        "mlflow_run_id is null and name = 'other'": {"other"},
    }.items():
        assert {row.uid if row.run_uid == run.uid else row.name for row in rows(sweep, query)} == expected, query
    # A run that began while MLflow's store was away is found by both of its ids.
    first = "c" * 12 + "8" + "c" * 3 + "8" + "c" * 15
    late = make_run(name="late", uid=str(uuid.UUID(first)))
    late.root.uid = late.uid
    sweep.call("init_run", late.init())
    url = "http://mlflow/#/experiments/7/runs/" + "d" * 32
    sweep.call(
        "save_external_links", {"task_run_attempt_uid": late.root.attempt, "external_links_dict": {"mlflow": url}}
    )
    other = trials[0].metric("dbnd.first_run_id", "mlflow.tag", value_str="e" * 32)
    sweep.call("log_metric", other)
    for run_id, uid in ((first, late.uid), ("d" * 32, late.uid), ("d" * 9, late.uid), ("e" * 32, trials[0].uid)):
        sign = "=" if len(run_id) == 32 else "like"
        assert [row.uid for row in rows(sweep, f"mlflow_run_id {sign} '{run_id}{'%' if sign == 'like' else ''}'")] == [
            uid
        ]
    # A word of three characters is too short to mean an id.
    for word in ("cccc", first, late.uid, late.uid[:12]):
        assert [row.uid for row in rows(sweep, word)] == [late.uid], word
    assert rows(sweep, "ccc") == []


@pytest.mark.parametrize("sort", ["name", "-metrics.loss", "started"])
def test_a_page_follows_a_row_that_is_none_of_those_found_any_more(tracker: Any, make_run: Any, sort: str) -> None:
    runs = [make_run(name=f"r{number}") for number in range(6)]
    for number, run in enumerate(runs):
        tracker.call("init_run", run.init(start_time=f"2026-03-04T05:0{number}:00Z"))
        tracker.call("log_metric", run.root.metric("loss", value_float=-float(number)))
    order, descending = parse_order(sort)
    running = parse_expression("state = running")
    seen: list[str] = []
    with tracker.database.read() as session:
        page = list_runs(session, running, order=order, descending=descending, limit=2)
    while True:
        seen += [row.name for row in page.data]
        if page.meta.after is None:
            break
        tracker.call("set_run_state", {"run_uid": page.meta.after, "state": "SUCCESS", "timestamp": None})
        with tracker.database.read() as session:
            page = list_runs(session, running, order=order, descending=descending, limit=2, after=page.meta.after)
    assert seen == [run.name for run in runs]


def test_words_are_found_in_any_case_and_script(tracker: Any, make_run: Any) -> None:
    for name in ("Über Modelle", "МОДЕЛЬ"):
        tracker.call("init_run", make_run(name=name).init())
    for word, name in (("Über", "Über Modelle"), ("über", "Über Modelle"), ("Модель", "МОДЕЛЬ"), ("модел", "МОДЕЛЬ")):
        assert [row.name for row in rows(tracker, word)] == [name], word
        with tracker.database.read() as session:
            assert known_values(session, "name", word, 5) == [name]


def test_many_words_and_ids_are_one_question_or_refused(sweep: Any) -> None:
    run, _ = sweep.sweep
    assert [row.uid for row in rows(sweep, f"mlflow_run_id in ({IDS[0]},{','.join(map(str, range(2000)))})")] == [
        run.uid
    ]
    words = [f"w{number}" for number in range(MAX_WORDS)]
    assert rows(sweep, " ".join(words * 2)) == []
    with pytest.raises(QueryError, match="more than 30 words"):
        rows(sweep, " ".join([*words, "x"]))


@pytest.mark.parametrize(
    ("opened", "depth"),
    [("name like 'a%' or not (state = failed or not (", 4), ("(job = a or (job != b and ", 2), ("not not ", 2)],
)
def test_the_deepest_condition_is_answered(sweep: Any, opened: str, depth: int) -> None:
    count = MAX_DEPTH // depth - 1
    condition = f"{opened * count} experiment != wine {')' * opened.count('(') * count}"
    assert [row.name for row in rows(sweep, f"({condition})")] == ["other"]


def test_a_run_shows_what_is_nested_in_it_and_what_mlflow_has_deleted(sweep: Any) -> None:
    run, trials = sweep.sweep
    (top,) = rows(sweep, "job = sweep")
    assert (top.mlflow_run_name, top.mlflow_run_id, top.has_nested) == (NAMES[0], IDS[0], True)
    assert [row.has_nested for row in rows(sweep, "job = other")] == [False]
    with sweep.database.read() as session:
        found = nested_table(session, run.uid, limit=10)
        assert found is not None
        assert {row.uid for row in found[1].rows} == {task.uid for task in trials}
        assert {row.uid for row in found[1].rows if row.is_deleted_in_mlflow} == {trials[1].uid}
        second = nested_table(session, run.uid, limit=1, offset=1)
        assert second is not None
        assert (len(second[1].rows), second[1].total, second[1].has_next) == (1, 2, False)
        assert nested_table(session, "none", limit=1) is None


@pytest.mark.alike
def test_addresses_of_mlflow_runs_lead_to_their_pages(sweep: Any, server: Any) -> None:
    run, trials = sweep.sweep
    for start, place in ((IDS[0][:6], run.uid), (IDS[1], f"{run.uid}/{trials[0].uid}")):
        answer = server.get(f"/app/mlflow/{start}", allow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["Location"].endswith(f"/sweep/{place}")
    several = server.get("/app/mlflow/ab")
    assert (several.status_code, several.text.count('<tr id="run-')) == (200, 2)
    unknown = server.get("/app/mlflow/ffff")
    assert unknown.status_code == 404
    assert 'href="/"' in unknown.text
    long = trials[0].metric("note", source="mlflow.param", value_str="x" * 100_000)  # nobody chooses it from a list
    assert sweep.call("log_metrics", trials[0].metrics(long)) == {}
    assert server.get("/app/values", params={"name": "params.note"}).json() == []
    assert server.get("/app/values", params={"name": "params.lr"}).json() == ["0.1"]
    assert server.get("/app/values", params={"name": "experiment", "start": "W"}).json() == ["wine"]
    assert server.get("/app/values", params={"name": "metrics.loss"}).json() == []
    compared = server.get("/api/v1/runs/compare", params={"run_uid": [task.uid for task in trials]}).json()
    losses = next(row["values"] for row in compared["data"] if row["name"] == "loss")
    assert losses == {trials[0].uid: 2.0, trials[1].uid: 3.0}


@pytest.mark.parametrize(
    ("text", "words", "conditions"),
    [
        ("", [], []),
        ('wine "two words"', ["wine", "two words"], []),
        ("wine metrics.loss < 0.5 and params.lr = 0.1", ["wine"], ["metrics.loss < 0.5 and params.lr = 0.1"]),
        ("metrics.loss<1 wine not (params.`a b` = x)", ["wine"], ["metrics.loss<1", "not (params.`a b` = x)"]),
        ("wine params.x in (1, 2) not  not (x)", ["wine", "not", "(x)"], ["params.x in (1, 2)"]),
        ("made in china and more", ["made", "in", "china", "and", "more"], []),
    ],
)
def test_one_line_holds_words_and_conditions(text: str, words: list[str], conditions: list[str]) -> None:
    assert parse_query(text) == (words, conditions)


def test_names_are_looked_up_once(sweep: Any) -> None:
    asked: list[str] = []
    with sweep.database.read() as session:
        event.listen(session.get_bind(), "before_cursor_execute", lambda *args: asked.append(args[2]))
        found = list_runs(session, parse_expression("name = 'trial'"))
    assert found.meta.total == 2
    assert sum(statement.count("task_runs.name = ") for statement in asked) == 1


def test_of_attempts_that_have_no_numbers_the_last_one_counts(tracker: Any, make_run: Any) -> None:
    run = make_run()
    tracker.call("init_run", run.init())
    for value, experiment in ((1.0, "old"), (9.0, "new")):
        (update,) = run.root.update("RUNNING")["task_run_attempt_updates"]
        run.root.attempt = update["task_run_attempt_uid"] = str(uuid.uuid4())
        tracker.call("update_task_run_attempts", {"task_run_attempt_updates": [update]})
        named = run.root.metric("mlflow.runName", "mlflow.tag", value_str=f"trial {value}")
        tagged = run.root.metric("dbnd.experiment", "mlflow.tag", value_str=experiment)
        tracker.call("log_metrics", run.root.metrics(named, tagged, run.root.metric("loss", value_float=value)))
    for query in ("metrics.loss < 5", "name = 'trial 1.0'", "name in ('trial 1.0', 'x')", "1.0", "OLD"):
        assert rows(tracker, query) == []
    for query in ("metrics.loss > 5", "name = 'trial 9.0'", "name != 'trial 1.0'", "9.0", "new", "TRIAL"):
        assert [row.uid for row in rows(tracker, query)] == [run.uid]


def test_what_is_equal_in_all_that_is_sorted_by_keeps_its_order(tracker: Any, make_run: Any) -> None:
    runs = [make_run(), make_run(), make_run()]
    for run in runs:
        tracker.call("init_run", run.init())
    for sort in ("name", "metrics.loss"):
        before = [row.uid for row in rows(tracker, "", sort)]
        tracker.call("set_run_state", runs[0].state("CANCELLED", None))  # PostgreSQL puts a changed row elsewhere
        tracker.call("heartbeat", {"run_uid": runs[1].uid})
        assert [row.uid for row in rows(tracker, "", sort)] == before


def test_a_param_without_a_value_is_null(tracker: Any, make_run: Any) -> None:
    run = make_run()
    param = {"parameter_name": "lr", "value": None, "value_origin": "default"}
    info = run.root.info(is_root=True, task_run_params=[param])
    tracker.call("init_run", run.init())
    tracker.call("add_task_runs", {"task_runs_info": run.infos(info)})
    assert [row.uid for row in rows(tracker, "params.lr is null")] == [run.uid]
    assert rows(tracker, "params.lr is not null") == []


def test_what_has_not_started_is_found_by_the_start_that_it_shows(tracker: Any) -> None:
    run, task = tracker.started()
    (row,) = rows(tracker, f"task_run_uid = {task.uid}")
    assert row.start_time == tracker.run(run).start_time
    for condition in ("start_time >= 2026-03-04", "start_time is not null"):
        assert rows(tracker, f"task_run_uid = {task.uid} and {condition}") == [row]


@pytest.mark.parametrize(
    ("condition", "found"),
    [("experiment != 'wine'", "beer tea"), ("experiment not in ('wine', 'tea')", "beer"),
     ("experiment not ilike 'W%'", "beer tea"), ("not (experiment = 'wine')", "beer tea none"),
     ("experiment is null", "none"), ("experiment is not null", "wine beer tea")],
)  # fmt: skip
def test_who_is_in_an_experiment_of_mlflow_is_in_one(tracker: Any, make_run: Any, condition: str, found: str) -> None:
    for name, project in (("wine", None), ("beer", None), ("tea", "tea"), ("none", None)):
        run = make_run(name=name)
        tracker.call("init_run", run.init(project_name=project))
        if name in ("wine", "beer"):
            tracker.call("log_metric", run.root.metric("dbnd.experiment", "mlflow.tag", value_str=name))
    assert {row.name for row in rows(tracker, condition)} == {*found.split()}


def test_the_case_of_ids_counts_in_patterns(sweep: Any) -> None:
    assert len(rows(sweep, f"mlflow_run_id like '{IDS[0][:6]}%'")) == 1
    assert rows(sweep, f"mlflow_run_id like '{IDS[0][:6].upper()}%'") == []
