"""What stands at an artifact's place: a file's content, or a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from io import BufferedIOBase
from typing import Final, NamedTuple

from dbnd.tracking import monotonic, storable

MOST_BYTES: Final = 1 << 30
"""Bytes of the largest artifact that is handed on."""
_CHUNK: Final = 1 << 16
_READ_S: Final = 20.0
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class ArtifactError(Exception):
    """An artifact cannot be opened; ``status`` is that of the answer, the text a sentence for people."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Entry(NamedTuple):
    name: str
    is_folder: bool
    size: int | None


class Folder(NamedTuple):
    entries: Sequence[Entry]
    is_cut: bool


class Content:
    """An open file; its size in bytes is None if that is not known."""

    def __init__(self, name: str, size: int | None, file: BufferedIOBase) -> None:
        self.name = storable(name)  # files have names of any bytes
        self.size = size
        self.file = file

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, as they come, at most as many as were promised.

        Raises:
            ArtifactError: It cannot be read, is longer than what is handed on, or shorter than was promised.
        """
        left = MOST_BYTES + 1 if self.size is None else self.size
        while left and (chunk := self._read(min(_CHUNK, left))):
            left -= len(chunk)
            if self.size is None and not left:
                raise ArtifactError(413, f"It is larger than {MOST_BYTES} bytes.")
            yield chunk
        if self.size is not None and left:
            raise ArtifactError(502, "It has ended before its end.")

    def _read(self, most: int) -> bytes:
        try:
            return self.file.read1(most)
        except (OSError, HTTPException) as error:
            raise ArtifactError(502, f"It cannot be read: {str(error) or type(error).__name__}.") from None

    def read(self, most: int) -> tuple[bytes, bool]:
        """At most so many of its first bytes, and whether that is all; ArtifactError where they come too slowly."""
        parts, length, start = [], 0, monotonic()
        for chunk in self.chunks():
            if monotonic() - start > _READ_S:
                raise ArtifactError(504, "It comes too slowly to be shown.")
            parts.append(chunk)
            length += len(chunk)
            if length > most:
                break
        found = b"".join(parts)
        return found[:most], len(found) <= most

    def close(self) -> None:
        self.file.close()


def steps_of(path: str) -> list[str]:
    """The names that a path inside an artifact is made of; ArtifactError where it leads upwards, or is none."""
    steps = [step for step in path.split("/") if step]
    if any(step in {".", ".."} or "\\" in step or _CONTROL.search(step) for step in steps):
        raise ArtifactError(404, "There is no such path in this artifact.")
    return steps
