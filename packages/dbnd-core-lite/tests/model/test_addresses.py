from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnd._base.paths import sqlite_path, sqlite_url
from dbnd._context.registry import configured_url, load_config
from dbnd._model import wire
from dbnd._model.addresses import page_path, page_url
from dbnd._model.run import Run, TaskDefinition

JOBS = ["train", "etl/daily #2", "a?b=c", "50%", "%2F", "ünï cödé", "a\udcffb"]
names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in {".", ".."}
)


@pytest.mark.parametrize("job", JOBS)
def test_every_address_of_a_run_is_the_same_and_quotes_the_job(job):
    run = Run(job, "run")
    root = run.new_task_run(TaskDefinition("t"), parent=None)
    url = page_url("http://me:geheim@h:1/base/", job, run.uid)
    assert "geheim" not in url
    assert url == page_url("http://h:1/base", job, run.uid)
    parts = urlsplit(url)
    assert (parts.query, parts.fragment) == ("", "")
    folder, name, uid = parts.path.rsplit("/", 2)
    assert (folder, uid) == ("/base/app/jobs", run.uid)
    assert unquote(name) == job.replace("\udcff", "?")
    announced = wire.init_run(run, root, databand_url="http://h:1/base")["init_args"]["new_run_info"]
    assert announced["root_run"]["root_run_url"] == url


@pytest.mark.parametrize("job", [".", "..", "", None])
def test_a_job_that_cannot_stand_in_a_path_is_left_out_of_it(job):
    assert page_path(job, "uid") == "/app/jobs/-/uid"


def test_a_tracker_without_a_server_has_no_pages():
    assert page_url("sqlite:////x.db", "job", "uid") is None


@given(st.lists(names, min_size=1, max_size=3))
def test_a_path_comes_out_of_a_url_as_it_went_in(parts):
    path = Path("/", *parts)
    assert sqlite_path(sqlite_url(path)) == (path, "")
    assert sqlite_path(sqlite_url(path, "timeout=5")) == (path, "timeout=5")


def test_a_path_that_is_no_utf_8_comes_out_of_a_url_as_it_went_in():
    path = Path(os.fsdecode(b"/a\xff\xfe/b"))
    assert sqlite_path(sqlite_url(path))[0] == path
    sqlite_url(path).encode("utf-8")


def test_a_url_whose_path_nobody_has_escaped_is_read():
    assert sqlite_path("sqlite:////home/x y/é/tracker.db") == (Path("/home/x y/é/tracker.db"), "")
    assert sqlite_url(Path("/home/x y/é/tracker.db")) == "sqlite:////home/x y/é/tracker.db"


@pytest.mark.parametrize("name", ["shop_feature%2Flogin", "a?b", "a#b", "a b", "50%"])
def test_the_tracker_stands_in_the_home_whatever_its_name(tmp_path, monkeypatch, name):
    monkeypatch.setenv("DBND_HOME", str(tmp_path / name))
    monkeypatch.delenv("DBND__CORE__DATABAND_URL", raising=False)
    url = configured_url(load_config())
    assert url is not None
    assert sqlite_path(url)[0] == tmp_path / name / "tracker.db"
    again = configured_url(load_config(conf={"core.databand_url": url}))
    assert again == url
