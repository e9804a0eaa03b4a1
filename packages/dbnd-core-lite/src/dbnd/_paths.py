"""Where dbnd keeps its files."""

from __future__ import annotations

import os
from pathlib import Path


def dbnd_home() -> Path:
    """The folder of the journal and the embedded tracker: ``$DBND_HOME``, else ``~/.dbnd``."""
    home = os.environ.get("DBND_HOME")
    return Path(home).expanduser().absolute() if home else user_home()


def journal_folder() -> Path:
    """The folder of the journals."""
    return dbnd_home() / "journal"


def user_home() -> Path:
    """``~/.dbnd``, which holds the user's own ``databand.cfg`` whether ``DBND_HOME`` is set or not."""
    return Path("~/.dbnd").expanduser()
