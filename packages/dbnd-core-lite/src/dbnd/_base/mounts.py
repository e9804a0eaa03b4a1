"""On which kind of file system a folder is: some are shared by machines, and SQLite is not safe on those."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_NETWORK: Final = re.compile(
    r"(fuse\.)?(nfs\d?|lustre|gpfs|beegfs|fhgfs|cifs|smb\d?|smbfs|9p|afs|ceph(-fuse)?|glusterfs|orangefs|pvfs2|panfs|"
    r"wekafs|sshfs|s3fs|gcsfuse|rclone|juicefs)"
)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
MOUNTS: Final = Path("/proc/self/mountinfo")
"""Where the kernel lists the mounts."""


def network_file_system(path: Path) -> str | None:
    """The kind of the network file system that ``path`` is on, or would be; None where it is on none, or not known."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return None
    wanted = os.path.realpath(path)
    kind, longest = "", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        point = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4]).rstrip("/")
        # Of two mounts at one place the later one is seen.
        if len(point) >= longest and (wanted == point or wanted.startswith(f"{point}/")):
            kind, longest = after.partition(" ")[0], len(point)
    return kind if _NETWORK.fullmatch(kind) else None
