"""What an MLflow run says of its source under ``dbnd run``: what it says when Python runs the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

SCRIPT = """
import json, multiprocessing, mlflow
from dbnd import task

@task
def train():
    log()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(log)

def log():
    with mlflow.start_run() as run:
        pass
    tags = mlflow.get_run(run.info.run_id).data.tags
    print("tags", json.dumps({key: value for key, value in tags.items() if key.startswith("mlflow.source.")}))

if __name__ == "__main__":
    train()
"""
GIT = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"]


@pytest.fixture
def script(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    for arguments in (["init"], ["add", "train.py"], ["commit", "-m", "first"]):
        subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True)
    return folder / "train.py"


def tags_in(done):
    """Of the run of the task, and of that of its worker."""
    own, workers = (line for line in done.stdout.splitlines() if line.startswith("tags "))
    assert own == workers
    return json.loads(own.removeprefix("tags "))


def test_the_source_and_its_commit_are_those_of_the_file_that_is_run(dbnd, script, inner_uri, home, unflushed):
    env = {"MLFLOW_TRACKING_URI": inner_uri}
    command = [sys.executable, str(script)]
    plain = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **env}, timeout=100)
    expected = tags_in(plain)
    assert expected["mlflow.source.name"] == str(script)
    assert "mlflow.source.git.commit" in expected
    for is_tracked in ("True", "False"):
        env["DBND__MLFLOW_TRACKING__DATABAND_TRACKING"] = is_tracked
        assert tags_in(dbnd("run", f"{script}::train", **env)) == expected


def test_what_the_environment_says_of_the_source_stands(dbnd, script, inner_uri, home, unflushed):
    given = json.dumps({"mlflow.source.name": "nightly"})
    env = {"MLFLOW_TRACKING_URI": inner_uri, "MLFLOW_RUN_CONTEXT": given}
    found = tags_in(dbnd("run", f"{script}::train", **env))
    assert found["mlflow.source.name"] == "nightly"
    assert "mlflow.source.git.commit" in found
