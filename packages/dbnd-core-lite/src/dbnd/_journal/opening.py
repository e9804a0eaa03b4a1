"""Opening files: those of journals, and nothing else that may stand in their place."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

# Below are the standard streams.
_LEAST: Final = 3


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
    if fd >= _LEAST:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LEAST)
    finally:
        os.close(fd)
