"""MLflow code as it is anywhere; run as a dbnd task, it stands in the tracker, too.

Run it with ``dbnd run mlflow_example --set-config mlflow_tracking.databand_tracking=True``, or ``task_with_mflow``.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from dbnd import task


@task
def mlflow_example() -> None:
    """Log two params and two metrics."""
    mlflow.start_run()
    mlflow.log_param("param1", 5)
    mlflow.log_param("param2", "sgd")
    for step in range(3):
        mlflow.log_metric("foo1", step / 2, step=step)
        mlflow.log_metric("foo2", 1 - step / 2, step=step)
    mlflow.end_run()


@task
def task_with_mflow(epochs: int = 10, learning_rate: float = 0.3) -> dict[str, float]:
    """Log params, a loss curve, a tag and artifacts with MLflow, and read them back.

    Args:
        epochs: Number of steps of the curve.
        learning_rate: How fast the loss falls.

    Returns:
        The last metrics of the run, as MLflow's own store has them.
    """
    with mlflow.start_run() as run:
        mlflow.log_params({"epochs": epochs, "learning_rate": learning_rate, "optimizer": "sgd"})
        mlflow.set_tag("team", "examples")
        for epoch in range(epochs):
            loss = math.exp(-learning_rate * epoch)
            mlflow.log_metrics({"loss": loss, "accuracy": 1 - loss / 2}, step=epoch)
        mlflow.log_metric("final_loss", loss)
        with tempfile.TemporaryDirectory() as folder:
            summary = Path(folder) / "summary.md"
            summary.write_text(f"# Summary\n\nThe loss after {epochs} epochs is {loss:.4f}.\n")
            mlflow.log_artifact(str(summary))
            mlflow.log_dict({"epochs": epochs, "learning_rate": learning_rate}, "config/params.json")

    # Everything can be read back from MLflow as ever: the tracker is an addition, not a replacement.
    client = MlflowClient()
    stored = client.get_run(run.info.run_id)
    history = client.get_metric_history(run.info.run_id, "loss")
    print(f"MLflow run {run.info.run_id}: {len(history)} points of loss, the last one {history[-1].value:.4f}")
    return stored.data.metrics
