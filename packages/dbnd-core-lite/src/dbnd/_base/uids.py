"""New uids, also where a test suite has put something else in the place of ``uuid.uuid4``."""

from __future__ import annotations

from os import urandom
from uuid import UUID


def new_uid() -> UUID:
    """A random uid.

    Whoever wants the same uids in each run of a test lets ``uuid.uuid4`` answer them. Two runs of one uid would be one,
    and of a second journal of the same id the tracker would take nothing: it has its numbers already.
    """
    return UUID(bytes=urandom(16), version=4)
