"""Conditions on runs: their language, what it refuses and where, and that all databases and all places agree."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.clock import processor_time
from kit.scale import scaled

from dbnd_tracker._queries.language.expressions import (
    Attribute,
    Both,
    Comparison,
    Either,
    Field,
    Not,
    QueryError,
    as_number,
    comparison,
    is_like,
)
from dbnd_tracker._queries.language.grammar import MAX_COMPARISONS, MAX_DEPTH, MAX_LENGTH, parse_expression, parse_query
from dbnd_tracker._queries.table.run_table import list_runs
from dbnd_tracker._views import RunRow

LOSS = Comparison(Field("metrics", "loss"), "<", ("0.5",))
RATE = Comparison(Field("params", "lr"), "=", ("0.1",))
NAME = Comparison(Attribute("name"), "=", ("a",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.loss < 0.5", LOSS),
        ("metric.`loss`<'0.5'", LOSS),
        ('METRICS.loss < 0.5 AND parameters.lr == "0.1"', Both((LOSS, RATE))),
        ("metrics.loss < 0.5 or params.lr = 0.1 and name = a", Either((LOSS, Both((RATE, NAME))))),
        ("(metrics.loss < 0.5 or params.lr = 0.1) and name = a", Both((Either((LOSS, RATE)), NAME))),
        ("not not(name=a)", Not(Not(NAME))),
        ("attributes.run_name = a", NAME),
        ("run.name = a", NAME),
        ("tags.team ~ a%", Comparison(Field("tags", "team"), "like", ("a%",))),
        ("tags.t NOT ILIKE '%x'", Comparison(Field("tags", "t"), "not ilike", ("%x",))),
        ("params.x not in (1, 'b c', \"d,)\")", Comparison(Field("params", "x"), "not in", ("1", "b c", "d,)"))),
        ("params.x is  not\tnull", Comparison(Field("params", "x"), "is not null", ())),
        ("status = FAILED", Comparison(Attribute("state"), "=", ("failed",))),
        ("params.x = 'it''s \"so\"'", Comparison(Field("params", "x"), "=", ('it\'s "so"',))),
        ("params.shape = (1,2)", Comparison(Field("params", "shape"), "=", ("(1,2)",))),
        ("(params.f(x) = g(1,(2)))", Comparison(Field("params", "f(x)"), "=", ("g(1,(2))",))),
        ('metrics."val/loss < 1" = 1e-3', Comparison(Field("metrics", "val/loss < 1"), "=", ("1e-3",))),
        ("metrics.order.in > -5", Comparison(Field("metrics", "order.in"), ">", ("-5",))),
    ],
)
def test_the_language(text: str, expected: Any) -> None:
    assert parse_expression(text) == expected


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("metrics.loss < abc", 15, "compares with a number"),
        ("metrics.loss < nan", 15, "compares with a number"),
        ("metrics.loss < 1 or 1", 20, "a name such as metrics.loss"),
        ("metrics.loss < 1 or loss", 20, "runs have no 'loss'"),
        ("metrics.loss < 1 params.a = 1", 17, "`and`, `or` or the end"),
        ("metrics.loss <", 14, "a value is expected"),
        ("metrics.loss < and params.lr = 1", 15, "a value is expected"),
        ("metrics.loss <> 1", 13, "an operator is expected"),
        ("metrics.loss between 1 and 2", 13, "an operator is expected"),
        ("metric.loss = '1", 14, "is not closed"),
        ("metrics. < 1", 8, "a name is expected"),
        ("metric_s.a < 1", 0, "none of metrics, params, tags"),
        ("(metrics.loss < 1", 0, "this `(` is not closed"),
        ("(metrics.loss < 1 name = a)", 18, "`)` is expected"),
        ("metrics.loss < 1)", 16, "`and`, `or` or the end"),
        ("params.x in 1", 12, "a list of values"),
        ("params.x in ()", 13, "a value is expected"),
        ("params.x in (1, 2", 17, "`,` or `)`"),
        ("status = finished", 9, "there is no state 'finished'"),
        ("state in (failed, done)", 18, "there is no state 'done'"),
        ("start_time > yesterday", 13, "is no time in ISO 8601"),
        ("start_time > 0001-01-01T00:00+01:00", 13, "is no time in ISO 8601"),
        ("start_time > 99999999999999999999", 13, "is no time in ISO 8601"),
        ("start_time > 9999999999999999", 13, "is no time in ISO 8601"),
        ("start_time like '2026%'", 11, "does not exist for times"),
        ("name < a", 5, "does not exist for name"),
        ("attributes.colour = red", 11, "runs have no 'colour'"),
        ("and", 0, "runs have no 'and'"),
        ("not", 3, "a name such as"),
        ("\u6f22\u5b57", 0, "a name such as"),
    ],
)
def test_what_cannot_be_understood_is_said_with_its_place(text: str, place: int, reason: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_expression(text)
    sentence, shown, caret = str(caught.value).split("\n")
    assert sentence.startswith("The condition cannot be understood: ")
    assert reason in sentence
    assert (shown, caret) == (f"  {text}", "  " + " " * place + "^")


def test_the_place_is_shown_also_in_a_long_condition() -> None:
    text = " or ".join(["params.\u6f22 = 1"] * 20 + ["params.x ="])
    with pytest.raises(QueryError) as caught:
        parse_expression(text)
    _, shown, caret = str(caught.value).split("\n")
    assert shown.startswith("  …")
    assert shown.endswith("params.x =")
    assert len(shown) < 80
    assert len(caret) > len(shown)  # wide characters stand before it


@pytest.mark.parametrize(
    "text",
    [
        "x" * (MAX_LENGTH + 1),
        " or ".join(["name = a"] * (MAX_COMPARISONS + 1)),
        "(" * (MAX_DEPTH + 1) + "name = a" + ")" * (MAX_DEPTH + 1),
        "not " * 2000 + "name = a",
        "(" * 9000,
        "name = '" + "''" * 4000 + "x",
    ],
)
def test_long_and_deep_conditions_are_refused(text: str) -> None:
    with pytest.raises(QueryError):
        parse_expression(text)
    assert parse_expression("(" * MAX_DEPTH + "name = a" + ")" * MAX_DEPTH) == NAME
    assert parse_expression("  ") is None


@given(text=st.text("abnotrdm.(),=<>~'\"`%_ 0", max_size=25) | st.text(max_size=25))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    with suppress(QueryError):
        assert parse_expression(text) or not text.strip()


def _model(text: str, pattern: str) -> bool:
    """Whether ``text`` is like ``pattern``, as slowly and plainly as can be."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(_model(text[i:], pattern[1:]) for i in range(len(text) + 1))
    return bool(text) and pattern[0] in {"_", text[0]} and _model(text[1:], pattern[1:])


