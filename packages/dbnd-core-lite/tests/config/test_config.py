from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from kit.commands import command_line

from dbnd import ConfigError, config
from dbnd._config.settings import CoreSettings, RunInfoSettings
from dbnd._context.registry import load_config


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_each_layer_wins_over_the_one_below(home, monkeypatch):
    layers = [
        home / "dbnd/databand.cfg",
        home / "dbnd/project.cfg",
        home / "named.cfg",
        home / ".dbnd/databand.cfg",
    ]
    monkeypatch.setenv("DBND_CONFIG", str(layers[2]))
    write(layers[2], "")
    for path in layers:
        write(path, f"[run_info]\nname = {path.name}-{path.parent.name}\n")
        loaded = load_config()
        assert loaded.get("run_info", "name") == f"{path.name}-{path.parent.name}"
        assert loaded.source("run_info", "name") == f"{path}, line 2"
    monkeypatch.setenv("DBND__RUN_INFO__NAME", "environment")
    assert load_config().source("run_info", "name") == "environment variable DBND__RUN_INFO__NAME"
    conf_file = write(home / "extra.cfg", "[run_info]\nname = conf-file\n")
    with command_line(set_config=["run_info.name=command"]):
        assert load_config().get("run_info", "name") == "command"
    with command_line(set_config=["run_info.name=command"], conf_files=[str(conf_file)]):
        assert load_config().get("run_info", "name") == "conf-file"
        assert load_config(conf={"run_info.name": "code"}).get("run_info", "name") == "code"


def test_working_directory_counts_only_without_dbnd_home(monkeypatch):
    write(Path("project.cfg"), "[run_info]\nname = here\n")
    assert load_config().get("run_info", "name") is None
    monkeypatch.delenv("DBND_HOME")
    assert load_config().get("run_info", "name") == "here"


def test_names_are_case_insensitive_and_percent_signs_stand(monkeypatch):
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", "http://h/%2F")
    with command_line(set_config=["Run_Info.Name=100%"]):
        loaded = load_config()
    assert loaded.get("CORE", "Databand_Url") == "http://h/%2F"
    assert loaded.get("run_info", "name") == "100%"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("Yes", True), ("t", True), ("1", True), ("f", False)])
def test_booleans_as_the_original_client_reads_them(text, value):
    loaded = load_config(conf={"core.tracker_raise_on_error": text})
    assert loaded.settings(CoreSettings).tracker_raise_on_error is value


def test_json_and_empty_values():
    loaded = load_config(conf={"core.extra_default_headers": '{"X-A": "1"}', "run_info.name": ""})
    assert loaded.settings(CoreSettings).extra_default_headers == {"X-A": "1"}
    assert loaded.settings(RunInfoSettings).name is None


def test_a_value_of_the_wrong_type_is_named_with_its_source(home):
    write(home / "dbnd/databand.cfg", "[core]\n# seconds\nflush_timeout = soon\n")
    with pytest.raises(ConfigError) as caught:
        load_config().check()
    text = str(caught.value)
    assert text.startswith("core.flush_timeout = 'soon' (")
    assert "databand.cfg, line 3" in text
    assert "number" in text


def test_a_wrong_secret_is_not_printed():
    with pytest.raises(ConfigError) as caught:
        load_config(conf={"core": {"databand_access_token": ["hunter2"]}}).check()
    assert "hunter2" not in str(caught.value)
    assert "core.databand_access_token = '***'" in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [("core.databnad_url=x", "Did you mean 'core.databand_url'?"), ("cor.x=1", "Did you mean 'core'?")],
)
def test_an_unknown_key_on_the_command_line_is_an_error(assignment, hint):
    with command_line(set_config=[assignment]), pytest.raises(ConfigError, match=r"--set-config") as caught:
        load_config().check()
    assert hint in str(caught.value)


def test_an_unknown_key_in_code_is_an_error():
    with pytest.raises(ConfigError, match=r"core\.nothing \(conf\) does not exist"):
        load_config(conf={"core": {"nothing": 1}}).check()


