"""Scenarios about artifacts, tables and datasets."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow import MlflowClient

from parity.scenario import installed, outcome, scenario, stored


@scenario()
def artifacts(side):
    source = side.folder / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/x.txt").write_text("x")
    (source / "y.bin").write_bytes(bytes(range(256)))
    client = MlflowClient()
    with mlflow.start_run(run_name="r") as run:
        mlflow.log_artifact(source / "y.bin")
        mlflow.log_artifacts(str(source), "all")
        mlflow.log_text("grüße", "text/a b.txt")
        mlflow.log_dict({"ü": [1, 2]}, "d.json")
        mlflow.log_dict({"a": 1}, "d.yaml")
        place = mlflow.get_artifact_uri("d.json")
    run_id = run.info.run_id
    listed = {
        path: [[f.path, f.is_dir, f.file_size] for f in client.list_artifacts(run_id, path)]
        for path in (None, "all", "all/deep", "nothing")
    }
    down = side.folder / "down"
    down.mkdir()
    folder = Path(client.download_artifacts(run_id, "all", str(down)))
    fetched = {p.relative_to(folder).as_posix(): p.read_bytes().hex() for p in folder.rglob("*") if p.is_file()}
    by_uri = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/text/a b.txt")).read_text()
    loaded = mlflow.artifacts.load_text(place), mlflow.artifacts.load_dict(f"runs:/{run_id}/d.json")
    missing = outcome(mlflow.artifacts.download_artifacts, run_id=run_id, artifact_path="none.txt")
    return place, listed, sorted(fetched.items()), by_uri, loaded, missing[0] if missing else missing, stored(run_id)


@scenario(installed("pandas"))
def tables(side):
    import pandas as pd

    with mlflow.start_run(run_name="r") as run:
        mlflow.log_table({"q": ["a", "b"], "n": [1, 2]}, "t.json")
        mlflow.log_table(pd.DataFrame({"q": ["c"], "n": [3]}), "t.json")
    frame = mlflow.load_table("t.json", run_ids=[run.info.run_id], extra_columns=["run_id"])
    return frame.astype(str).to_dict("list"), stored(run.info.run_id)["data"]["tags"]


@scenario(installed("pandas"))
def datasets(side):
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    with mlflow.start_run(run_name="r") as run:
        mlflow.log_input(mlflow.data.from_pandas(frame, source="s3://bucket/a.csv", name="frame"), context="training")
        mlflow.log_input(mlflow.data.from_numpy(np.ones((4, 3)), name="array"), tags={"k": "v"})
        mlflow.log_input(mlflow.data.from_pandas(frame, source="s3://bucket/a.csv", name="frame"), context="training")
    found = mlflow.search_runs(filter_string="dataset.name = 'frame'", output_format="list")
    inputs = MlflowClient().get_run(run.info.run_id).inputs.dataset_inputs
    rows = [[vars(i.dataset), sorted((t.key, t.value) for t in i.tags)] for i in inputs]
    return len(found), sorted(rows, key=str)
