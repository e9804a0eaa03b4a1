"""The released client in its own environment, against a server of ours."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

PROGRAMS = Path(__file__).parent / "programs"
PYTHON = "DBND_REALCLIENT_PYTHON"
"""Environment variable that names the interpreter with the released client; `nox -s realclient` sets it."""
_INTERPRETER = os.environ.get(PYTHON)


@dataclass
class RealClient:
    """The released client, unchanged; it is told of the tracker by its environment."""

    python: Path
    home: Path
    url: str

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of its environment (``python``, ``dbnd``) to its end."""
        return subprocess.run(
            [str(self.python.parent / command[0]), *command[1:]],
            env=self.environment(**env),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def environment(self, **env: str) -> dict[str, str]:
        return {
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "DBND__CORE__DATABAND_URL": self.url,
            "PYTHONPATH": str(PROGRAMS),
            **env,
        }

    def program(self, name: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", str(PROGRAMS / f"{name}.py"), **env)


@dataclass
class Readable:
    """The read API, as someone asks it who has the token."""

    url: str
    token: str | None = None

    def get(self, path: str, **query: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        answer = requests.get(f"{self.url}{path}", params=query, headers=headers, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    def runs(self, **query: Any) -> list[dict[str, Any]]:
        return self.get("/api/v1/runs", **query)["data"]

    def run(self, **query: Any) -> dict[str, Any]:
        """The one run that meets the conditions, with everything in it."""
        (found,) = self.runs(**query)
        return self.get(f"/api/v1/runs/{found['run_uid']}")

    def points(self, task: dict[str, Any], key: str) -> list[Any]:
        found = self.get(f"/api/v1/task-runs/{task['task_run_uid']}/metrics/history", key=key)["data"]
        return [point["value"] for point in found]

    def log(self, task: dict[str, Any]) -> str:
        return self.get(f"/api/v1/task-runs/{task['task_run_uid']}/log")["log_body"] or ""


@pytest.fixture(autouse=True)
def interpreter() -> Path:
    if _INTERPRETER is None:
        pytest.skip(f"{PYTHON} does not name an interpreter with the released client: use `nox -s realclient`")
    return Path(_INTERPRETER)


@pytest.fixture
def server(free_port: int, start_server: Callable[..., Any], home: Path) -> Iterator[Callable[..., str]]:
    """Starts our server, with options of its own, and gives its URL; it must not say anything but its address."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(*options: str) -> str:
            dbnd = str(Path(sysconfig.get_path("scripts")) / "dbnd")
            command = [dbnd, "tracker", "start", "--port", str(free_port), *options]
            return stack.enter_context(start_server(command, f"http://127.0.0.1:{free_port}", "/readyz"))

        yield start


@pytest.fixture
def client_of(interpreter: Path, tmp_path: Path) -> Callable[..., tuple[RealClient, Readable]]:
    """A client of the tracker at a URL, and what reads that with a token."""

    def make(url: str, token: str | None = None) -> tuple[RealClient, Readable]:
        folder = tmp_path / "real-home"
        folder.mkdir()
        return RealClient(interpreter, folder, url), Readable(url, token)

    return make


@pytest.fixture
def client(server: Callable[..., str], client_of: Callable[..., tuple[RealClient, Readable]]) -> RealClient:
    """A client of a tracker that asks for no token."""
    return client_of(server())[0]


@pytest.fixture
def tracked(client: RealClient) -> Readable:
    return Readable(client.url)
