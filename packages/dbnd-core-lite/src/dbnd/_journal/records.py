"""Records: how events stand in a file, so that a torn or damaged one is recognised.

A record is one line: ``<crc32 of the JSON, 8 hex digits> <JSON>``. The JSON is UTF-8 and has no line breaks. A process
that is killed, or a full disk, can leave the last line of a file torn: it lacks its line break, or its checksum is
wrong. Such an event was never accepted, for its log call had not returned.
"""

from __future__ import annotations

import re
import zlib
from typing import Any, Final, NamedTuple

from dbnd._model.encoding import decode, encode
from dbnd._model.points import MAX_POINTS, SIZE

# Characters before the JSON of a line.
_PREFIX: Final = 9
# What stands in the place of a line break, and behind it the start of a record.
_BREAK: Final = re.compile(rb"[^\n](?=[0-9a-f]{8} \[)")
_CALL: Final = re.compile(rb'\["(\w+)",')
# An event of one group of points, none of whose values is a list, up to its points; these; and the end.
_ONE_GROUP: Final = re.compile(rb'(\["log_metrics",\[\["[\w-]+",(?:null|"[\w.]+"),\[)([^\]]+)\]\]\]\]')
_END: Final = b"]]]]"


class Record(NamedTuple):
    """An event read back from a file, or several that were merged."""

    sequence: int  # its number in the file, from 1; of several the last one's
    end: int  # byte offset behind its line
    call: str
    body: Any  # of ``log_metrics`` a list of groups of points
    points: int = 1  # how many are in it, at least 1; of a damaged one, the events that it stands for
    trouble: str = ""  # why it cannot be delivered, as the end of a sentence
    line: bytes = b""  # its bytes, if it cannot be delivered
    events: int = 1  # how many were merged

    @property
    def is_damaged(self) -> bool:
        """Whether its bytes are not those that were written."""
        return bool(self.trouble) and content(self.line) is None


def damaged(sequence: int, end: int, line: bytes, events: int = 1) -> Record:
    """What stands in the place of events whose bytes are not those that were written."""
    return Record(sequence, end, "", None, events, "it is damaged", line)


def frame(value: object) -> bytes:
    """``value`` as a line; ValueError where it contains itself, or is nested too deep."""
    data = encode(value)
    return b"%08x %b\n" % (zlib.crc32(data), data)


def extended(line: bytes, *more: object) -> bytes:
    """A line whose content is a list, with more members; what it says need not be readable."""
    data = b"%b,%b" % (line[_PREFIX:-2], encode(more)[1:])
    return b"%08x %b\n" % (zlib.crc32(data), data)


def content(line: bytes) -> bytes | None:
    """The JSON of a line, or None when the line is torn or damaged."""
    data = line[_PREFIX:-1]
    if not data or line[-1:] != b"\n" or line[_PREFIX - 1 : _PREFIX] != b" ":
        return None
    try:
        return data if zlib.crc32(data) == int(line[: _PREFIX - 1], 16) else None
    except ValueError:
        return None


def parse(lines: list[bytes], sequence: int, offset: int, *, merged: bool = False) -> list[Record]:
    """The events of consecutive whole lines, the first of which has the number ``sequence`` and starts at ``offset``.

    One that is damaged, or that cannot be read, is a record with a trouble. If ``merged``, points of the same attempt
    and source that follow each other are one record, as long as they fit into one batch.
    """
    contents = [content(line) for line in lines]
    if None in contents:
        lines = [part for line, data in zip(lines, contents, strict=True) for part in _parted(line, data)]
        contents = [content(line) for line in lines]
    whole = [data for data in contents if data is not None]
    if merged and len(whole) == len(lines) and (joined := _merged(lines, whole, sequence, offset)):
        return joined
    values = iter(_decoded(whole))
    found = []
    for number, (line, data) in enumerate(zip(lines, contents, strict=True), start=sequence):
        offset += len(line)
        found.append(damaged(number, offset, line) if data is None else _record(number, offset, line, next(values)))
    return found


def _merged(lines: list[bytes], contents: list[bytes], sequence: int, offset: int) -> list[Record]:
    """What ``parse`` finds if ``merged``; nothing where an event cannot be read.

    Points are merged as text and read all at once. With some lists for each event, Python's garbage collector would
    look at all objects of the training every few batches.
    """
    texts: list[list[bytes]] = []
    places: list[tuple[int, int]] = []
    start, values = None, 0
    for number, (line, data) in enumerate(zip(lines, contents, strict=True), start=sequence):
        offset += len(line)
        found = _ONE_GROUP.fullmatch(data)
        before, points = found.groups() if found else (None, data)
        more = points.count(b",") + 1
        values += more
        if before is not None and before == start and values <= MAX_POINTS * SIZE:
            texts[-1].append(points)
            places[-1] = number, offset
        else:
            texts.append([data])
            places.append((number, offset))
            start, values = before, more
    merged = []
    for (number, end), value in zip(places, _decoded(list(map(_joined, texts))), strict=True):
        record = _record(number, end, b"", value)
        if record.trouble:
            return []
        merged.append(record._replace(events=number + 1 - sequence))
        sequence = number + 1
    return merged


def _joined(texts: list[bytes]) -> bytes:
    """An event with the points of others behind its own."""
    first, *more = texts
    return b"%b,%b%b" % (first.removesuffix(_END), b",".join(more), _END) if more else first


def _parted(line: bytes, data: bytes | None) -> list[bytes]:
    """A line; or two, where only the line break between two whole records is damaged."""
    for found in _BREAK.finditer(line) if data is None else ():
        parts = [line[: found.start()] + b"\n", line[found.end() :]]
        if None not in map(content, parts):
            return parts
    return [line]


def _decoded(texts: list[bytes]) -> list[Any]:
    """What ``texts`` say; in the place of one that cannot be read stands the error."""
    # All at once: it takes a fraction of the time of one by one, and the interpreter is the training's.
    try:
        values: list[Any] = decode(b"[%b]" % b",".join(texts))
        if len(values) == len(texts):
            return values
    except ValueError:
        pass
    values = []
    for text in texts:
        try:
            values.append(decode(text))
        except ValueError as error:
            values.append(error)
    return values


def _record(number: int, end: int, line: bytes, value: Any) -> Record:
    if isinstance(value, ValueError):
        found = _CALL.match(line, _PREFIX)
        call = found[1].decode() if found else "an event"
        return Record(number, end, call, None, trouble=f"it cannot be read: {value}", line=line)
    points = 1
    try:
        call, body, *_ = value
        if call == "log_metrics" and isinstance(body, list):
            _flatten(body)
            points = max(1, sum([len(group[2]) for group in body]) // SIZE)
    except (TypeError, ValueError, LookupError):
        return Record(number, end, "an event", None, trouble="it has not the form of an event", line=line)
    return Record(number, end, call, body, points)


def _flatten(groups: list[Any]) -> None:
    """Bring the points of each group into one list: in journals of dbnd 2.0 each is a list, without trailing nulls."""
    for group in groups:
        _, _, points = group
        if points and isinstance(points[0], list):
            group[2] = [part for point in points for part in (*point, None, None)[:SIZE]]
