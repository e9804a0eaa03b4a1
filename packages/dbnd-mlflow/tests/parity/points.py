"""Scenarios about params, metrics and tags: batches, odd values, asynchronous logging, system metrics."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from parity.scenario import all_of, has, installed, outcome, scenario, stored, takes


@scenario()
def batches(side):
    client = MlflowClient()
    run_id = client.create_run(side.experiment_id, run_name="r").info.run_id
    returned = client.log_batch(run_id, [Metric(f"m{n}", n / 7, 1_700_000_000_000 + n, n) for n in range(1000)])
    client.log_batch(run_id, params=[Param(f"p{n}", "v") for n in range(100)], tags=[RunTag("t", "1")])
    client.log_batch(run_id, [Metric("m0", n, 5, n) for n in range(20)])
    too_many = outcome(client.log_batch, run_id, [Metric("m", 1, 0, 0)] * 1001)
    return returned, stored(run_id), [vars(m) for m in client.get_metric_history(run_id, "m0")], too_many


@scenario()
def metric_histories(side):
    client = MlflowClient()
    run_id = client.create_run(side.experiment_id, run_name="r").info.run_id
    values = [1, math.nan, math.inf, -math.inf, -0.0, 1e-300, 0.1 + 0.2, 2**60]
    for number, value in enumerate(values):
        client.log_metric(run_id, "m", value, timestamp=1_000 + number, step=number - 2)
    client.log_metric(run_id, "plain", 3)
    client.log_metric(run_id, "later first", 1, timestamp=20, step=9)
    client.log_metric(run_id, "later first", 2, timestamp=10, step=1)
    client.log_metric(run_id, "twice", 5, timestamp=7, step=7)
    client.log_metric(run_id, "twice", 5, timestamp=7, step=7)
    names = ("m", "plain", "later first", "twice", "none")
    history = {name: [vars(m) for m in client.get_metric_history(run_id, name)] for name in names}
    return history, stored(run_id)


@scenario()
def odd_names_and_values(side):
    with mlflow.start_run(run_name="größe 大きさ 🚀") as run:
        results = [
            outcome(mlflow.log_param, "größe", "naïve ☃"),
            outcome(mlflow.log_metric, "精度", 0.9),
            outcome(mlflow.set_tag, "étiquette", "🚀\n\ttab 'quote' \"double\" %41 & ="),
            outcome(mlflow.log_metric, "with space/and.dots-_", 1),
            outcome(mlflow.log_metric, "a:b", 1),
            outcome(mlflow.log_metric, "bad\x07name", 1),
            outcome(mlflow.log_metric, "../up", 1),
            outcome(mlflow.log_metric, "", 1),
            outcome(mlflow.log_metric, "m", "no number"),
            outcome(mlflow.log_param, "empty", ""),
            outcome(mlflow.set_tag, "empty", ""),
        ]
    return results, stored(run.info.run_id)


@scenario()
def long_params_and_tags(side):
    with mlflow.start_run(run_name="r") as run:
        results = [outcome(mlflow.log_param, f"p{size}", "y" * size) for size in (500, 501, 6_000, 6_001)]
        results += [outcome(mlflow.set_tag, f"t{size}", "ü" * size) for size in (5_000, 5_001, 8_000, 8_001)]
        key = outcome(mlflow.log_param, "k" * 251, "v")
    return results, key, stored(run.info.run_id)


@scenario()
def repeated_params(side):
    with mlflow.start_run(run_name="r") as run:
        same = [outcome(mlflow.log_param, "p", 1), outcome(mlflow.log_param, "p", "1")]
        other = outcome(mlflow.log_param, "p", 2)
        batch = outcome(mlflow.log_params, {"q": 1, "p": 3})
        twice = outcome(MlflowClient().log_batch, run.info.run_id, params=[Param("z", "1"), Param("z", "2")])
    return same, other, batch, twice, stored(run.info.run_id)


@scenario(lambda: takes(mlflow.log_metric, "synchronous"))
def asynchronous_logging(side):
    with mlflow.start_run(run_name="r") as run:
        operations = (
            [mlflow.log_metric("m", n, step=n, timestamp=n, synchronous=False) for n in range(20)]
            if takes(mlflow.log_metric, "timestamp")
            else [mlflow.log_metric("m", n, step=n, synchronous=False) for n in range(20)]
        )
        operations.append(mlflow.log_params({"a": 1, "b": 2}, synchronous=False))
        operations.append(mlflow.set_tag("t", "v", synchronous=False) if takes(mlflow.set_tag, "synchronous") else None)
        for operation in filter(None, operations):
            operation.wait()
        bad = mlflow.log_param("a", 2, synchronous=False)
        failed = outcome(bad.wait)
        if hasattr(mlflow, "flush_async_logging"):
            mlflow.flush_async_logging()
    run_id = run.info.run_id
    history = sorted((m.step, m.value) for m in MlflowClient().get_metric_history(run_id, "m"))
    facts = stored(run_id)["data"]
    facts["metrics"] = len(facts["metrics"])  # which of the points is the last one is the threads' to say
    return history, facts, failed[0] if failed else failed


@scenario(
    all_of(has("enable_system_metrics_logging"), installed("psutil")),
    uncounted=frozenset({"metrics", "latest_metrics"}),
)
def system_metrics(side):
    mlflow.set_system_metrics_sampling_interval(0.1)
    mlflow.set_system_metrics_samples_before_logging(1)
    try:
        with mlflow.start_run(run_name="r", log_system_metrics=True) as run:
            found: dict[str, float] = {}
            while not found:
                time.sleep(0.1)
                with suppress(ValueError):  # of a file that is being written
                    found = MlflowClient().get_run(run.info.run_id).data.metrics
    finally:
        mlflow.set_system_metrics_sampling_interval(None)
        mlflow.set_system_metrics_samples_before_logging(None)
    return sorted(MlflowClient().get_run(run.info.run_id).data.metrics)