_LETTERS = st.text("ab", max_size=9)
_PATTERNS = st.text("ab%_", max_size=8)


@settings(max_examples=scaled(200, 2000))
@given(text=_LETTERS, pattern=_PATTERNS)
def test_like_is_what_the_model_says(text: str, pattern: str) -> None:
    assert is_like(text, pattern) is _model(text, pattern)


@pytest.mark.parametrize(
    "pattern", ["%0%0%0%0%0%z", "%0_0%0_0%0_0%z", "%" * 50 + "z", "%_" * 50 + "z", "%0000_000000z%"]
)
def test_like_takes_time_linear_in_the_value(pattern: str) -> None:
    texts = ("0" * 20_000, "0" * 200_000)
    assert not any(is_like(text, pattern) for text in texts)
    short, long = (processor_time(lambda text=text: is_like(text, pattern)) for text in texts)
    assert long < 50 * short + 0.05


@pytest.mark.parametrize("word", ["( ", "\t("])
def test_words_take_time_linear_in_the_query(word: str) -> None:
    texts = (word * 200, word * 2_000)
    short, long = (processor_time(lambda text=text: parse_query(text)) for text in texts)
    assert long < 40 * short


def test_only_what_is_a_number_everywhere_is_one() -> None:
    numbers = {"1e-3": 0.001, "+1": 1.0, " 1 ": 1.0, "inf": math.inf}
    for text, number in numbers.items():
        assert as_number(text) == number
    for text in ("1_0", "2026_03_04", "\u0663", "\uff11", "nan", "0x10", ""):
        assert as_number(text) is None, text


