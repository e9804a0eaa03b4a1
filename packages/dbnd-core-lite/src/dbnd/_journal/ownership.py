"""Ownership of a journal's file: one living process writes or delivers it, and the others can tell.

The owner holds an exclusive ``flock``, which the kernel lets go of when the process dies, however it dies. Where the
file system has no such locks, a file ``<name>.owner`` beside it names the owner instead: host, process id, and the time
at which that process started, because ids are used again. A process of another host is taken to be alive.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Final

from dbnd._base.names import new_uid
from dbnd._journal.opening import open_file

_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
# Field of /proc/<pid>/stat, counted behind the name, that holds the start of the process.
_START: Final = 19


def own(fd: int, path: Path) -> bool:
    """Become the owner of the file ``path``, open as ``fd``, until that is closed; False when another one lives.

    Raises:
        OSError: Ownership can be neither gained nor denied.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return _own_by_name(_owner_path(path))
    return True


def is_owned(path: Path) -> bool:
    """Whether a living process owns the file; it may have changed by the time that this returns.

    Raises:
        OSError: The file cannot be opened.
    """
    fd = open_file(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return _lives(_read(_owner_path(path)))
    finally:
        os.close(fd)
    return False


def disown(path: Path) -> None:
    """Let go of what ``own`` has left beside the file; the lock itself ends when the file is closed."""
    owner = _owner_path(path)
    if owner.exists() and _read(owner) == _me():
        owner.unlink(missing_ok=True)


def is_alive(host: str, pid: int) -> bool:
    """Whether a process lives; one of another host is taken to."""
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's; or no process of this system
        pass
    return True


def _owner_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.owner")


def _own_by_name(owner: Path) -> bool:
    # Written aside and linked, so that whoever sees it sees all of it.
    mine = owner.with_name(f"{owner.name}.{new_uid().hex}")
    mine.write_text(json.dumps(_me()), encoding="utf-8")
    try:
        for _ in range(2):
            try:
                os.link(mine, owner)
            except FileExistsError:
                if _lives(_read(owner)):
                    return False
                with contextlib.suppress(FileNotFoundError):  # another one was quicker
                    owner.rename(mine.with_suffix(".gone"))
            else:
                return True
        return False
    finally:
        mine.unlink(missing_ok=True)
        mine.with_suffix(".gone").unlink(missing_ok=True)


def _me() -> list[object]:
    return [socket.gethostname(), os.getpid(), _started(os.getpid())]


def _read(owner: Path) -> list[object] | None:
    try:
        found = json.loads(owner.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) else None


def _lives(owner: list[object] | None) -> bool:
    if owner is None:
        return False
    host, pid, started = owner
    if host != socket.gethostname() or not isinstance(pid, int):
        return True
    return is_alive(host, pid) and _started(pid) in {started, None}


def _started(pid: int) -> str | None:
    """When a process has started, in the kernel's own count; None where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[_START]
