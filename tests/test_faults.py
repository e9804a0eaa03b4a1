"""The kit itself: each fault is what its name says, as a plain HTTP client sees it."""

from __future__ import annotations

import os
import signal
import time
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pytest
import requests
from kit import faults
from kit.faults import Proxy

PING = "/api/v1/auth/ping"
CALL = "/api/v1/tracking/log_metrics"


@pytest.fixture
def post(proxy):
    """Post one batch of no metrics through the proxy, on a connection of its own."""

    def post(timeout=60.0, size=0, number=1):
        headers = {"X-Databand-Batch": f"{'ab' * 16}:{number}-{number}"}
        return requests.post(
            proxy.url + CALL, json={"metrics_info": [], "pad": "x" * size}, headers=headers, timeout=timeout
        )

    return post


def test_without_a_script_the_proxy_is_not_noticed(proxy, tracker, post):
    assert requests.get(proxy.url + PING, timeout=60).text == requests.get(tracker.url + PING, timeout=60).text
    assert post().status_code == 200
    assert [seen.path for seen in proxy.seen] == [PING, CALL]
    assert [seen.batch for seen in proxy.batches] == [f"{'ab' * 16}:1-1"]


def test_a_script_is_for_batches_and_ends(proxy, post):
    proxy.script(faults.answering(500), faults.answering(401))
    assert requests.get(proxy.url + PING, timeout=60).status_code == 200
    assert [post().status_code for _ in range(3)] == [500, 401, 200]
    assert [seen.fault for seen in proxy.batches] == ["answering(500)", "answering(401)", "passing"]
    assert proxy.rest == 0


@pytest.mark.parametrize(
    "fault", [faults.cut_connection, faults.cut_request, faults.cut_answer, faults.lost_answer, faults.garbage]
)
def test_broken_connections_are_no_answers(proxy, post, fault):
    proxy.script(fault)
    with pytest.raises(requests.RequestException) as caught:
        post()
    assert not isinstance(caught.value, requests.Timeout)
    assert post().status_code == 200


@pytest.mark.parametrize("fault", [faults.unanswered, faults.applied_unanswered])
def test_a_hanging_request_holds_nobody_else(proxy, post, fault):
    proxy.script(fault)
    with pytest.raises(requests.ReadTimeout):
        post(timeout=0.5)
    assert post().status_code == 200


def test_slow_answers_are_whole(proxy, post):
    proxy.script(faults.delaying(0.2), faults.dripping(0.001))
    started = time.monotonic()
    assert post().json() == post(number=2).json()
    assert time.monotonic() - started >= 0.2


def test_busy_says_when_to_come_again(proxy, post):
    proxy.script(faults.busy(7), faults.busy(7, as_date=True))
    assert post().headers["Retry-After"] == "7"
    answer = post()
    assert answer.status_code == 429
    due = parsedate_to_datetime(answer.headers["Retry-After"]) - datetime.now(timezone.utc)
    assert due <= timedelta(seconds=7)


def test_limits_are_those_of_the_body(proxy, post):
    proxy.otherwise = faults.limiting(1_000)
    assert [post(size=size).status_code for size in (10, 2_000, 10)] == [200, 413, 200]


def test_a_bad_gateway_speaks_html(proxy, post):
    proxy.script(faults.bad_gateway)
    answer = post()
    assert answer.status_code == 502
    assert answer.headers["Content-Type"] == "text/html"


def test_a_port_that_is_closed_refuses_and_stays_ours(proxy, post):
    assert post().status_code == 200
    proxy.refuse()
    with pytest.raises(requests.ConnectionError, match="refused"):
        post()
    proxy.listen()
    assert post().status_code == 200


def test_without_a_server_connections_end(tracker, proxy, post):
    tracker.kill()
    with pytest.raises(requests.ConnectionError):
        post()
    proxy.target = tracker.start()
    assert post().status_code == 200


def test_requests_that_a_proxy_holds_end_with_it(tracker):
    with Proxy(tracker.url) as proxy:
        proxy.otherwise = faults.unanswered
        with pytest.raises(requests.ReadTimeout):
            requests.get(proxy.url + PING, timeout=0.2)
    with pytest.raises(requests.ConnectionError):
        requests.get(proxy.url + PING, timeout=60)


def test_a_full_disk_takes_a_part_and_then_nothing(warm, tmp_path):
    process = warm.python(
        "import os\n"
        "from kit.faults import fill_disk, free_disk\n"
        "fd = os.open('file', os.O_WRONLY | os.O_CREAT)\n"
        "fill_disk(100)\n"
        "print(os.write(fd, b'x' * 80), os.write(fd, b'x' * 80))\n"
        "try: os.write(fd, b'x')\n"
        "except OSError as error: print(error.strerror)\n"
        "free_disk()\n"
        "print(os.write(fd, b'x'))\n",
        tmp_path / "log",
    )
    assert process.wait() == 0, process.output
    assert process.output.split() == ["80", "20", "File", "too", "large", "1"]


def test_a_folder_that_is_unusable_is_so_for_root(tmp_path):
    with pytest.raises(OSError, match="Not a directory"):
        faults.unusable_folder(tmp_path / "a/file").mkdir(parents=True)


def test_a_clock_that_jumps_goes_on(warm, tmp_path):
    process = warm.python(
        "import time\n"
        "from kit.faults import shift_clock\n"
        "before = time.time()\n"
        "shift_clock(-86_400)\n"
        "assert -86_401 < time.time() - before < -80_000\n"
        "assert -86_401e9 < time.time_ns() - before * 1e9 < -80_000e9\n",
        tmp_path / "log",
    )
    assert process.wait() == 0, process.output


def test_a_warm_process_is_one_of_its_own(warm, tmp_path):
    process = warm.python(
        "import atexit, os, sys\n"
        "atexit.register(print, 'exit')\n"
        "print(os.environ['GIVEN'], os.getcwd(), os.getppid() != os.getsid(0))\n"
        "sys.exit(3)\n",
        tmp_path / "log",
        GIVEN="given",
    )
    assert process.wait() == 3
    assert process.output == f"given {os.getcwd()} True\nexit\n"  # noqa: PTH109  as the child has it
    sleeping = warm.python("import time; time.sleep(600)", tmp_path / "log2")
    assert sleeping.poll() is None
    sleeping.kill()
    assert sleeping.returncode == -signal.SIGKILL


def test_a_warm_command_is_the_command(warm, tmp_path):
    process = warm.dbnd("--version", log=tmp_path / "log")
    assert process.wait() == 0
    assert "dbnd, version" in process.output
    process = warm.dbnd("no-such-command", log=tmp_path / "log2")
    assert process.wait() == 2