def _run_of(row: RunRow) -> str | None:
    return row.nested_in[0] if row.nested_in else row.name


def test_like_means_the_same_on_every_database_and_of_what_was_logged(tracker: Any, make_run: Any) -> None:
    """Case counts in ``like`` and not in ``ilike``; no character is special but % and _."""
    texts = ["", "a", "A", "ab", "a%b", "a_b", "a*b", "a?b", "[a]", "a\\b", "\u00e9", "\u00c9b", "B-a^", "]["]
    for text in texts:
        run = make_run(name=f"x{text}")
        task = run.task()
        tracker.call("init_run", run.init())
        tracker.call("add_task_runs", run.add(task))
        tracker.call("log_metric", task.metric("p", "mlflow.param", value_str=f"x{text}"))

    @given(pattern=st.lists(st.sampled_from([*texts, "%", "_", "x", "X%", "*", "[", "\\"]), max_size=4).map("".join))
    def check(pattern: str) -> None:
        with tracker.database.read() as session:
            for sign in ("like", "not like", "ilike", "not ilike"):
                found = []
                for operand in (Attribute("name"), Field("params", "p")):
                    wanted = comparison(operand, sign, (pattern,))
                    rows = list_runs(session, wanted, limit=100).data
                    # Neither the tasks by their names, nor the runs by what their roots did not log.
                    found.append(
                        {_run_of(row) for row in rows if (operand == Attribute("name")) != bool(row.nested_in)}
                    )
                is_like_it = {
                    f"x{text}"
                    for text in texts
                    if (_model(f"x{text}".lower(), pattern.lower()) if "ilike" in sign else _model(f"x{text}", pattern))
                    != sign.startswith("not")
                }
                assert found == [is_like_it, is_like_it], (sign, pattern)

    check()


_LEAVES = st.sampled_from(
    [
        "metrics.loss < 2",
        "metrics.loss is null",
        "params.lr != 0.1",
        "tags.team ilike 'A%'",
        "tags.team not in (a, b)",
        "user = ada",
        "user is null",
        "name in (run_0, run_3)",
        "name not like '%_1'",
        "project ilike 'P%'",
        "state = running",
        "state != failed",
        "start_time >= 2026-03-04",
        "end_time is not null",
    ]
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda part: f"({part[0]} {part[1]} {part[2]})")
        | inner.map(lambda part: f"not {part}")
    ),
    max_leaves=5,
)


@pytest.fixture
def five(tracker: Any, make_run: Any) -> Any:
    """Five runs, of which three have a loss, and the last one neither user nor project."""
    for i in range(5):
        run = make_run(name=f"run_{i}")
        task = run.task()
        unset = {"user": "", "project_name": None} if i == 4 else {"user": "ada" if i % 2 else "grace"}
        tracker.call("init_run", run.init(start_time=f"2026-03-0{i + 2}T00:00:00Z", **unset))
        tracker.call("add_task_runs", run.add(task))
        if i < 3:
            tracker.call("log_metric", task.metric("loss", value_float=float(i)))
        tracker.call("log_metric", task.metric("team", "mlflow.tag", value_str="abC"[i % 3]))
        if i == 1:
            tracker.call("set_run_state", run.state("FAILED"))
    return tracker


