"""What datasets are called, and which facts of them travel."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Dataset, DatasetInput

from dbnd._model import wire
from dbnd_mlflow import build_composite_uri
from dbnd_mlflow._reporting.datasets import dataset_operation, path_of

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


def dataset(source, source_type="local", *, name="dataset", digest="d1", profile=None, schema=None):
    text = source if isinstance(source, str) else json.dumps(source)
    return Dataset(name, digest, source_type, text, schema and json.dumps(schema), profile and json.dumps(profile))


def hugging_face(**facts):
    empty = {"config_name": None, "data_dir": None, "data_files": None, "split": "None", "revision": None}
    return dataset({"path": "csv", **empty, **facts}, "hugging_face")


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (dataset({"uri": "/data/x.csv"}), "/data/x.csv"),
        (dataset({"url": "https://u:hunter2@h/x.csv"}, "http"), "https://***@h/x.csv"),
        (dataset({"uri": "s3://bucket/x"}, "s3"), "s3://bucket/x"),
        (dataset({"path": "dbfs:/x"}, "delta_table"), "dbfs:/x"),
        (dataset({"path": "/Volumes/a/b/c"}, "uc_volume"), "/Volumes/a/b/c"),
        (dataset({"delta_table_name": "main.hr.people", "delta_table_version": 3}, "delta_table"), "main.hr.people"),
        (
            dataset({"delta_table_name": "a.b", "is_databricks_uc_table": True, "delta_table_id": "9"}, "delta_table"),
            "a.b",
        ),
        (dataset({"table_name": "t"}, "spark"), "t"),
        (dataset({"sql": "SELECT *\n  FROM a"}, "spark"), "SELECT * FROM a"),
        (hugging_face(), "csv"),
        (hugging_face(data_files="a.csv"), "csv?data_files=a.csv"),
        (hugging_face(data_files={"a": ["b.csv"]}, revision="main"), 'csv?data_files={"a":["b.csv"]}&revision=main'),
        (hugging_face(config_name="mrpc", split="train"), "csv?config_name=mrpc&split=train"),
        (dataset({"dataset_id": "d-1"}, "mlflow_evaluation_dataset"), "d-1"),
        (dataset({"host": "h", "password": "hunter2"}, "mine"), '{"host":"h","password":"***"}'),
        (dataset('["b","a"]', "mine"), '["b","a"]'),
        (dataset("no json", "mine"), "no json"),
        (dataset("", "mine"), "dataset#d1"),
        (dataset({}, "mine"), "dataset#d1"),
        (dataset({"tags": {"mlflow.source.name": "train.py"}}, "code", digest="d2"), "dataset#d2"),
    ],
)  # fmt: skip
def test_a_path_tells_a_dataset_from_any_other_of_its_kind(given, path):
    assert path_of(given) == path


def test_long_queries_that_begin_alike_are_told_apart():
    long, other = (path_of(dataset({"sql": f"SELECT {'x, ' * 500} {last}"}, "spark")) for last in ("a", "b"))
    assert long != other
    assert long[:200] == other[:200]
    assert len(long) < 250


def test_the_order_of_a_sources_facts_does_not_change_its_path():
    ways = [{"a": 1, "b": {"x": 1, "y": 2}}, {"b": {"y": 2, "x": 1}, "a": 1}]
    assert len({path_of(dataset(way, "mine")) for way in ways}) == 1


@pytest.mark.parametrize(
    ("profile", "columns", "shape", "size", "dimensions"),
    [
        ({"num_rows": 4, "num_elements": 12}, 3, [4, 3], 12, [4, 3]),
        ({"features_shape": [4, 3], "features_size": 12, "features_nbytes": 96}, 0, [4, 3], 96, [4, 3]),
        ({"features_shape": [9, 8, 8], "features_nbytes": 576}, 0, [9, 8, 8], 576, [9, None]),
        ({"features_shape": {"a": [4], "b": [4]}, "features_nbytes": {"a": 32, "b": 32}}, 0, [None, None], 64, None),
        ({"num_rows": 4, "dataset_size": 100, "size_in_bytes": 150}, 2, [4, 2], 150, [4, 2]),
        ({"approx_count": 7}, 2, [7, 2], None, [7, 2]),
        (None, 2, [None, 2], None, [None, 2]),
        (None, 0, [None, None], None, None),
    ],
)
def test_the_facts_that_the_protocol_knows_are_all_there(profile, columns, shape, size, dimensions):
    schema = {"mlflow_colspec": [{"type": "long", "name": f"c{number}"} for number in range(columns)]}
    operation = dataset_operation(DatasetInput(dataset({"uri": "/x"}, profile=profile, schema=schema)), NOW)
    names = [f"c{number}" for number in range(columns)]
    assert operation.schema == {
        "type": "local",
        "columns": names,
        "dtypes": dict.fromkeys(names, "long"),
        "shape": shape,
        "size.bytes": size,
    }
    known = operation.rows is not None or operation.columns is not None
    assert ([operation.rows, operation.columns] if known else None) == dimensions


def test_name_and_digest_stand_where_other_trackers_ignore_them(tracker_url, inner_uri, journalled):
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, inner_uri))
    with mlflow.start_run():
        for number in range(2):
            mlflow.log_input(mlflow.data.from_numpy(np.full(3, number)))
        mlflow.log_input(mlflow.data.from_pandas(pd.DataFrame({"a": [1, 2]}), source="/data/a.csv", name="frame"))
    sent = [body["datasets_info"][0] for call, body in journalled() if call == "log_datasets"]
    assert len({each["operation_path"] for each in sent}) == 3
    assert [each["name"] for each in sent] == ["dataset", "dataset", "frame"]
    assert all(each["digest"] for each in sent)
    assert not any({"name", "digest"} & set(each["data_schema"]) for each in sent)
    assert sent[2]["data_schema"]["shape"] == sent[2]["data_dimensions"] == [2, 1]


def test_our_tracker_keeps_name_and_digest_with_the_schema():
    logged = pytest.importorskip("dbnd_tracker._schemas.logged")
    from dbnd._model.run import Run, TaskDefinition

    task_run = Run("job", "run").new_task_run(TaskDefinition("t"), parent=None)
    body = wire.dataset_operation(task_run, dataset_operation(DatasetInput(dataset({"uri": "/x"})), NOW))
    (info,) = logged.LogDatasets.model_validate(body).datasets_info
    assert info.schema_and_version == {**info.data_schema, "name": "dataset", "digest": "d1"}
    del body["datasets_info"][0]["name"], body["datasets_info"][0]["digest"]
    (old,) = logged.LogDatasets.model_validate(body).datasets_info
    assert old.schema_and_version == old.data_schema