@pytest.mark.parametrize("conf", ["core.flush_timeout=1", [("core", {})], {1: 2}, {"core": 5}])
def test_what_is_no_configuration_in_code_is_an_error(conf):
    with pytest.raises(ConfigError, match=r"^conf.* (is a \w+, and not|is neither) .*section"):
        load_config(conf=conf)


def test_an_unknown_key_in_a_file_is_a_warning_with_file_and_line(home, capsys):
    path = write(home / "dbnd/databand.cfg", "[core]\ndatabnad_url = http://h\n")
    loaded = load_config()
    loaded.check()
    said = capsys.readouterr().err
    assert f"{path}, line 2" in said
    assert "Did you mean 'core.databand_url'?" in said
    assert loaded.get("core", "databand_url") is None


def test_keys_of_the_original_client_are_accepted_quietly(home, capsys):
    text = "[core]\ntracker = ['api']\n[airflow]\nanything = 1\n[tracking]\nlog_histograms = False\n"
    write(home / "dbnd/databand.cfg", text)
    load_config(conf={"core.tracker_api": "disabled"}).check()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [("name = x\n", "line 1: a [section] must stand"), ("[core]\nwhat is this\n", "line 2"), ("[core\n", "line 1")],
)
def test_a_broken_file_is_named_with_its_line(home, text, reason):
    path = write(home / "dbnd/databand.cfg", text)
    with pytest.raises(ConfigError) as caught:
        load_config()
    assert f"{path}, {reason}" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://[::1",
        "http://h:99999",
        "http://h:0",
        "https://h:x",
        "http://h h",
        "localhost:8080",
        "http://?q",
    ],
)
def test_an_address_that_no_server_has_is_an_error_at_once(url):
    with pytest.raises(ConfigError, match=r"core\.databand_url = .* cannot be used: \S+"):
        load_config(conf={"core.databand_url": url}).check()


@pytest.mark.parametrize(
    "setting", ["core.journal_folder=~nobody-here/x", "core.databand_url=sqlite:///~nobody-here/x"]
)
def test_a_home_that_is_not_known_is_an_error(setting):
    name, _, value = setting.partition("=")
    with pytest.raises(
        ConfigError, match=r"nobody-here.* cannot be used: .*the home that its ~ stands for is not known"
    ):
        load_config(conf={name: value}).check()


@pytest.mark.parametrize("key", ["core.flush_timeout", "core.api_request_timeout_sec", "run.heartbeat_interval_s"])
@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
def test_a_time_that_no_clock_reaches_is_an_error(key, value):
    with pytest.raises(ConfigError, match=key):
        load_config(conf={key: value}).check()


def test_blanks_around_a_value_of_the_environment_are_none_of_it(monkeypatch):
    """A token that was read from a file ends with a line break."""
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", " http://h:1 ")
    monkeypatch.setenv("DBND__CORE__DATABAND_ACCESS_TOKEN", "t0ken\n")
    core = load_config().settings(CoreSettings)
    assert (core.databand_url, core.databand_access_token.get_secret_value()) == ("http://h:1", "t0ken")


@pytest.mark.parametrize("assignment", ["core.x", "x=1", ".x=1", "core.=1"])
def test_a_malformed_assignment_is_named(assignment):
    wrong = pytest.raises(ConfigError, match=r"is not of the form section\.key=value")
    with command_line(set_config=[assignment]), wrong:
        load_config()


def test_missing_files_that_were_named_are_errors(monkeypatch):
    missing = pytest.raises(ConfigError, match=r"'no\.cfg' given with --conf-file does not exist")
    with command_line(conf_files=["no.cfg"]), missing:
        load_config()
    monkeypatch.setenv("DBND_CONFIG", "gone.cfg")
    with pytest.raises(ConfigError, match="DBND_CONFIG does not exist"):
        load_config()


def test_config_outside_of_a_context_reads_the_layers(monkeypatch):
    monkeypatch.setenv("DBND__TRACKING__PROJECT", "p")
    assert config.get("tracking", "project") == "p"
    assert config.get("tracking", "job", "fallback") == "fallback"
    assert config.get("mine", "own") is None