def test_and_or_and_not_are_those_of_logic(five: Any) -> None:
    """A condition finds what its parts find, put together; what is missing meets no comparison."""

    def found(expression: str) -> set[str | None]:
        with five.database.read() as session:
            # One more condition that every row meets, by which task runs are asked for, not runs.
            wanted = parse_expression(f"({expression}) and metrics.none is null")
            return {row.uid for row in list_runs(session, wanted).data}

    everything = found("root_run_uid is not null")
    assert len(everything) == 10

    def expected(expression: Any) -> set[str | None]:
        if isinstance(expression, Not):
            return everything - expected(expression.part)
        if isinstance(expression, Both):
            return set.intersection(*map(expected, expression.parts))
        if isinstance(expression, Either):
            return set.union(*map(expected, expression.parts))
        with five.database.read() as session:
            wanted = Both((expression, comparison(Field("metrics", "none"), "is null", ())))
            return {row.uid for row in list_runs(session, wanted).data}

    @given(text=_TREES)
    def check(text: str) -> None:
        assert found(text) == expected(parse_expression(text)), text

    check()


def test_conditions_on_runs_and_on_their_tasks(five: Any) -> None:
    def names(expression: str) -> set[str | None]:
        with five.database.read() as session:
            return {_run_of(row) for row in list_runs(session, parse_expression(expression)).data}

    assert names("user is null and project is null") == {"run_4"}
    assert names("not user = ada") == {"run_0", "run_2", "run_4"}
    assert names("user != ada") == {"run_0", "run_2"}
    assert names("metrics.loss is null and tags.team ilike '%' and not tags.team ilike 'c'") == {"run_3", "run_4"}


def test_the_placeholder_of_the_page_means_the_same_everywhere(server: Any, tracker: Any) -> None:
    for name, loss, rate in (("found", 0.25, "0.10"), ("slow", 0.75, "0.1"), ("other", 0.25, "0.2")):
        _, task = tracker.started(name=name)
        tracker.call("log_metric", task.metric("loss", value_float=loss))
        tracker.call("log_metric", task.metric("lr", "mlflow.param", value_str=rate))
    page = server.get("/").text
    text = page.partition("placeholder='Search, or ")[2].partition("'")[0].replace("&lt;", "<")
    assert text == "metrics.loss < 0.5 and params.lr = 0.1"
    answer = server.get("/api/v1/runs", params={"expression": text}).json()
    assert [run["nested_in"] for run in answer["data"]] == [["found"]]
    for asked in ({"where": text}, {"q": text}, {"q": f"foun {text}"}):
        shown = server.get("/", params=asked).text
        assert ">found / <" in shown
        assert ">other / <" not in shown
    both = server.get("/", params={"where": ["metrics.loss < 0.5 or params.lr = 1", "params.lr = 0.1"]})
    assert ">found / <" in both.text
    assert ">other / <" not in both.text


@pytest.mark.alike
def test_a_wrong_condition_is_refused_by_the_page_and_the_read_api_alike(server: Any) -> None:
    text = "metrics.loss < 0.5 or 1"
    page, answer = server.get("/", params={"where": text}), server.get("/api/v1/runs", params={"expression": text})
    assert (page.status_code, answer.status_code) == (400, 400)
    assert answer.json()["detail"].endswith(f"{text}\n  {' ' * 22}^")
    assert f"{' ' * 22}^</p>" in page.text
    for query in ({"state": "finished"}, {"filter": json.dumps([{"name": "state", "val": "finished"}])}):
        refused = server.get("/api/v1/runs", params=query)
        assert refused.status_code == 400
        assert "there are scheduled, running," in refused.json()["detail"]
    assert "there is no state" in server.get("/", params={"state": "finished"}).text
    for name, val in (("start_time", "0001-01-01T00:00:00+05:00"), ("metrics.x", "abc")):
        condition = json.dumps([{"name": name, "op": "lt", "val": val}])
        assert server.get("/api/v1/runs", params={"filter": condition}).status_code == 400
    odd = json.dumps([{"name": "name", "op": "eq", "val": "\ud800\0"}])
    assert server.get("/api/v1/runs", params={"filter": odd}).json()["data"] == []
