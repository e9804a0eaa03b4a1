"""The page that compares runs."""

from __future__ import annotations

import html
import json
import math
import re
from typing import Any
from urllib.parse import quote

import pytest

from dbnd_tracker._errors import StorageError
from dbnd_tracker._pages.runs.plots import make_axis, make_parallel
from dbnd_tracker._queries.language.expressions import LoggedKind
from dbnd_tracker._queries.table import comparison
from dbnd_tracker._storage.writer import DEADLINE, Deadline


@pytest.fixture
def trials(tracker: Any) -> list[str]:
    """Uids of runs with a rate over five orders of magnitude, a loss that is least for the one in the middle."""
    uids = []
    for number in range(25):
        run, task = tracker.started(name=f"trial {number:02}")
        uids.append(run.uid)
        params = {"rate": f"1e-{number % 6}", "kind": "sgd" if number % 2 else "adam"} | (
            {"rare": "1"} if not number else {}
        )
        logged = [task.metric(key, "mlflow.param", value_str=value) for key, value in params.items()]
        loss = abs(number - 12) + 0.5
        logged += [task.metric("loss", value_float=v, step=s) for s, v in enumerate((loss + 1, loss))]
        tracker.call("log_metrics", task.metrics(*logged, task.metric("accuracy", value_float=1 / (1 + loss))))
    return uids


def compare(server: Any, uids: list[str], extra: str = "") -> str:
    answer = server.get("/app/compare?" + "&".join(f"run={uid}" for uid in uids) + extra)
    assert answer.status_code == 200
    return str(answer.text)


def names(page: str) -> list[str]:
    """The runs that the table shows, in its order."""
    return re.findall(r"(trial [0-9]{2})</a>", page.partition('id="comparison"')[2])


def lines(page: str) -> list[tuple[str, bool]]:
    """The runs of the parallel coordinates, in the order in which they are drawn, and whether they are faded."""
    plot = page.partition('id="parallel"')[2].partition("</svg>")[0]
    found = re.findall(r'<a class="([^"]*)"[^>]*aria-label="(trial [0-9]{2})', plot)
    return [(name, "faded" in look) for look, name in found]


def test_the_comparison_shows_what_differs_and_all_if_asked(tracker: Any, server: Any) -> None:
    uids = []
    for lr in ("0.1", "0.2"):
        run, task = tracker.started(name=f"with {lr}")
        uids.append(run.uid)
        tracker.call("log_metric", task.metric("rate", "mlflow.param", value_str=lr))
        tracker.call("log_metric", task.metric("same", "mlflow.param", value_str="x"))
        tracker.call("log_metric", task.metric("mlflow.note", "mlflow.tag", value_str=lr))
        tracker.call("log_metrics", task.floats("loss", int(float(lr) * 20)))
    some, everything = compare(server, uids[::-1]), compare(server, uids[::-1], "&show=all")

    values = '<td class="value number">0.1</td><td class="value number">0.2</td>'
    assert f'<th scope="row">rate</th>\n{values}' in some, "the best by the target comes first"
    assert '<th scope="row">same</th>' not in some
    assert "mlflow.note" not in some
    assert "mlflow.note" in everything
    assert re.search(r'<th scope="row">same</th>\s*<td>x</td><td>x</td>', everything)
    assert re.search(r'<td class="value number best">1</td><td class="value number">3</td>', some)
    assert some.count('class="dot"') == 2
    assert some.count('class="path"') == 2
    assert "loss over rate" in some


def test_runs_are_ranked_by_the_target_and_of_many_the_best_stand_out(server: Any, trials: list[str]) -> None:
    page = compare(server, trials)
    ranked = [12, 11, 13, 10, 14, 9, 15, 8, 16, 7]
    assert names(page)[:10] == [f"trial {number:02}" for number in ranked]
    assert len(names(page)) == 25
    drawn = lines(page)
    assert [name for name, faded in drawn if not faded] == [f"trial {number:02}" for number in reversed(ranked)]
    assert len(drawn) == 25
    assert "the best 10 of 25 stand out" in page
    assert len(json.loads(re.findall(r"data-series='([^']*)'", page)[0])) == 10
    by_accuracy = compare(server, trials, "&y=metrics.accuracy")
    assert names(by_accuracy)[0] == "trial 12"
    assert "accuracy over rate" in by_accuracy
    assert "higher is better</span></p>" in by_accuracy
    few = compare(server, trials[:12])
    assert not any(faded for _, faded in lines(few))


