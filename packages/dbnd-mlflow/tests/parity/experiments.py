"""Scenarios about experiments, searches of their runs, and workspaces."""

from __future__ import annotations

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType

from parity.scenario import has, installed, outcome, scenario


@scenario()
def experiments(side):
    client = MlflowClient()
    names = ["experiments-b", "experiments-a", "experiments-ü"]
    ids = [client.create_experiment(name, tags={"kind": "x", "n": name[-1]}) for name in names]
    client.set_experiment_tag(ids[0], "k", "v")
    client.rename_experiment(ids[0], "experiments-c")
    client.delete_experiment(ids[1])
    results = [
        outcome(client.create_experiment, "experiments-ü"),
        outcome(client.create_experiment, "experiments-a"),
        outcome(mlflow.set_experiment, "experiments-a"),
        outcome(client.create_run, ids[1]),
        outcome(client.get_experiment, "9" * 18),
        client.get_experiment_by_name("experiments-none"),
    ]
    found = [
        [e.name for e in client.search_experiments(filter_string=text, order_by=["name DESC"], view_type=view)]
        for text in ("name LIKE 'experiments-%'", "tags.kind = 'x'", "tags.n = 'b'")
        for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)
    ]
    client.restore_experiment(ids[1])
    page = client.search_experiments(filter_string="tags.kind = 'x'", order_by=["name ASC"], max_results=2)
    rest = client.search_experiments(
        filter_string="tags.kind = 'x'", order_by=["name ASC"], max_results=2, page_token=page.token
    )
    current = mlflow.set_experiment("experiments-a")
    mlflow.set_experiment_tags({"later": "yes"})
    with mlflow.start_run(run_name="r") as run:
        inside = run.info.experiment_id == current.experiment_id == ids[1]
    final = [vars(client.get_experiment(i)) for i in ids]
    return results, found, [e.name for e in page], [e.name for e in rest], inside, final


@scenario(installed("pandas"))
def searches(side):
    client = MlflowClient()
    for number in range(7):
        run = client.create_run(side.experiment_id, start_time=1_000 + number, run_name=f"r{number}")
        client.log_metric(run.info.run_id, "m", number % 3, timestamp=1)
        client.log_param(run.info.run_id, "p", "ab"[number % 2])
        client.set_terminated(run.info.run_id, end_time=2_000 + number)
    pages, token = [], None
    while not pages or token:
        page = client.search_runs([side.experiment_id], order_by=["metrics.m DESC"], max_results=3, page_token=token)
        pages.append([run.info.run_name for run in page])
        token = page.token
    frame = mlflow.search_runs(filter_string="metrics.m > 0 and params.p = 'a'", order_by=["start_time ASC"])
    frame = frame.assign(start_time=frame.start_time.astype("int64"), end_time=0)
    names = mlflow.search_runs(experiment_names=[side.experiment], output_format="list", max_results=4)
    return (
        pages,
        {column: str(kind) for column, kind in frame.dtypes.items()},
        frame.astype(str).to_dict("list"),
        [run.info.run_name for run in names],
        outcome(mlflow.search_runs, filter_string="nonsense = 1"),
        outcome(client.search_runs, [side.experiment_id], page_token="nonsense"),
    )


@scenario(has("list_workspaces"))
def workspaces(side):
    return [
        outcome(lambda: [w.name for w in mlflow.list_workspaces()]),
        outcome(lambda: mlflow.get_workspace("default").name),
        outcome(lambda: mlflow.get_workspace("nothing").name),
        outcome(lambda: mlflow.create_workspace("team-a").name),
    ]
