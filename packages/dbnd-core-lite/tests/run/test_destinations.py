"""A plugin sends events to something else than a tracker: by its own transport, with its own words."""

from __future__ import annotations

import threading

import click
import pytest

from dbnd import hookimpl, new_dbnd_context
from dbnd._base.paths import journal_folder
from dbnd._cli.doctor import examine
from dbnd._cli.progress import RunProgress
from dbnd._cli.summary import summary
from dbnd._context.plugins import plugins
from dbnd._context.registry import create_transport, destination_of, load_config
from dbnd._journal.leftovers import find
from dbnd._model.run import Run
from dbnd._run.sync import Sync, delivering_leftovers
from dbnd.tracking import Destination, Outbox, UnreachableError

NAME = "the store of shelves"


class Shelves:
    """A plugin with a transport of its own."""

    def __init__(self, transport):
        self.transport, self.whole_url = transport, None
        self.asked, self.threads = [], set()

    @hookimpl
    def dbnd_transports(self):
        return {"shelf": self.at}

    @hookimpl
    def dbnd_destination(self, url, config):
        return Destination(NAME, self.whole_url, "build a shelf") if url.startswith("shelf:") else None

    def at(self, url, config):
        self.asked.append(url)
        self.threads.add(threading.current_thread())
        return self.transport


@pytest.fixture
def shelves(scripted):
    made, manager = Shelves(scripted(*[UnreachableError("it is closed")] * 100)), plugins()
    manager.register(made, "shelves")
    yield made
    manager._pluggy.unregister(made)
    manager.infos.pop()


def test_an_outbox_keeps_what_is_not_taken_and_a_sync_delivers_it(shelves, capsys):
    outbox = Outbox("shelf:a", load_config(), create_transport, destination=NAME)
    for value in (1.0, 2.0):
        outbox.keep("log_metrics", [["run", {"any": "source"}, ["loss", value, 0, None, None]]])
    outbox.keep("set_tag", {"key": "k"})
    assert outbox.unsent == 3
    assert f"3 events are not delivered, because {NAME} does not take them (it is closed)" in outbox.close(10)

    report = Sync(journal_folder(), load_config()).deliver(patience=1)
    assert {each.name: events for each, events in report.elsewhere.items()} == {NAME: 3}

    shelves.transport.script.clear()
    shelves.whole_url = "shelf:user:secret@a"
    assert Sync(journal_folder(), load_config()).deliver(patience=1).is_complete
    assert shelves.asked == ["shelf:a", "shelf:user:secret@a"]
    assert [(batch.call, batch.body) for batch in shelves.transport.batches] == [
        ("log_metrics", [["run", {"any": "source"}, ["loss", 1.0, 0, None, None, "loss", 2.0, 0, None, None]]]),
        ("set_tag", {"key": "k"}),
    ]
    assert find(journal_folder()) == []
    assert "tracker" not in capsys.readouterr().err


def test_any_other_url_is_a_tracker_s(shelves):
    config = load_config(conf={"core.databand_url": "http://u:secret@host:1"})
    assert destination_of("http://***@host:1", config).url == "http://u:secret@host:1"
    another = destination_of("http://host:2", config)
    assert (another.name, another.url) == ("the tracker http://host:2", None)
    assert "core.databand_url=http://host:2" in another.hint


def test_what_waits_is_said_apart_from_what_waits_for_the_tracker(shelves, server, monkeypatch):
    def closed():
        raise UnreachableError("it is closed")

    monkeypatch.setenv("DBND__CORE__DATABAND_URL", server.url)
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "0")
    shelves.whole_url, shelves.transport.check = "shelf:a", closed
    outbox = Outbox("shelf:a", load_config(), create_transport, destination=NAME)
    outbox.keep("set_tag", {"key": "k"})
    assert not outbox.flush(10)

    summed_up = click.unstyle(summary(RunProgress(Run("job", "run"), None)))
    assert f"unsent   1 event for {NAME} waits: `dbnd sync`" in summed_up
    with new_dbnd_context() as context:
        shown = context._repr_html_()
    assert f"1 events for {NAME}" in shown
    assert f"{NAME}: it is closed" in shown
    texts = {(finding.check, finding.status): finding.text for finding in examine()}
    assert texts["journal", "ok"].startswith(f"1 events for {NAME} in 1 files are in use")
    assert texts["destination", "error"] == "The store of shelves cannot be used: it is closed."
    outbox.close(0)
    shelves.whole_url = None
    texts = {finding.check: finding.text for finding in examine()}
    assert texts["journal"].endswith("are waiting: that is not configured here, build a shelf.")
    assert "destination" not in texts


def test_what_delivers_beside_a_run_is_made_before_it_begins(shelves, server):
    outbox = Outbox("shelf:a", load_config(), create_transport, destination=NAME)
    outbox.keep("set_tag", {"key": "k"})
    outbox.close(0)
    shelves.transport.script.clear()
    shelves.whole_url = "shelf:a"
    # Its libraries would be imported in one thread, and those of the run in another: each would see them by halves.
    with delivering_leftovers(load_config(conf={"core.databand_url": server.url})):
        pass
    assert [batch.call for batch in shelves.transport.batches] == ["set_tag"]
    assert shelves.threads == {threading.current_thread()}
