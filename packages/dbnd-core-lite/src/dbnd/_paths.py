"""Where dbnd keeps its files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def dbnd_home() -> Path:
    """The folder of the journal and the embedded tracker: ``$DBND_HOME``, else ``~/.dbnd``."""
    home = os.environ.get("DBND_HOME")
    return Path(os.path.expanduser(home)).absolute() if home else user_home()  # noqa: PTH111  see user_home


def journal_folder() -> Path:
    """The folder of the journals."""
    return dbnd_home() / "journal"


def user_home() -> Path:
    """``~/.dbnd``, which holds the user's own ``databand.cfg`` whether ``DBND_HOME`` is set or not.

    A user without a home, as in a container with any user id, has a folder among the temporary files.
    """
    home = os.path.expanduser("~")  # noqa: PTH111  Path.expanduser() raises where there is no home
    return Path(tempfile.gettempdir(), f"dbnd-{os.getuid()}") if home == "~" else Path(home, ".dbnd")


def working_directory() -> Path | None:
    """The working directory, or None where it has been deleted or may not be looked at."""
    try:
        return Path.cwd()
    except OSError:
        return None
