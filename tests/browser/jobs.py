"""Tasks whose runs the browser looks at."""

from __future__ import annotations

import math
import time
from pathlib import Path

import mlflow

from dbnd import log_artifact, log_metric, task

EVIL = """"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'{{7*7}}<b>&amp;"""


@task
def load(rows: int) -> int:
    log_metric("rows", rows)
    return rows


@task
def train(rows: int) -> float:
    with mlflow.start_run():
        mlflow.log_params({"optimizer": "adam", "depth": 3})
        mlflow.set_tag("team", "browser")
        for step in range(50):
            mlflow.log_metric("loss", 1 / (1 + step), step=step)
        with mlflow.start_run(nested=True, run_name="inner fold"):
            mlflow.log_metric("fold_loss", 0.25, step=1)
    for step, value in enumerate([1.0, 2.0, math.nan, 4.0, math.inf, 6.0]):
        log_metric("odd", value, step=step)
    for step in range(8):
        log_metric("wide", 10.0**-step, step=step)
        log_metric("late/score", float(step), step=1000 + step)
        log_metric("system/cpu", 50.0 + step, step=step)
    log_artifact("notes", __file__)
    return float(rows)


@task
def pipeline(rows: int = 300) -> float:
    print("the pipeline begins")
    for done in range(11):
        print(f"\rloading {done * 10}%", end="")
    print("\n\x1b[31;1mred\x1b[0m and plain")
    return train(load(rows))


@task
def failing(reason: str = "the disk is full") -> None:
    for line in range(300):
        print(f"line {line} of the log")
    raise RuntimeError(f"Cannot go on, because {reason} & more <b>so</b>.")


@task
def sweep(rate: float = 0.1, layers: int = 2) -> float:
    for step in range(20):
        log_metric("score", rate * step, step=step)
    return rate


@task
def live(folder: str) -> None:
    """Log one point for each file that appears, until one is named ``end``."""
    done = 0
    deadline = time.monotonic() + 300
    log_metric("points", 0.0, step=0)
    while time.monotonic() < deadline:
        names = sorted(path.name for path in Path(folder).iterdir())
        if "end" in names:
            return
        while done < len(names):
            done += 1
            log_metric("points", float(done), step=done)
        time.sleep(0.05)


@task
def evil(value: str = EVIL) -> None:
    print(EVIL)
    with mlflow.start_run(run_name=EVIL):
        mlflow.log_param("evil", EVIL)
        mlflow.set_tag("evil", EVIL)
    for step in range(3):
        log_metric(EVIL, float(step), step=step)
    log_metric("text", EVIL)
    log_artifact(EVIL, str(Path(__file__)))
    raise ValueError(EVIL)


@task
def files() -> None:
    """Log a file of each kind that the page shows, and the folder that they are in."""
    import tempfile

    import pandas as pd
    from PIL import Image

    script = "<script>try { parent.hacked = 1; top.hacked = 1 } catch { window.tried = 1 }</script>"
    drawing = "<script>document.getElementById('drawn').textContent = 'drawn, ' + window.origin</script>"
    asking = "<script>fetch('/api/v1/runs').catch(() => 0); new Image().src = 'http://192.0.2.1/x'</script>"
    leaving = "<script>location = 'http://192.0.2.1/'</script>"
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    rows = pd.DataFrame({"n": [1, 2], "text": ["<b>one</b>", "two"]})
    rows.to_csv(folder / "rows.csv", index=False)
    rows.to_parquet(folder / "rows.parquet")
    Image.new("RGB", (40, 30), "teal").save(folder / "picture.png")
    texts = {
        "data.json": '{"loss":0.5}',
        "table.json": '{"columns":["n","text"],"data":[[1,"<b>one</b>"]]}',
        "report.md": f"## Results\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n{script} ![x](http://192.0.2.1/x.png)\n",
        "page.html": f"<h1>A report</h1><p id=drawn></p>{script}{drawing}{asking}",
        "leaving.html": leaving,
        "picture.svg": f'<svg xmlns="http://www.w3.org/2000/svg" width="9"><path d="M0 0h9v9z"/>{script}</svg>',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    mlflow.set_experiment("files")
    with mlflow.start_run():
        mlflow.log_artifacts(str(folder))
    log_artifact("folder", folder)
