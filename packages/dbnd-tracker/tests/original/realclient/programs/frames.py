import pandas as pd

from dbnd import dataset_op_logger, dbnd_tracking, log_dataframe, log_dataset_op, task


@task
def work():
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]})
    log_dataframe("frame", frame, with_histograms=True, path="s3://bucket/frame.csv")
    log_dataset_op("s3://bucket/in.csv", "read", data=frame, with_schema=True, with_preview=True, with_stats=True)
    try:
        with dataset_op_logger("s3://bucket/out.csv", "write", data=frame):
            raise RuntimeError("disk full")
    except RuntimeError:
        pass
    log_dataset_op("s3://bucket/old.csv", "delete")
    return frame


if __name__ == "__main__":
    with dbnd_tracking(job_name="frames", run_name="frames"):
        work()
