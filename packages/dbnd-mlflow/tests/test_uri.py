from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnd import ConfigError
from dbnd._base.paths import sqlite_path, sqlite_url
from dbnd_mlflow import CompositeUri, build_composite_uri, is_composite_uri, parse_composite_uri


def test_the_form_that_users_know():
    uri = build_composite_uri("http://localhost:8080", "http://mlflow-store:80/")
    assert uri == "dbnd://localhost:8080?duplicate_tracking_to=http%253A%252F%252Fmlflow-store%253A80%252F"


@pytest.mark.parametrize(
    ("databand_url", "start"),
    [
        ("http://h:1", "dbnd://h:1?"),
        ("https://h", "dbnd+s://h?"),
        ("http://h/sub", "dbnd://h/sub?"),
        ("http://u:p@h", "dbnd://u:p@h?"),
        ("sqlite:////var/lib/tracker.db", "dbnd:///var/lib/tracker.db?"),
        ("postgresql://u:p@h/db", "dbnd://?databand_url=postgresql%253A%252F%252F"),
    ],
)
def test_every_kind_of_tracker_has_its_form(databand_url, start):
    uri = build_composite_uri(databand_url, "sqlite:///x.db")
    assert uri.startswith(start)
    assert parse_composite_uri(uri) == CompositeUri(databand_url, "sqlite:///x.db")


@pytest.mark.parametrize(
    ("scheme", "url"), [("dbnd", "http"), ("databand", "http"), ("dbnd+s", "https"), ("databand+s", "https")]
)
def test_all_four_schemes_are_read(scheme, url):
    assert parse_composite_uri(f"{scheme}://h:1").databand_url == f"{url}://h:1"
    assert is_composite_uri(f"{scheme}://h:1")


hosts = st.from_regex(r"[a-z][a-z0-9.-]{0,20}(:[1-9][0-9]{0,3})?", fullmatch=True)
paths = st.text(st.characters(codec="utf-8", exclude_characters="\x00?#"), min_size=1)
inner = st.one_of(
    paths.map(lambda path: f"sqlite:///{path}"),
    paths.map(lambda path: f"file:///{path}"),
    paths.map(lambda path: f"/{path}"),
    st.builds(
        "http://{}:{}@{}/{}".format, st.just("user"), st.from_regex(r"[\w%+&=]{1,9}", fullmatch=True), hosts, paths
    ),
    st.sampled_from(["databricks", "mlruns", "./a b%20c", "a+b", "a%b", "postgresql://u:p%40ss@h/db?x=1&y=2"]),
)


@given(hosts, st.sampled_from(["http", "https"]), inner)
def test_parsing_is_the_inverse_of_building(host, scheme, uri):
    url = f"{scheme}://{host}"
    assert parse_composite_uri(build_composite_uri(url, uri)) == CompositeUri(url, uri)


@given(paths.map(lambda path: f"/{path}").filter(lambda path: str(Path(path)) == path), inner)
def test_so_it_is_for_the_embedded_tracker(path, uri):
    url = sqlite_url(Path(path))
    assert parse_composite_uri(build_composite_uri(url, uri)) == CompositeUri(url, uri)


@pytest.mark.parametrize(
    "written",
    [
        "http%253A%252F%252Fu%253Ap%252540ss%2540h%252F",
        "http%3A%2F%2Fu%3Ap%2540ss%40h%2F",
        "http://u:p%2540ss@h/",
    ],
)
def test_one_two_or_no_encodings_mean_the_same(written):
    assert (
        parse_composite_uri(f"dbnd://h?duplicate_tracking_to={written}").duplicate_tracking_to == "http://u:p%40ss@h/"
    )


@pytest.mark.parametrize("uri", ["dbnd://h", "dbnd://h?", "dbnd://h?duplicate_tracking_to="])
def test_a_missing_half_is_mlflows_default(uri):
    assert parse_composite_uri(uri).duplicate_tracking_to is None


def test_a_composite_uri_inside_another_is_refused_without_its_password():
    nested = build_composite_uri("http://u:hunter2@h", "sqlite:///x.db")
    with pytest.raises(ConfigError, match="is a databand URI itself: name your own MLflow store") as caught:
        build_composite_uri("http://h", nested)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="is a databand URI itself"):
        parse_composite_uri("dbnd://h?duplicate_tracking_to=databand%253A%252F%252Fh")


@pytest.mark.parametrize("uri", ["http://h", "", "dbnd:h", "sqlite:///dbnd://x"])
def test_other_uris_are_not_ours(uri):
    assert not is_composite_uri(uri)
    with pytest.raises(ConfigError, match="is not a composite URI"):
        parse_composite_uri(uri)


def test_a_uri_without_a_tracker_says_what_to_write():
    with pytest.raises(ConfigError, match="names no tracker: write dbnd://host:port"):
        parse_composite_uri("dbnd://?duplicate_tracking_to=x")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            "duplicate_to=sqlite:///x.db",
            r"has 'duplicate_to', which is unknown: .*\. Did you mean 'duplicate_tracking_to'\?",
        ),
        ("Duplicate_Tracking_To=x", "has 'Duplicate_Tracking_To', which is unknown"),
        ("databandurl=http://h", r"Did you mean 'databand_url'\?"),
        ("zzz=1", r"knows duplicate_tracking_to \(the URI of your own MLflow store\) and databand_url\.$"),
        ("http%3A%2F%2Fu%3Ahunter2%40h", "which is unknown"),
        ("duplicate_tracking_to=x&duplicate_tracking_to=y", "has duplicate_tracking_to twice"),
        ("duplicate_tracking_to=x&databand_url=", "has no value for databand_url"),
    ],
)
def test_a_query_that_is_mistyped_is_an_error_that_names_what_is_known(query, said):
    with pytest.raises(ConfigError, match=said) as caught:
        parse_composite_uri(f"dbnd://u:hunter2@h?{query}")
    assert "hunter2" not in str(caught.value)


def test_a_forgotten_question_mark_is_said():
    with pytest.raises(ConfigError, match=r"has no '\?' between the tracker's address and duplicate_tracking_to"):
        parse_composite_uri("dbnd://h:1&duplicate_tracking_to=sqlite%253A%252F%252F%252Fx.db")


def test_mlflow_says_at_its_first_use_what_is_mistyped():
    mlflow.set_tracking_uri("dbnd://h?duplicate_to=sqlite:///x.db")
    for use in (mlflow.start_run, mlflow.MlflowClient, mlflow.search_runs):
        with pytest.raises(ConfigError, match=r"Did you mean 'duplicate_tracking_to'\?"):
            use()


@pytest.mark.parametrize("folder", ["shop_feature%2Flogin", "a?b", "a#b", "a b", "ü"])
def test_a_relative_tracker_stands_in_the_working_directory_whatever_its_name(tmp_path, monkeypatch, folder):
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    found = parse_composite_uri(build_composite_uri("sqlite:///rel.db")).databand_url
    assert sqlite_path(found)[0] == tmp_path / folder / "rel.db"
