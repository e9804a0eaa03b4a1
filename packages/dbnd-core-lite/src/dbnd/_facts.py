"""Facts about this process that a run records: time, user, command line, code version; and names for runs."""

from __future__ import annotations

import getpass
import os
import random
import shlex
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Final


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(timezone.utc)


def current_user() -> str:
    """``DBND_USER``, else the user of the operating system."""
    named = os.environ.get("DBND_USER")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without an entry in the user database
        return f"uid {os.getuid()}"


def command_line() -> str:
    """The command line of this process as a shell would take it."""
    return shlex.join(sys.argv)


def code_version() -> str | None:
    """The git commit of the working directory, or None where there is none."""
    cwd = Path.cwd()
    git = shutil.which("git")
    if git is None or not any((folder / ".git").exists() for folder in (cwd, *cwd.parents)):
        return None
    found = subprocess.run(  # noqa: S603  the program's full path, constant arguments
        [git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
    )
    return found.stdout.strip() or None


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
