"""What an MLflow run says of its source under ``dbnd run``: what it says when Python runs the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

SCRIPT = """
import json, mlflow
from dbnd import task

@task
def train():
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
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("tags ")]
    return json.loads(line.removeprefix("tags "))


@pytest.mark.parametrize("is_tracked", [True, False])
def test_the_source_and_its_commit_are_those_of_the_file_that_is_run(
    cold_dbnd, script, inner_uri, home, unflushed, is_tracked
):
    env = {"MLFLOW_TRACKING_URI": inner_uri, "DBND__MLFLOW_TRACKING__DATABAND_TRACKING": str(is_tracked)}
    command = [sys.executable, str(script)]
    environment = {**os.environ, **env}
    plain = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=100)
    expected = tags_in(plain)
    assert expected["mlflow.source.name"] == str(script)
    assert "mlflow.source.git.commit" in expected
    assert tags_in(cold_dbnd("run", f"{script}::train", **env)) == expected


def test_what_the_environment_says_of_the_source_stands(cold_dbnd, script, inner_uri, home, unflushed):
    given = json.dumps({"mlflow.source.name": "nightly"})
    env = {"MLFLOW_TRACKING_URI": inner_uri, "MLFLOW_RUN_CONTEXT": given}
    found = tags_in(cold_dbnd("run", f"{script}::train", **env))
    assert found["mlflow.source.name"] == "nightly"
    assert "mlflow.source.git.commit" in found
