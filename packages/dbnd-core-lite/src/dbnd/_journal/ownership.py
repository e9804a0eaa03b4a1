"""Ownership of a journal's file: one living process writes or delivers it, and the others can tell.

The owner holds an exclusive ``flock``, which the kernel lets go of when the process dies, however it dies. Where the
file system has no such locks, a link ``<name>.owner`` beside it names the owner instead: host, process id, and the time
at which that process started, because ids are used again. A process of another host is taken to be alive.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import Final

from dbnd._base.paths import open_file

_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def own(fd: int, path: Path, *, others_are_gone: bool = False) -> bool:
    """Become the owner of the file ``path``, open as ``fd``, until that is closed; False when another one lives.

    ``others_are_gone`` says that processes of other hosts are known to be gone, where there are no locks.
    """
    locked = lock(fd)
    return _own_by_name(_owner_path(path), others_are_gone=others_are_gone) if locked is None else locked


def is_owned(path: Path) -> bool:
    """Whether a living process owns the file; it may have changed by the time that this returns."""
    fd = open_file(path, os.O_RDONLY)
    try:
        locked = lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)
    return lives(_named(_owner_path(path))) if locked is None else not locked


def disown(path: Path) -> None:
    """Let go of what ``own`` has left beside the file; the lock itself ends when the file is closed."""
    owner = _owner_path(path)
    if _named(owner) == me():
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


def lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Whether the lock was gained; None where the file system has none."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def _owner_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.owner")


def _own_by_name(owner: Path, *, others_are_gone: bool) -> bool:
    for _ in range(2):
        try:
            owner.symlink_to(me())  # whoever sees the link sees all that it says
        except FileExistsError:
            named = _named(owner)
            is_of_other = named.partition(" ")[0] != socket.gethostname()
            if not (others_are_gone and is_of_other) and lives(named):
                return False
            owner.unlink(missing_ok=True)
        else:
            return True
    return False


def me() -> str:
    """This process, as ``lives`` knows it."""
    return f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"


def _named(owner: Path) -> str:
    try:
        return str(owner.readlink())
    except OSError:
        return ""


def lives(owner: str) -> bool:
    """Whether the process that is named so lives."""
    host, _, process = owner.partition(" ")
    pid, _, started = process.partition(" ")
    if not pid.isdigit() or not is_alive(host, int(pid)):
        return False
    return host != socket.gethostname() or _started(int(pid)) in {started, ""}


def _started(pid: int) -> str:
    """When a process has started, in the kernel's own count; nothing where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]  # counted behind the name
