"""Scenarios about what MLflow logs by itself while a model is trained and evaluated."""

from __future__ import annotations

import mlflow
from mlflow import MlflowClient

from parity.models import fitted
from parity.scenario import installed, outcome, scenario, stored


def _autologged(**options):
    import mlflow.sklearn

    mlflow.sklearn.autolog(log_models=False, silent=True, **options)
    try:
        fitted()
    finally:
        mlflow.sklearn.autolog(disable=True, silent=True)
    found = []
    for run in mlflow.search_runs(output_format="list"):
        files = sorted(f.path for f in MlflowClient().list_artifacts(run.info.run_id))
        facts = stored(run.info.run_id)
        # What is left of a perfect fit depends on where in memory the data stands.
        facts["data"]["metrics"] = {key: round(value, 9) for key, value in facts["data"]["metrics"].items()}
        inputs = facts.pop("inputs", {}).get("dataset_inputs", [])
        found.append([files, facts, len(inputs)])
    assert found, "nothing was logged"
    return found


@scenario(installed("sklearn"))
def autologging(side):
    return _autologged(log_datasets=False)


# Its threads read a run of a file store while others write the run's datasets, and can find half of one.
@scenario(installed("sklearn"), kinds=("sqlite", "http"))
def autologging_with_datasets(side):
    return _autologged()


@scenario(installed("pandas", "sklearn"))
def evaluation(side):
    import pandas as pd

    evaluate = getattr(mlflow.models, "evaluate", None) or mlflow.evaluate
    data = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 5.0], "p": [1.0, 2.0, 3.0, 4.0]})
    with mlflow.start_run(run_name="r") as run:
        result = outcome(
            evaluate, data=data, targets="y", predictions="p", model_type="regressor", evaluators="default"
        )
    facts = stored(run.info.run_id)
    seen = result if isinstance(result, list) else [sorted(result.metrics.items()), sorted(result.artifacts)]
    return seen, facts["data"], facts["info"]["status"]
