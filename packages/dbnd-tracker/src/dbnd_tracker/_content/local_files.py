"""Files of this machine, opened without being led elsewhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from dbnd.tracking import storable
from dbnd_tracker._access.places import Places
from dbnd_tracker._content.opened import ArtifactError, Content, Entry, Folder, steps_of

_MISSING: Final = "It is not there (any more), or the tracker's server may not read it."
_LISTED: Final = 1_000
# Only to go on from it: a folder may be passed by those who may not list it.
_PASS: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_local(named: str, inside: str, places: Places) -> Content | Folder:
    """Open the file or folder ``inside`` the one that a run has ``named``, or that one itself.

    Links are followed as long as they lead to what the run has named: below a folder to what is in it, and a link that
    it has named itself to what stands beside it.

    Raises:
        ArtifactError: It is not there, no regular file or folder, or what is not allowed.
    """
    place = Path(named)
    if not place.is_absolute():
        raise ArtifactError(404, "Its place does not say in which folder it is.")
    try:
        beside, base = place.parent.resolve(), place.resolve()
        target = base.joinpath(*steps_of(inside)).resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name with a NUL
        raise ArtifactError(404, _MISSING) from None
    # First, so that nobody learns what is there of what he may not see.
    if not places.allows_file(target):
        raise ArtifactError(403, _not_allowed(str(place.parent)))
    if not base.is_relative_to(beside) or not target.is_relative_to(base):
        raise ArtifactError(403, "A link leads out of the place that the run has named.")
    try:
        return _open(target)
    except OSError:  # missing, not to be read, or a link that was put there meanwhile
        raise ArtifactError(404, _MISSING) from None


def _not_allowed(folder: str) -> str:
    return (
        "This tracker does not open files in that folder of its machine. Whoever runs it can allow it: "
        f'tracker.artifact_places = ["{folder}"]'
    )


def _open(target: Path) -> Content | Folder:
    """Open what stands at ``target``, in which no link is left; one that was put there since is not followed."""
    folder = os.open("/", _PASS)
    try:
        for step in target.parts[1:-1]:
            below = os.open(step, _PASS, dir_fd=folder)
            os.close(folder)
            folder = below
        name = target.name or "."
        kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        # Opening a pipe waits, opening a device may do anything; a link is not opened.
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
            raise ArtifactError(403, "It is neither a file nor a folder.")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        opened = os.open(name, flags, dir_fd=folder)
    finally:
        os.close(folder)
    status = os.fstat(opened)
    if stat.S_ISREG(status.st_mode):
        # What is added meanwhile is not read: a length was promised.
        return Content(target.name, status.st_size, os.fdopen(opened, "rb"))
    try:
        if not stat.S_ISDIR(status.st_mode):
            raise ArtifactError(403, "It is neither a file nor a folder.")
        return _list(opened)
    finally:
        os.close(opened)


def _list(opened: int) -> Folder:
    found: list[Entry] = []
    with os.scandir(opened) as entries:
        for entry in entries:
            if len(found) == _LISTED:
                return Folder(found, is_cut=True)
            status = entry.stat(follow_symlinks=False)
            is_file = stat.S_ISREG(status.st_mode)
            found.append(Entry(storable(entry.name), stat.S_ISDIR(status.st_mode), status.st_size if is_file else None))
    return Folder(sorted(found, key=lambda each: (not each.is_folder, each.name)), is_cut=False)
