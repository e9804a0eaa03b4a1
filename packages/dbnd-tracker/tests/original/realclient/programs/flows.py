import time

from dbnd import log_artifact, log_metric, pipeline, task


@task
def prepare(n=3):
    log_metric("n", n)
    return n


@task
def slow(n, seconds=0.1):
    print("hello from slow")
    deadline = time.time() + seconds
    while time.time() < deadline:
        time.sleep(0.1)
    return n * 2


@task
def boom(n):
    raise ValueError("no good %s" % n)


@task
def after(n):
    return n


@pipeline
def flow(seconds=0.1):
    return slow(prepare(), seconds)


@pipeline
def bad():
    return after(boom(prepare()))