def test_the_best_value_of_a_metric_is_marked_by_what_is_better(server: Any, trials: list[str]) -> None:
    for rows in ("runs", "values"):
        page = compare(server, trials, f"&rows={rows}")
        assert re.findall(r'class="value number best"[^>]*>([^<]*)<', page) in (["0.6667", "0.5"], ["0.5", "0.6667"])
        heads = dict(
            re.findall(r"<th scope=\"(?:row|col)\"[^>]*>(accuracy|loss)<span class=\"way\" title=\"(\w+) is", page)
        )
        assert heads == {"accuracy": "Higher", "loss": "Lower"}
    assert (
        'best"'
        not in compare(server, [trials[0], trials[24]], "&show=all").partition("loss<span")[2].partition("</tr>")[0]
    )


def test_of_what_the_machine_did_none_is_the_best(tracker: Any, server: Any) -> None:
    uids = []
    for number in (1, 2):
        run, task = tracker.started()
        uids.append(run.uid)
        names = ("system/cpu", "loss")
        tracker.call("log_metrics", task.metrics(*(task.metric(name, value_float=number / 4) for name in names)))
    page = compare(server, uids)
    assert '<th scope="row">system/cpu</th>' in page
    assert re.findall(r'best"[^>]*>([^<]*)<', page) == ["0.25"]


def test_rows_of_the_table_are_runs_where_there_are_many_or_it_is_asked_for(server: Any, trials: list[str]) -> None:
    many, few = compare(server, trials), compare(server, trials[:3])
    assert "runs-as-rows" in many
    assert "runs-as-rows" not in few
    for page, other in ((many, "values"), (few, "runs")):
        (link,) = re.findall(r'class="button" href="([^"]*)"', page)
        assert ("runs-as-rows" in server.get(html.unescape(link)).text) == (other == "runs")


def test_conditions_choose_runs_and_ranges_are_drawn_on_their_axes(server: Any, trials: list[str]) -> None:
    where = "params.rate >= 0.001 and params.rate <= 0.1"
    page = compare(server, trials, f"&where={quote(where)}&where={quote('params.kind in (adam)')}&where=")
    chosen = {f"trial {number:02}" for number in range(25) if 1 <= number % 6 <= 3 and number % 2 == 0}
    assert {name for name, faded in lines(page) if not faded} == chosen == set(names(page))
    assert f"{len(chosen)} of 25 runs chosen" in page
    axes = dict(
        re.findall(r'class="brushed" data-field="([^"]*)".*?class="brush"[^>]* height="([^"]*)"', page, re.DOTALL)
    )
    assert float(axes["params.rate"]) == pytest.approx(266 * 2 / 5 + 4, abs=0.2)
    assert float(axes["params.kind"]) == 4
    assert float(axes["metrics.loss"]) == 0
    assert 'data-field="params.rate" data-scale="log"' in page
    by_name = compare(
        server, trials, "&where=" + quote("not (name like 'trial 0%' or metrics.loss > 3) and tags.x is null")
    )
    assert set(names(by_name)) == {f"trial {number}" for number in (10, 11, 12, 13, 14)}
    none = compare(server, trials, "&where=params.rate+%3E+5")
    assert "0 of 25 runs chosen" in none
    assert names(none) == []


@pytest.mark.parametrize(
    ("where", "said"),
    [("params.rate >", "params.rate &gt;"), ("start_time > 2020-01-01", "cannot be chosen by start_time")],
)
def test_a_condition_that_cannot_be_understood_is_said(server: Any, trials: list[str], where: str, said: str) -> None:
    page = compare(server, trials[:3], f"&where={quote(where)}")
    assert said in page.partition('role="alert">')[2].partition("</p>")[0]
    assert len(names(page)) == 3