def test_show_prints_value_and_source_and_masks_secrets(dbnd, home):
    write(
        home / "dbnd/databand.cfg", "[core]\ndataband_url = http://user:hunter2@h:1\ndatabnad_access_token = hunter2\n"
    )
    done = dbnd("config", "show", "-c", "core.databand_access_token=hunter2")
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    rows = json.loads(dbnd("config", "show", "core", "--json").stdout)
    values = {row["key"]: row for row in rows}
    assert values["databand_url"]["value"] == "http://***@h:1"
    assert values["databand_url"]["source"].endswith("databand.cfg, line 2")
    assert values["databnad_access_token"]["source"].endswith("(not used)")
    assert values["flush_timeout"] == {"section": "core", "key": "flush_timeout", "value": "10.0", "source": "default"}


def test_a_misspelt_secret_is_not_shown(monkeypatch):
    monkeypatch.setenv("DBND__CORE__DATABAND_ACCESS_TOKN", "hunter2")
    monkeypatch.setenv("DBND__CROE__DBND_PASWORD", "hunter2")
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOT", "7")
    unused = {row.key: row.value for row in load_config().explain() if "not used" in row.source}
    assert unused == {"databand_access_tokn": "***", "dbnd_pasword": "***", "flush_timeot": "7"}


def test_show_of_an_unknown_name_is_a_usage_error(dbnd):
    done = dbnd("config", "show", "nothing")
    assert done.returncode == 2
    assert "There is no section or key 'nothing'" in done.stderr


BROKEN = {
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00core"),
    "no section": lambda path: path.write_text("key = 1"),
    "no value": lambda path: path.write_text("[core]\n:::"),
    "a folder": lambda path: path.mkdir(),
    "a loop": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("break_", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_an_error_for_commands_and_one_warning_for_a_training(home, capsys, break_):
    path = home / ".dbnd/databand.cfg"
    path.parent.mkdir(parents=True)
    break_(path)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load_config()
    for _ in range(2):
        assert load_config(lenient=True).files == ()
    assert capsys.readouterr().err.count(str(path)) == 1


def test_a_file_that_is_named_and_missing_is_an_error_for_commands_and_a_warning_for_a_training(monkeypatch, capsys):
    monkeypatch.setenv("DBND_CONFIG", "/nowhere/named.cfg")
    with pytest.raises(ConfigError, match="named by the environment variable DBND_CONFIG does not exist"):
        load_config()
    load_config(lenient=True)
    assert "named.cfg" in capsys.readouterr().err


def test_a_wrong_value_is_an_error_for_commands_and_its_default_for_a_training(monkeypatch, capsys):
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "abc")
    monkeypatch.setenv("DBND__CORE__CONNECT_TIMEOUT", "-1")
    monkeypatch.setenv("DBND__CORE__SYNC_TIMEOUT", "3")
    with pytest.raises(ConfigError, match="_TIMEOUT"):
        load_config().settings(CoreSettings)
    found = load_config(lenient=True).settings(CoreSettings)
    assert (found.flush_timeout, found.connect_timeout, found.sync_timeout) == (10.0, 5.0, 3.0)
    said = capsys.readouterr().err
    assert said.count("The default is used") == 2


def test_a_deleted_working_directory_has_no_configuration(tmp_path, monkeypatch):
    monkeypatch.delenv("DBND_HOME")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load_config().files == ()
    monkeypatch.setenv("DBND_HOME", "relative")
    assert load_config().settings(CoreSettings).journals == Path("relative/journal")


def test_a_home_that_nobody_may_look_at_has_no_configuration(monkeypatch):
    # A name that is too long is refused as a folder of another user is, also to root.
    monkeypatch.setenv("HOME", f"/{'x' * 300}")
    assert load_config().files == ()
    monkeypatch.setenv("DBND_CONFIG", f"/{'x' * 300}/databand.cfg")
    with pytest.raises(ConfigError, match="cannot be read: File name too long"):
        load_config()
