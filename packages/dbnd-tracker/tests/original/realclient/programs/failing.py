from dbnd import dbnd_tracking, log_metric, task


@task
def inner():
    log_metric("before", 1)
    raise ValueError("no good value")


@task
def outer():
    inner()


@task
def fine():
    return 1


if __name__ == "__main__":
    with dbnd_tracking(job_name="failing", run_name="failing"):
        fine()
        outer()
