"""The tracker behind nginx, both as ``docs/team.md`` says: TLS, names of hosts, pages of other sites, large bodies."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from kit.servers import free_port
from kit.warm import Warm

DOCUMENT = Path(__file__).parents[4] / "docs" / "team.md"
NAME = "tracker.example.com"
TOKEN = "for-the-proxy"

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
pytestmark = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None, reason="nginx or openssl is not installed"
)

# Around the document's server: everything within one folder, in one process that need not become another user.
SURROUNDINGS = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {server}
}}
"""


def _block(language: str, start: str) -> str:
    """The code of ``docs/team.md`` that begins with ``start``."""
    found = re.search(rf"```{language}\n({re.escape(start)}.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found, start
    return found[1]


def _changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


class Proxied:
    """What a client sees of the tracker through the proxy."""

    def __init__(self, url: str, certificate: Path) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False  # certificates of the environment would go before this one
        self.session.verify = str(certificate)
        self.session.headers["Host"] = NAME

    def ask(self, method: str, path: str, token: str | None = TOKEN, **options: Any) -> requests.Response:
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
        return self.session.request(
            method, f"{self.url}{path}", headers=headers, timeout=60, allow_redirects=False, **options
        )


@pytest.fixture
def proxied(
    tmp_path: Path,
    postgresql: Any,
    template: str,
    start_server: Callable[..., Any],
    warm: Warm,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Proxied]:
    """nginx before the tracker, with the configurations of the document but for ports, files and workers."""
    database, port, front = postgresql.create(template), free_port(), free_port()
    config = tmp_path / "databand.cfg"
    changes = {
        "port = 8080": f"port = {port}",
        "postgresql://tracker:secret@db.example.com/tracker": database,
        "workers = 4": "workers = 2",
        "/var/log/databand/access.jsonl": str(tmp_path / "access.jsonl"),
    }
    config.write_text(_changed(_block("ini", "[tracker]"), changes))
    monkeypatch.setenv("DBND_CONFIG", str(config))
    monkeypatch.setenv("DBND__TRACKER__TOKEN", TOKEN)
    certificate, key = tmp_path / "tracker.crt", tmp_path / "tracker.key"
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{front} ssl",
        "/etc/ssl/tracker.crt": str(certificate),
        "/etc/ssl/tracker.key": str(key),
        "http://127.0.0.1:8080": f"http://127.0.0.1:{port}",
    }
    folder = tmp_path / "nginx"
    folder.mkdir()
    settings = folder / "nginx.conf"
    settings.write_text(SURROUNDINGS.format(folder=folder, server=_changed(_block("nginx", "server {"), changes)))
    nginx = [str(NGINX), "-p", str(folder), "-c", str(settings)]
    checked = subprocess.run([*nginx, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with start_server(
        lambda log: warm.dbnd("tracker", "start", log=log), f"http://127.0.0.1:{port}", "/api/v1/auth/ping"
    ):
        process = subprocess.Popen(nginx, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found = Proxied(f"https://127.0.0.1:{front}", certificate)
            _wait_for(found, process, folder / "error.log")
            yield found
        finally:
            process.terminate()
            process.wait(60)
    postgresql.drop(database)


def _wait_for(proxied: Proxied, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    problem = ""
    while process.poll() is None and time.monotonic() < deadline:
        try:
            proxied.ask("GET", "/healthz").raise_for_status()
        except requests.ConnectionError as error:
            problem = str(error)
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"nginx does not answer: {problem}\n{log.read_text(errors='replace')}")


@pytest.mark.timeout(400)
def test_the_tracker_behind_the_proxy_of_the_document(proxied: Proxied, make_run: Any, tmp_path: Path) -> None:
    run = make_run()
    task = run.task()
    packed = {"Content-Encoding": "gzip", "Content-Type": "application/json"}

    # Clients with a token, gzip and kept connections; what they say is there.
    for call, body in (("init_run", run.init()), ("add_task_runs", run.add(task))):
        data = gzip.compress(json.dumps(body).encode())
        answer = proxied.ask("POST", f"/api/v1/tracking/{call}", data=data, headers=packed)
        assert (answer.status_code, answer.json()) == (200, {})
    assert proxied.ask("GET", f"/api/v1/runs/{run.uid}", data=gzip.compress(b"null"), headers=packed).ok
    assert proxied.ask("GET", "/api/v1/runs", token=None).status_code == 401
    assert proxied.ask("GET", "/api/v1/runs", token="guess").status_code == 401

    # A body larger than nginx takes by itself (1 MB).
    text = random.Random(0).randbytes(2_000_000).hex()
    log = {"task_run_attempt_uid": task.attempt, "log_body": text}
    assert proxied.ask("POST", "/api/v1/tracking/save_task_run_log", json=log).status_code == 200
    assert proxied.ask("GET", f"/api/v1/task-runs/{task.uid}/log").json()["log_body"] == text

    # The name is handed on, and looked at; so is the site of a page.
    assert proxied.ask("GET", "/api/v1/runs", headers={"Host": "evil.example"}).status_code == 400
    for origin, status in (("https://evil.example", 403), (f"https://{NAME}", 200)):
        answer = proxied.ask("POST", "/api/v1/tracking/init_run", json=run.init(), headers={"Origin": origin})
        assert answer.status_code == status

    # People are sent to the form on the address that they have come to, and their session stays within TLS.
    away = proxied.ask("GET", "/", token=None, headers={"Accept": "text/html"})
    assert (away.status_code, away.headers["Location"]) == (303, "/login?next=/")
    entered = proxied.ask("POST", "/login", token=None, data={"token": TOKEN, "next": "/"})
    assert entered.status_code == 303
    assert "secure" in entered.headers["Set-Cookie"].lower()
    assert proxied.ask("GET", "/", token=None, headers={"Accept": "text/html"}).status_code == 200

    # The access log has who asked and what; no token.
    entries = [json.loads(line) for line in (tmp_path / "access.jsonl").read_text().splitlines()]
    assert {entry["client"] for entry in entries} == {"127.0.0.1"}
    assert TOKEN not in (tmp_path / "access.jsonl").read_text()
    assert proxied.ask("GET", "/metrics").text.count("databand_tracker_requests_total{")
