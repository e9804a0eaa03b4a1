"""Servers as real processes."""

from __future__ import annotations

import functools
import itertools
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from kit.warm import WarmProcess

Process = subprocess.Popen[bytes] | WarmProcess
Command = list[str] | Callable[[Path], WarmProcess]
"""A command line, or what starts a server from a warm process and lets it print to a file."""

StartServer = Callable[..., AbstractContextManager[str]]

_PATIENCE = 120


def free_port() -> int:
    """A loopback port that nothing listens on, of a hundred that only this process is given."""
    for port in _ports(os.getpid()):
        with suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            break
    return port


@functools.cache
def _ports(_: int) -> Iterator[int]:
    """Ports of a process, over and over, and none of those that a system gives to connections.

    A UDP socket claims them, which is open as long as the process lives.
    """
    while True:
        first = secrets.choice(range(20_000, 32_000, 100))
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
        else:
            claim.detach()
            return itertools.cycle(range(first, first + 100))


@contextmanager
def server_process(
    command: Command, url: str, ready: str, logs: Path, env: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Start a server, wait until it answers, and end it with the block; its output goes to a file in ``logs``.

    Args:
        command: Its command.
        url: Where it serves.
        ready: Path that it answers as soon as it is ready.
        logs: Where it runs.
        env: The environment of a command line; None is that of the caller.
    """
    process = start_process(command, url, ready, logs, env)
    try:
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except (subprocess.TimeoutExpired, TimeoutError):
            kill(process)


def start_process(command: Command, url: str, ready: str, logs: Path, env: Mapping[str, str] | None = None) -> Process:
    """Start a server in a session of its own, and wait until it answers (see ``server_process``)."""
    log = logs / f"server-{time.monotonic_ns()}.log"
    process = command(log) if callable(command) else _popen(command, log, env)
    try:
        _wait_for(f"{url}{ready}", process, log)
    except BaseException:
        kill(process)
        raise
    return process


def _popen(command: list[str], log: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=log.parent,
            env=env,
        )


def kill(process: Process) -> None:
    """Kill a server with all its processes, by SIGKILL."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for(url: str, process: Process, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).read()
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
        else:
            return
    msg = f"{url} does not answer:\n{log.read_text(errors='replace')}"
    raise AssertionError(msg)
