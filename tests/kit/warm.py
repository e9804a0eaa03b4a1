"""Processes that start within milliseconds: forks of one parent that has imported everything and done nothing.

A test that kills a hundred processes cannot wait a second for the imports of each. The parent has no threads, has
logged nothing and opened nothing, so that a fork of it is what a fresh process is after its imports. It ends as one,
too, but for one thing, unless it is asked for: no module is taken apart, which takes longer than what most tests do.

Run as a program, this module is the parent: it takes one request a line from standard input, as JSON.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from typing_extensions import Self

# Seconds that a process may take before a test gives it up; none is expected to take a tenth of it.
LIMIT = 120
_PR_SET_PDEATHSIG = 1
_PACKAGES = ("dbnd", "dbnd_tracker", "dbnd_mlflow", "mlflow.tracking", "mlflow.store.tracking")
# What MLflow imports with the first request to a server, with the first run, and in a server.
_LATER = ("IPython", "git", "mlflow.server", "mlflow.server.fastapi_app", "mlflow.cli", "uvicorn")


class Warm:
    """The parent, as a test holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed at the end
        self._parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._children: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in list(self._children):
            os.kill(pid, signal.SIGKILL)
        self._parent.communicate(timeout=LIMIT)
        self._errors.close()

    def python(self, code: str, log: Path, **env: str) -> WarmProcess:
        """Start Python code.

        Args:
            code: What it does, as the main module.
            log: Takes its standard output and error.
            env: Variables beside those of the caller.
        """
        return self.start({"code": code}, log, env=os.environ | env)

    def dbnd(self, *arguments: str, log: Path, **env: str) -> WarmProcess:
        """Start the ``dbnd`` command.

        Args:
            arguments: Its command line.
            log: Takes its standard output and error.
            env: Variables beside those of the caller.
        """
        return self.start({"arguments": arguments}, log, env=os.environ | env)

    def run(self, command: Mapping[str, Any], timeout: float, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as ``subprocess.run`` does.

        Args:
            command: ``arguments`` of ``dbnd``, or the ``code`` of a main module; with ``finalize``, the interpreter
                itself ends the process.
            timeout: Seconds after which it is killed.
            env: Variables beside those of the caller.

        Raises:
            subprocess.TimeoutExpired: It has not ended in time.
        """
        with tempfile.TemporaryDirectory(prefix="warm-") as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            process = self.start(command, out, err, env=os.environ | env)
            try:
                code = process.wait(timeout)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise subprocess.TimeoutExpired(str(command), timeout, out.read_bytes(), err.read_bytes()) from None
            # As with a pipe, what children of the process still write is not waited for.
            return subprocess.CompletedProcess([*command.values()], code, out.read_text(), err.read_text())

    def start(
        self,
        command: Mapping[str, Any],
        log: Path,
        errors: Path | None = None,
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
    ) -> WarmProcess:
        """Start a command.

        Args:
            command: ``arguments`` of ``dbnd``, or the ``code`` of a main module.
            log: Takes its standard output; a terminal becomes the one that controls it.
            errors: Takes its standard error, if not ``log``.
            env: All of its environment.
            cwd: Its folder, if not the caller's.
        """
        streams = {"log": str(log), "errors": str(errors or log)}
        request = {**command, **streams, "cwd": str(cwd or Path.cwd()), "env": dict(env)}
        pid = self.ask(request)
        self._children.add(pid)
        return WarmProcess(pid, log, self)

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send the parent a request, and return its answer."""
        with self._lock:
            assert self._parent.stdin is not None
            assert self._parent.stdout is not None
            try:
                self._parent.stdin.write(json.dumps(request) + "\n")
                self._parent.stdin.flush()
                return json.loads(self._parent.stdout.readline())
            except (BrokenPipeError, ValueError):
                self._errors.seek(0)
                msg = f"The warm parent has ended:\n{self._errors.read().decode(errors='replace')}"
                raise RuntimeError(msg) from None

    def poll(self, pid: int) -> int | None:
        """The exit code of a child (minus the signal that killed it), or None while it runs."""
        code: int | None = self.ask({"poll": pid})
        if code is not None:
            self._children.discard(pid)
        return code


@dataclass
class WarmProcess:
    """A process that was started by a warm parent."""

    pid: int
    log: Path
    warm: Warm
    returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        if self.returncode is None:
            self.returncode = self.warm.poll(self.pid)
        return self.returncode

    def wait(self, timeout: float = LIMIT) -> int:
        """Its exit code, as soon as it has ended.

        Raises:
            TimeoutError: It has not ended; its output is in the message.
        """
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                msg = f"The process has not ended within {timeout:g} s:\n{self.output}"
                raise TimeoutError(msg)
            _await_end(self.pid, deadline - time.monotonic())
        return code

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait for its end."""
        self.signal(signal.SIGKILL)
        self.wait()

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def _await_end(pid: int, seconds: float) -> None:
    """Wait for the end of a process so long; not every system tells that without being asked again and again."""
    try:
        opened = os.pidfd_open(pid)
    except (AttributeError, OSError):
        time.sleep(0.005)
        return
    try:
        select.select([opened], [], [], max(seconds, 0))
    finally:
        os.close(opened)


def _import_all() -> None:
    """Import every module of the packages: which of them a process needs is their own affair."""
    gc.disable()  # it finds nothing while all is imported, and takes its time
    for name in _PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__") and ".versions" not in module.name:
                try:
                    importlib.import_module(module.name)
                except ImportError:
                    continue  # an optional dependency that is not here
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in _LATER:
        with contextlib.suppress(ImportError):  # not with each MLflow
            importlib.import_module(name)
    with contextlib.suppress(ImportError):
        import sqlalchemy.orm

        from kit.mlflow_stores import remember_schema

        sqlalchemy.orm.configure_mappers()
        remember_schema()
    # What is imported stays: a child would pay for looking at all of it again at its end.
    gc.freeze()
    gc.enable()


def _serve() -> Mapping[str, Any] | None:
    """Answer requests; returns in a child what it is to do, and None in the parent at the end."""
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            streams = _open(request["log"], request["errors"])
            answer = os.fork()
            if answer == 0:
                return {**request, "streams": streams}
            for opened in streams:
                os.close(opened)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return None


def _open(log: str, errors: str) -> list[int]:
    """The three standard streams: input is empty, unless the log is a terminal."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOCTTY
    return [os.open(name, flags, 0o600) for name in (log if log.startswith("/dev/") else os.devnull, log, errors)]


def _become(request: Mapping[str, Any]) -> None:
    """Give this child the environment, folder and streams of its own, and do what it is to do."""
    os.setsid()
    _die_with_parent()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None  # what the parent has found in its own environment
    for stream, opened in enumerate(request["streams"]):
        os.dup2(opened, stream)
        os.close(opened)
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    code: Any = 0
    try:
        _do(request)
    except SystemExit as error:
        code = error.code
    if request.get("finalize") or not isinstance(code, int):
        sys.exit(code)
    _exit(code)


def _do(request: Mapping[str, Any]) -> None:
    if "code" in request:
        sys.argv = ["child.py"]
        exec(compile(request["code"], "child.py", "exec"), {"__name__": "__main__"})
    else:
        from dbnd._cli.main import main

        sys.argv = ["dbnd", *request["arguments"]]
        main()


def _exit(code: int) -> NoReturn:
    """Do what the interpreter does at the end, up to the point where it would take modules apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit.unregister(_keep_libraries)  # nothing is taken apart
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, as when a test run is killed; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep_libraries() -> None:
    """Let the interpreter end without taking libraries apart, which takes longer than what most tests do."""
    for name, module in list(sys.modules.items()):
        if "site-packages" in (getattr(module, "__file__", None) or "") and not name.startswith("dbnd"):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(module))
            del sys.modules[name]


def _main() -> None:
    sys.path[0] = str(Path(__file__).parents[1])  # children import from the kit, not from its inside
    atexit.register(_keep_libraries)  # before all others, and so called after them
    _import_all()
    assert threading.active_count() == 1, "a fork of a process with threads is no fresh process"
    request = _serve()
    if request is not None:
        _become(request)


if __name__ == "__main__":
    _main()
