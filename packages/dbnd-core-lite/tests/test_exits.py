"""Scripts that end themselves while ``dbnd_tracking().start()`` tracks them."""

from __future__ import annotations

import sys

import pytest

from dbnd import dbnd_tracking


@pytest.mark.parametrize(
    ("end", "code", "state", "message"),
    [
        ("sys.exit()", 0, "SUCCESS", None),
        ("sys.exit(0)", 0, "SUCCESS", None),
        ("sys.exit(3)", 3, "FAILED", "The script ended with exit code 3."),
        ("sys.exit('there is no data')", 1, "FAILED", "there is no data"),
        ("def main(): quit(4)\nmain()", 4, "FAILED", "The script ended with exit code 4."),
        ("argparse.ArgumentParser().parse_args(['--x'])", 2, "FAILED", "The script ended with exit code 2."),
        ("try: sys.exit(5)\nfinally: log_metric('b', 1)", 5, "FAILED", "The script ended with exit code 5."),
        ("try: sys.exit(3)\nexcept SystemExit: pass", 0, "SUCCESS", None),
        ("thread = threading.Thread(target=sys.exit, args=(3,))\nthread.start()\nthread.join()", 0, "SUCCESS", None),
        ("sys.excepthook = lambda *_: print('mine', file=sys.stderr)\n1 / 0", 1, "FAILED", "division by zero"),
        ("tracking.stop()\nsys.exit(3)", 3, "SUCCESS", None),
    ],
)
def test_the_exit_code_of_a_script_ends_its_run(python, server, end, code, state, message):
    script = (
        "import argparse, sys, threading\nfrom dbnd import dbnd_tracking, log_metric\n"
        f"tracking = dbnd_tracking('script').start()\nlog_metric('a', 1)\n{end}\n"
    )
    done = python(script, DBND__CORE__DATABAND_URL=server.url, DBND__CORE__DATABAND_ACCESS_TOKEN="t")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    bodies = [r.body for r in server.requests if r.path.endswith("/set_run_state")]
    assert [body["state"] for body in bodies] == [state]
    ended = [r.body for r in server.requests if r.path.endswith("/update_task_run_attempts")]
    errors = [update["error"] for body in ended for update in body["task_run_attempt_updates"] if update.get("error")]
    assert [error["msg"] for error in errors] == ([] if message is None else [message])


def test_stop_gives_back_the_ways_to_exit(server):
    before = sys.exit
    conf = {"core": {"databand_url": server.url, "databand_access_token": "t"}}
    tracking = dbnd_tracking("job", conf=conf).start()
    assert sys.exit is not before
    tracking.stop()
    assert sys.exit is before
