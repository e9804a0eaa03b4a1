import logging

from dbnd import dbnd_tracking, log_metric, log_metrics, task


@task
def load(path, password="quiet"):
    log_metric("rows", 3)
    return [1, 2, 3]


@task
def inner(value):
    log_metric("inner", value)
    return value


@task
def train(data, lr):
    for value in (0.5, 0.25, 0.125):
        log_metric("loss", value)
    logging.getLogger("mine").warning("a line of the task")
    inner(len(data))
    return inner(7)


@task
def types():
    log_metrics({"one": 1, "half": 0.5})
    log_metric("true", True)
    log_metric("nan", float("nan"))
    log_metric("infinity", float("-inf"))
    log_metric("large", 10**20)
    log_metric("text", "hello")
    log_metric("number text", "12.5")
    log_metric("none", None)
    log_metric("json", {"a": [1, {"b": None}]})
    log_metric("list", [1, 2])
    log_metric("long", "x" * 6000)
    log_metric("unicode", "na\u00efve \U0001f600")


if __name__ == "__main__":
    with dbnd_tracking(job_name="plain job/1", run_name="plain", project_name="demo"):
        train(load("file.csv", password="s3cret"), lr=0.1)
        types()
