"""Where dbnd keeps its files, and how they are opened."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

SQLITE: Final = "sqlite:///"
_NOT_IN_URL: Final = re.compile("[%?#\udc80-\udcff]")


def dbnd_home() -> Path:
    """The folder of the journal and the embedded tracker: ``$DBND_HOME``, else ``~/.dbnd``."""
    home = os.environ.get("DBND_HOME")
    return absolute(os.path.expanduser(home)) if home else user_home()  # noqa: PTH111  see user_home


def absolute(path: str | Path) -> Path:
    """``path`` from the working directory on; as it is where there is none any more."""
    return Path(working_directory() or "", path)


def journal_folder() -> Path:
    """The folder of the journals, where none is configured."""
    return dbnd_home() / "journal"


def user_home() -> Path:
    """``~/.dbnd``, which holds the user's own ``databand.cfg`` whether ``DBND_HOME`` is set or not.

    A user without a home, as in a container with any user id, has a folder among the temporary files.
    """
    home = os.path.expanduser("~")  # noqa: PTH111  Path.expanduser() raises where there is no home
    return Path(temporary_folder(), f"dbnd-{os.getuid()}") if home == "~" else Path(home, ".dbnd")


def temporary_folder() -> str:
    """The folder of temporary files, also where none can be written."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return "/tmp"  # noqa: S108


def sqlite_url(path: Path, query: str = "") -> str:
    """The URL of an SQLite file, in which blanks and letters of any alphabet stay as people write them."""
    escaped = _NOT_IN_URL.sub(lambda found: quote(os.fsencode(found[0])), str(path))
    return f"{SQLITE}{escaped}{query and '?'}{query}"


def sqlite_path(url: str) -> tuple[Path, str]:
    """The file of an ``sqlite:///`` URL, and the query of the URL. A path that nobody has escaped is read, too."""
    text, _, query = url.removeprefix(SQLITE).partition("?")
    return Path(unquote(text, errors="surrogateescape")), query


def working_directory() -> Path | None:
    """The working directory, or None where it has been deleted or may not be looked at."""
    try:
        return Path.cwd()
    except OSError:
        return None


def open_file(path: Path, flags: int) -> int:
    """Open a regular file; one that is made can be read by its owner only.

    Anything else raises OSError: a pipe would be waited for, and a device need not end.
    """
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "It is no regular file", str(path))
    return above_streams(fd)


def above_streams(fd: int) -> int:
    """The same file under a number that no standard stream has; where there is none, it is closed.

    Where a process was started without them, whatever it opens first gets their numbers, and what C code says on
    standard error would go into it.
    """
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