def test_what_not_all_runs_have_is_a_gap_and_comes_last(server: Any, trials: list[str]) -> None:
    page = compare(server, trials[:4], "&through=params.rare&through=params.rate&through=params.none")
    assert re.findall(r'data-field="([^"]*)"', page) == ["params.rare", "params.rate", "metrics.loss"]
    assert len(lines(page)) == 4
    assert page.count('<path class="path" d="M70 ') == 1


def test_a_run_is_left_out_and_the_page_grows_with_runs_alone(server: Any, trials: list[str]) -> None:
    page = compare(server, trials, f"&without={trials[3].upper()}")
    assert "Comparison of 24 runs" in page
    assert "trial 03" not in page
    sizes = [len(compare(server, trials[:count])) for count in (13, 19, 25)]
    assert sizes[2] - sizes[1] < 1.1 * (sizes[1] - sizes[0]), "as much for each further run"


@pytest.mark.parametrize(
    "values",
    [[], [None], [1.0], [5e-324, 1e-323], [-1.7e308, 1.7e308], [1e308, 1.0000001e308], [0.1, 0.1000001, 0.1000002],
     [1e-300, 1.0, 1e300], [-1, 0, 1000, 5], ["a", 1, None, "b" * 90], [math.inf, 1.0], [math.nan, 2.0],
     [f"x{n}" for n in range(500)], list(range(1000)), ["1e-5", "0.1", "0.01", "1e-3"]],
    ids=str,
)  # fmt: skip
def test_any_values_have_an_axis(values: list[Any]) -> None:
    axis = make_axis(values)
    places = [axis.place(value) for value in values]
    assert all(
        place is None if value in (None, math.nan) else 0 <= place <= 1
        for value, place in zip(values, places, strict=True)
    )
    assert all(0 <= at <= 1 for at, _ in axis.ticks)
    assert len(axis.ticks) <= 13
    assert make_parallel([("a", axis, None), ("b", axis, (0.2, 0.4))], [[v, v] for v in values]) or len(values) < 2


def test_numbers_stay_numbers_beside_what_is_not_finite() -> None:
    axis = make_axis([10.0, "NaN", "Infinity", 0.0, "-Infinity", None, 2.5, "nan"])
    assert [axis.place(value) for value in (0.0, 2.5, 10.0)] == [0, 0.25, 1]
    assert [axis.place(value) for value in ("-Infinity", "Infinity", "NaN", "nan")] == [0, 1, None, None]
    assert [axis.place(value) for axis in [make_axis(["NaN", "Infinity"])] for value in axis.order] == [0, 1]


def test_axes_have_round_ticks_and_every_decade() -> None:
    assert [label for _, label in make_axis(["1e-5", 0.03, 0.033]).ticks] == ["1e-05", "0.0001", "0.001", "0.01"]
    assert [label for _, label in make_axis([0.1, 0.2, 0.3]).ticks] == ["0.1", "0.2", "0.3"]
    assert [label for _, label in make_axis([n / 97 for n in range(98)]).ticks] == [
        "0",
        "0.2",
        "0.4",
        "0.6",
        "0.8",
        "1",
    ]


def test_a_comparison_is_not_made_when_its_time_has_passed(
    tracker: Any, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    tracker.call("init_run", run.init())
    tracker.call("log_metrics", run.root.metrics(*(run.root.metric(name, value_float=1.0) for name in "abc")))
    deadline, decoded = Deadline(), []

    def value_of(kind: LoggedKind, columns: Any) -> Any:
        decoded.append(kind)
        deadline.pass_by()
        return columns[0]

    monkeypatch.setattr(comparison, "value_of", value_of)
    token = DEADLINE.set(deadline)
    try:
        with tracker.database.read() as session, pytest.raises(StorageError, match="in time"):
            comparison.compare_runs(session, [run.uid])
    finally:
        DEADLINE.reset(token)
    assert len(decoded) == 1
