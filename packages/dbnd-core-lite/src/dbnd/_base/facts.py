"""Facts about this process that a run records: time, user, command line, code version; and names for runs."""

from __future__ import annotations

import getpass
import os
import random
import re
import shlex
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, Generic, TypeVar

from dbnd._base.paths import working_directory
from dbnd._base.threads import start

T = TypeVar("T")

# Seconds for which a run waits for a fact that may be slow to find.
_PATIENCE: Final = 0.25
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LONGEST_LINE: Final = 4096


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(timezone.utc)


class _SlowFact(Generic[T]):
    """What is asked of the system, which may take its time: a user database or a network drive that hangs.

    It is asked in a thread of its own. One that was late is not waited for again; what it finds is there next time.

    Args:
        ask: Asks; it may raise OSError, KeyError and ValueError when there is no answer.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._answer: T | None = None
        self._is_late = False

    def get(self) -> T | None:
        """The answer, or None when there is none yet."""
        if not self._is_late:
            asking = threading.Thread(target=self._find, name="dbnd-facts", daemon=True)
            if not start(asking):
                return self._answer
            asking.join(_PATIENCE)
            self._is_late = asking.is_alive()
        return self._answer

    def _find(self) -> None:
        with suppress(OSError, KeyError, ValueError):
            self._answer = self._ask()


def current_user() -> str:
    """``DBND_USER``, else the user of the operating system."""
    # A container's user id may have no entry in the user database.
    return readable(os.environ.get("DBND_USER") or _user.get() or f"uid {os.getuid()}")


def command_line() -> str:
    """The command line of this process as a shell would take it."""
    return readable(shlex.join(map(str, getattr(sys, "argv", None) or [])))


def script_name() -> str:
    """Name of the running script, or "python" in an interactive session."""
    script = str((getattr(sys, "argv", None) or [""])[0])
    return readable(Path(script).name) if script and script != "-c" else "python"


def project_root() -> str:
    """The working directory, or nothing where there is none."""
    return readable(str(working_directory() or ""))


def code_version() -> str | None:
    """The git commit of the working directory, or None where there is none."""
    return _commit.get()


def readable(text: str) -> str:
    """``text`` with what cannot be encoded, such as a file name that is no UTF-8, written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _read_commit() -> str | None:
    """The commit that is checked out, read from git's own files: git itself may take seconds."""
    here = working_directory()
    if here is None:
        return None
    dot_git = next((path for folder in (here, *here.parents) if (path := folder / ".git").exists()), None)
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
        return lines.readline(_LONGEST_LINE).rstrip("\r\n")


def _as_commit(text: str) -> str | None:
    return text if _COMMIT.fullmatch(text) else None


_user: Final = _SlowFact(getpass.getuser)
_commit: Final = _SlowFact(_read_commit)

_ADJECTIVES: Final = """
    amber bold brave bright calm clear crisp eager early fair fast fine fresh gentle glad golden grand green happy
    keen kind light lively lucky merry mild neat noble pale patient plain proud pure quick quiet rapid ready sharp
    shy silent silver smart smooth snowy solid steady still sunny swift tall true vivid warm wide wild wise young
""".split()
_SURNAMES: Final = """
    abel bayes bernoulli bohr boole cantor cauchy church curie descartes dijkstra dirac einstein erdos euclid
    euler fermat feynman fisher fourier galois gauss godel hamming hilbert hopper huygens jacobi kepler knuth
    kolmogorov lagrange laplace legendre leibniz lovelace markov maxwell mendel neumann newton noether pascal
    pearson planck poincare ramanujan riemann shannon stokes turing wiener
""".split()


def random_name() -> str:
    """A readable name for a run, such as "quiet_noether"; not unique."""
    chooser = random.SystemRandom()  # a user's random.seed() must not name all runs alike, nor we disturb his numbers
    return f"{chooser.choice(_ADJECTIVES)}_{chooser.choice(_SURNAMES)}"
