import mlflow
from dbnd_mlflow.mlflow_with_dbnd_tracking import enable_dbnd_for_mlflow_tracking

from dbnd import dbnd_tracking, task


@task
def train():
    enable_dbnd_for_mlflow_tracking()
    with mlflow.start_run():
        mlflow.log_param("lr", 0.5)
        mlflow.log_param("kind", "two")
        for step in range(3):
            mlflow.log_metric("loss", 1 / (1 + step), step=step)


if __name__ == "__main__":
    with dbnd_tracking(job_name="mlflow", run_name="mlflow"):
        train()
