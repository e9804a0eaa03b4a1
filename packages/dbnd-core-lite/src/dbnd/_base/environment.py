"""What a run records of the process that it takes place in: user, command line, code version."""

from __future__ import annotations

import functools
import getpass
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final

from dbnd._base.forks import start
from dbnd._base.paths import working_directory

# Seconds for which a run waits for what may be slow to find.
_PATIENCE: Final = 0.25
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@functools.cache
def version() -> str:
    """The version of dbnd-core-lite, such as "2.0.0"."""
    return metadata.version("dbnd-core-lite")


def current_user() -> str:
    """``DBND_USER``, else the user of the operating system."""
    # A container's user id may have no entry in the user database.
    return readable(os.environ.get("DBND_USER") or _user.get() or f"uid {os.getuid()}")


def command_line() -> str:
    """The command line of this process as a shell would take it."""
    return readable(shlex.join(_arguments()))


def script_name() -> str:
    """Name of the running script, or "python" in an interactive session."""
    script = next(iter(_arguments()), "")
    return readable(Path(script).name) if script and script != "-c" else "python"


def _arguments() -> list[str]:
    return list(map(str, getattr(sys, "argv", None) or []))


def project_root() -> str:
    """The working directory, or nothing where there is none."""
    return readable(str(working_directory() or ""))


def code_version() -> str | None:
    """The git commit of the working directory, or None where there is none."""
    return _commit.get()


def readable(text: str) -> str:
    """``text`` with what cannot be encoded, such as a file name that is no UTF-8, written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class _SlowFact:
    """What is asked in a thread of its own, because a user database or a network drive may hang.

    One that was late is not waited for again; what it finds is there next time.
    """

    def __init__(self, ask: Callable[[], str | None]) -> None:
        self._ask = ask
        self._answer: str | None = None
        self._is_late = False

    def get(self) -> str | None:
        """The answer, or None when there is none yet."""
        asking = threading.Thread(target=self._find, name="dbnd-facts", daemon=True)
        if not self._is_late and start(asking):
            asking.join(_PATIENCE)
            self._is_late = asking.is_alive()
        return self._answer

    def _find(self) -> None:
        with suppress(OSError, KeyError, ValueError):
            self._answer = self._ask()


def _read_commit() -> str | None:
    """The commit that is checked out, read from git's own files: git itself may take seconds."""
    here = working_directory()
    folders = (here, *here.parents) if here else ()
    dot_git = next((path for folder in folders if (path := folder / ".git").exists()), None)
    if dot_git is None:
        return None
    # Of a worktree or a submodule, it is a file that names its folder, and what it shares with others is elsewhere.
    git = dot_git if dot_git.is_dir() else dot_git.parent / _first_line(dot_git).removeprefix("gitdir: ")
    shared = git / _first_line(git / "commondir") if (git / "commondir").is_file() else git
    head = _first_line(git / "HEAD")
    name = head.removeprefix("ref: ")
    if name == head:
        return _as_commit(head)
    for folder in (git, shared):
        if (folder / name).is_file():
            return _as_commit(_first_line(folder / name))
    with (shared / "packed-refs").open(encoding="utf-8") as lines:
        return next((_as_commit(line.split()[0]) for line in lines if line.rstrip().endswith(f" {name}")), None)


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        return lines.readline(4096).rstrip("\r\n")


def _as_commit(text: str) -> str | None:
    return text if _COMMIT.fullmatch(text) else None


_user: Final = _SlowFact(getpass.getuser)
_commit: Final = _SlowFact(_read_commit)
