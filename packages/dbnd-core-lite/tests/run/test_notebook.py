"""A notebook, executed by a real kernel."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import pytest

from dbnd import UsageError, current_task_run, dbnd_tracking, get_databand_context, log_metric, new_dbnd_context

pytestmark = pytest.mark.process

XSS = "<script>alert(1)</script>\"'&"

CELLS = f"""
import signal, threading, asyncio
from dbnd import dbnd_tracking, get_databand_context, log_metric, task, current_task_run
before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)]
tracking = dbnd_tracking({XSS!r}, run_name="bold_curie")
tracking
# --
tracking.start()
# --
log_metric("in_another_cell", 1)
get_databand_context()
# --
def work():
    with dbnd_tracking("in a thread"):
        log_metric("threaded", 2)
thread = threading.Thread(target=work)
thread.start()
await asyncio.to_thread(thread.join)
# --
@task
async def step():
    await asyncio.sleep(0)
    log_metric("awaited", 3)
await step()
# --
with dbnd_tracking("in one cell") as run:
    log_metric("inner", 4)
run
# --
log_metric("after", 5)
tracking.stop()
tracking.stop()
tracking
# --
print(get_databand_context(), current_task_run())
print(before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH)])
# --
log_metric("nowhere", 6)
dbnd_tracking(run_name="not_stopped", job_name="last").start()
""".split("# --\n")


@pytest.fixture
def conf(server):
    return {"core.databand_url": server.url, "core.databand_access_token": "t"}


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        self.texts.append(data)


def parsed(html):
    parser = _Parser()
    parser.feed(html)
    assert parser.tags <= {"table", "caption", "tbody", "tr", "th", "td", "a"}
    return dict(zip(parser.texts[1::2], parser.texts[2::2], strict=True)), parser.links


def shown(cell):
    """The HTML that a cell shows, or its text."""
    (output,) = [output for output in cell.outputs if output.output_type in {"execute_result", "stream"}]
    return output.text if output.output_type == "stream" else output.data["text/html"]


def test_a_notebook_is_tracked_and_shows_its_runs(server, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("DBND__CORE__DATABAND_URL", server.url)
    monkeypatch.setenv("DBND__CORE__DATABAND_ACCESS_TOKEN", "t")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    NotebookClient(notebook, timeout=90, startup_timeout=100, kernel_name="python3").execute()
    cells = notebook.cells
    assert "not started" in parsed(shown(cells[0]))[0]["State"]

    facts, links = parsed(shown(cells[1]))
    assert (facts["Run"], facts["Job"], facts["State"]) == ("bold_curie", XSS, "running")
    assert links == [facts["Tracked"]]
    assert facts["Tracked"].startswith(f"{server.url}/app/jobs/%3Cscript%3Ealert%281%29%3C%2Fscript%3E%22%27%26/")
    assert facts["Tracked"].endswith(facts["Uid"])

    context, links = parsed(shown(cells[2]))
    assert (context["Run"], context["Tracker"]) == ("bold_curie", server.url)
    assert links == [facts["Tracked"], server.url]

    inner, _ = parsed(shown(cells[5]))
    assert (inner["Job"], inner["State"]) == ("in one cell", "success")
    assert parsed(shown(cells[6]))[0]["State"] == "success"
    assert shown(cells[7]) == "None None\nTrue\n"

    jobs: dict[str, str] = {}
    attempts: dict[str, tuple[str, str]] = {}
    for request in server.requests:
        if request.path.endswith("/init_run"):
            info = request.body["init_args"]
            jobs[info["new_run_info"]["run_uid"]] = info["new_run_info"]["job_name"]
            task_runs = info["task_runs_info"]["task_runs"]
        elif request.path.endswith("/add_task_runs"):
            task_runs = request.body["task_runs_info"]["task_runs"]
        else:
            continue
        for task_run in task_runs:
            attempts[task_run["task_run_attempt_uid"]] = task_run["run_uid"], task_run["name"]
    logged = {
        info["metric"]["key"]: (
            jobs[attempts[info["task_run_attempt_uid"]][0]],
            attempts[info["task_run_attempt_uid"]][1],
        )
        for request in server.requests
        if request.path.endswith("/log_metrics")
        for info in request.body["metrics_info"]
    }
    assert logged == {
        "in_another_cell": (XSS, XSS),
        "threaded": ("in a thread", "in a thread"),
        "awaited": (XSS, "step"),
        "inner": ("in one cell", "in one cell"),
        "after": (XSS, XSS),
    }
    states = [r.body["state"] for r in server.requests if r.path.endswith("/set_run_state")]
    # The last run was never stopped: it ends with the kernel.
    assert states.count("SUCCESS") == len(jobs) == 4


def test_start_and_stop(conf):
    tracking = dbnd_tracking("job", "name", conf=conf)
    assert repr(tracking) == "<dbnd_tracking, not started>"
    assert tracking.start() is tracking
    assert repr(tracking) == "<dbnd_tracking, run name of job, running>"
    assert current_task_run().run is tracking.run
    with pytest.raises(UsageError, match="has started already"):
        tracking.start()
    tracking.stop()
    assert repr(tracking) == "<dbnd_tracking, run name of job, success>"
    assert current_task_run() is None
    assert get_databand_context() is None
    first = tracking.run
    tracking.start()
    tracking.stop()
    assert tracking.run.uid != first.uid


@pytest.fixture
def sigterm():
    """Its handler as it was: a run that ends in another thread than it began in cannot put it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("sigterm")
