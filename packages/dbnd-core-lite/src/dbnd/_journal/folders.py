"""The folders of journals: the one in the home, and others for when that cannot be written.

The others belong to that one: their name is made of its path, so that only who has the same home looks into them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from dbnd._base.paths import temporary_folder


def folders_of(home: Path) -> list[Path]:
    """``home``, and the others that are this user's alone, as far as they exist and may be looked at."""
    folders = [home, *(folder for folder in spares_of(home) if _is_private(folder.parent))]
    return [folder for folder in folders if os.path.isdir(folder)]  # noqa: PTH112  Path.is_dir() raises where it may not look


def spares_of(home: Path) -> Iterator[Path]:
    """Folders that may take the journals of ``home``: in the run-time folder, the temporary one, and shared memory."""
    user = os.geteuid()
    key = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    bases = [os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}", temporary_folder(), "/dev/shm"]  # noqa: S108  see _is_private
    for base in dict.fromkeys(bases):
        if os.path.isdir(base):  # noqa: PTH112  as above
            yield Path(base) / f"dbnd-{user}" / key


def usable_folder(home: Path) -> Path:
    """``home``, or the first of the others that can be written, if that cannot."""
    for folder in [home, *spares_of(home)]:
        try:
            if folder != home:
                make_private(folder.parent)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return home


def make_private(folder: Path) -> None:
    """Make a folder of this user's; OSError where it cannot be made, or is somebody else's."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(folder):
        raise PermissionError(f"{folder} is not a folder that only you can read")


def _is_private(folder: Path) -> bool:
    """Whether nobody else can have put anything there: it is this user's own folder, and no link to one."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
