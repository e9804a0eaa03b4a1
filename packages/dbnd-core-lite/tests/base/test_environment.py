from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dbnd._base import environment, paths
from dbnd._base.environment import _SlowFact
from dbnd._model import wire
from dbnd._model.run import Run, TaskDefinition

GIT = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"]


def git(*arguments, cwd=None):
    return subprocess.run([*GIT, *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    folder = tmp_path / "repository"
    git("init", str(folder))
    git("commit", "--allow-empty", "-m", "first", cwd=folder)
    monkeypatch.chdir(folder)
    return folder


def commit_as_git_says(folder):
    return git("rev-parse", "HEAD", cwd=folder)


@pytest.mark.parametrize("prepare", [[], ["pack-refs", "--all"], ["checkout", "--detach"], ["checkout", "-b", "a/b"]])
def test_the_commit_is_read_without_running_git(repository, monkeypatch, prepare):
    if prepare:
        git(*prepare, cwd=repository)
    expected = commit_as_git_says(repository)
    (repository / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(repository / "deep/er")
    monkeypatch.setenv("PATH", "")
    assert environment.code_version() == expected


def test_the_commit_of_a_worktree_is_its_own(repository, monkeypatch):
    git("worktree", "add", "-b", "other", str(repository.parent / "tree"), cwd=repository)
    git("commit", "--allow-empty", "-m", "second", cwd=repository.parent / "tree")
    monkeypatch.chdir(repository.parent / "tree")
    assert environment.code_version() == commit_as_git_says(repository.parent / "tree")
    assert environment.code_version() != commit_as_git_says(repository)


@pytest.mark.parametrize("head", [b"", b"ref: refs/heads/none\n", b"\xff\x00\n", b"x" * 100_000, None])
def test_a_broken_repository_has_no_commit(tmp_path, monkeypatch, head):
    (tmp_path / ".git").mkdir()
    if head is not None:
        (tmp_path / ".git/HEAD").write_bytes(head)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "_commit", _SlowFact(environment._read_commit))
    assert environment.code_version() is None


def test_a_fact_that_is_late_is_waited_for_once_and_taken_when_it_is_there(monkeypatch):
    monkeypatch.setattr(environment, "_PATIENCE", 0.05)
    answer, asked = threading.Event(), []

    def ask():
        asked.append(threading.current_thread())
        answer.wait()
        return "late"

    fact = _SlowFact(ask)
    assert [fact.get() for _ in range(3)] == [None] * 3
    assert len(asked) == 1
    answer.set()
    asked[0].join()
    assert fact.get() == "late"


def body():
    run = Run("job", "inplace_tracking")
    root = run.new_task_run(TaskDefinition("job"), parent=None)
    return wire.init_run(run, root, databand_url="http://h")["init_args"]


def test_a_run_is_announced_without_the_facts_that_cannot_be_found(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.delattr(sys, "argv")
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "DBND_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987_654)  # nobody's
    monkeypatch.setattr(environment, "_user", _SlowFact(environment.getpass.getuser))
    env = body()["task_run_env"]
    assert (env["project_root"], env["cmd_line"], env["user_code_version"]) == ("", "", "None")
    assert env["user"] == "uid 987654"
    assert paths.journal_folder().name == "journal"


def test_facts_are_text_whatever_names_are_made_of(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["a\udcff.py", Path("x y"), 5, "z" * 10**6])
    monkeypatch.setenv("DBND_USER", "m\udce9")
    env = body()["task_run_env"]
    assert env["cmd_line"].startswith("'a\\udcff.py' 'x y' 5 zzz")
    assert len(env["cmd_line"]) <= 10_000
    assert env["user"] == "m\\udce9"