def test_stopped_in_another_thread_than_started(conf):
    tracking = dbnd_tracking("job", conf=conf).start()
    with ThreadPoolExecutor() as threads:
        threads.submit(tracking.stop).result()
    assert get_databand_context() is None
    assert tracking.run.state.value == "success"
    log_metric("nowhere", 1)  # the thread that has started it may still think that it is in the run
    with dbnd_tracking("next", conf=conf) as run:
        assert current_task_run().run is run


def test_sigterm_after_a_run_was_stopped_in_another_thread_ends_the_process(python, server):
    script = (
        "import os, signal, threading, time\nfrom dbnd import dbnd_tracking\n"
        "tracking = dbnd_tracking('script').start()\n"
        "thread = threading.Thread(target=tracking.stop)\nthread.start()\nthread.join()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)\n"
    )
    done = python(script, DBND__CORE__DATABAND_URL=server.url, DBND__CORE__DATABAND_ACCESS_TOKEN="t")
    assert done.returncode == -15, done.stderr


@pytest.mark.parametrize(
    ("end", "code", "state"),
    [
        ("pass", 0, "SUCCESS"),
        ("raise ValueError('boom')", 1, "FAILED"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143, "CANCELLED"),
    ],
)
def test_a_script_that_never_stops_is_ended_with_its_process(python, server, end, code, state):
    script = f"from dbnd import dbnd_tracking, log_metric\ndbnd_tracking('script').start()\nlog_metric('a', 1)\n{end}\n"
    done = python(script, DBND__CORE__DATABAND_URL=server.url, DBND__CORE__DATABAND_ACCESS_TOKEN="t")
    assert done.returncode == code, done.stderr
    assert done.stderr.count("Traceback") == (code == 1)
    assert [r.body["state"] for r in server.requests if r.path.endswith("/set_run_state")] == [state]


def test_as_a_decorator_each_call_is_a_run(conf):
    runs = []

    @dbnd_tracking("job", conf=conf)
    def work():
        runs.append(current_task_run().run)

    work()
    work()
    assert runs[0] is not runs[1]
    assert {run.state.value for run in runs} == {"success"}


def test_as_a_decorator_of_a_coroutine_function_what_is_awaited_is_a_run(conf):
    @dbnd_tracking("decorated", conf=conf)
    async def coroutine():
        await asyncio.sleep(0)
        return current_task_run().run.job_name

    assert asyncio.run(coroutine()) == "decorated"
    with pytest.raises(UsageError, match=r"@dbnd_tracking\(\) cannot decorate .*generator"):

        @dbnd_tracking("decorated", conf=conf)
        def generator():
            yield


def test_runs_end_in_any_order(conf, monkeypatch):
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", "http://of-the-user:1")
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    runs = [dbnd_tracking(name, conf=conf).start() for name in "abc"]
    runs[1].stop()
    runs[0].stop()
    assert os.environ["DBND_PARENT_TASK_RUN_UID"] == runs[2].run.root.uid
    assert signal.getsignal(signal.SIGTERM) not in {signal.SIG_DFL, handler}
    runs[2].stop()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert dict(os.environ) == before


def test_links_are_of_the_web_and_everything_is_escaped(conf):
    with dbnd_tracking("job", XSS, conf=conf) as run:
        get_databand_context().client.save_external_links(
            run.root, {"mlflow": 'http://user:pw@h/"><b>', "bad": "javascript:alert(1)", XSS: "http://[h"}
        )
        facts, links = parsed(get_databand_context()._repr_html_())
    assert facts["mlflow"] == 'http://***@h/"><b>'
    assert facts[XSS] == "http://[h"
    assert facts["bad"] == "javascript:alert(1)"
    assert not any(re.match("javascript", link) for link in links)


def test_an_untracked_context_says_so(monkeypatch):
    monkeypatch.setattr("dbnd._run.session.configured_url", lambda _: None)
    with new_dbnd_context() as context:
        facts, links = parsed(context._repr_html_())
    assert facts == {"Tracker": "none: install dbnd-tracker or set core.databand_url"}
    assert links == []
