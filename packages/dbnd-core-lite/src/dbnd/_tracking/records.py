"""Records: how events stand in a file, so that a torn or damaged one is recognised.

A record is one line: ``<crc32 of the JSON, 8 hex digits> <JSON>``. The JSON is UTF-8 and has no line breaks. A process
that is killed, or a full disk, can leave the last line of a file torn: it lacks its line break, or its checksum is
wrong. Such an event was never accepted, for its log call had not returned.
"""

from __future__ import annotations

import zlib
from typing import Any, Final, NamedTuple

from dbnd._json import decode, encode
from dbnd._tracking.points import SIZE

# Characters before the JSON of a line.
_PREFIX: Final = 9
_HEX: Final = 16


class Record(NamedTuple):
    """An event read back from a file.

    Args:
        sequence: Its number in the file, from 1.
        end: Byte offset behind its line.
        call: Name of the wire call.
        body: Body of the wire call; of ``log_metrics`` a list of groups of points.
        points: Number of points in it, at least 1.
    """

    sequence: int
    end: int
    call: str
    body: Any
    points: int = 1


def frame(value: object) -> bytes:
    """``value`` as a line.

    Raises:
        TypeError: It has no JSON form.
        ValueError: It contains itself.
    """
    data = encode(value)
    return b"%08x %b\n" % (zlib.crc32(data), data)


def content(line: bytes) -> bytes | None:
    """The JSON of a line, or None when the line is torn or damaged."""
    if line[-1:] != b"\n" or line[_PREFIX - 1 : _PREFIX] != b" ":
        return None
    data = line[_PREFIX:-1]
    try:
        return data if zlib.crc32(data) == int(line[: _PREFIX - 1], _HEX) else None
    except ValueError:
        return None


def parse(lines: list[bytes], sequence: int, offset: int) -> list[Record]:
    """The events of consecutive lines; damaged lines are left out, and keep their numbers.

    Args:
        lines: Whole lines.
        sequence: Number of the first one.
        offset: Byte offset at which it starts.
    """
    places, texts = [], []
    for number, line in enumerate(lines, start=sequence):
        offset += len(line)
        data = content(line)
        if data is not None:
            places.append((number, offset))
            texts.append(data)
    # All at once: it takes a fraction of the time of one by one, and the interpreter is the training's.
    values = decode(b"[%b]" % b",".join(texts))
    found: list[Record] = []
    for (number, end), (call, body, *_) in zip(places, values, strict=True):
        points = 1
        if call == "log_metrics" and isinstance(body, list):
            _flatten(body)
            points = max(1, sum([len(group[2]) for group in body]) // SIZE)
        found.append(Record(number, end, call, body, points))
    return found


def _flatten(groups: list[Any]) -> None:
    """Bring the points of each group into one list.

    In journals of dbnd 2.0 each point is a list of its own, and ends where it has no step or mark.
    """
    for group in groups:
        points = group[2]
        if points and isinstance(points[0], list):
            group[2] = [part for point in points for part in (*point, None, None)[:SIZE]]
