"""Output as a terminal shows it: rewritten lines, colours, and nothing of the codes that make them.

Emulators are made for programs that a person sits before: those that are kept well are of another licence, or have a
screen of fixed size and take ten microseconds for a character. A log needs an endless sheet, and little of the standard
(ECMA-48): what progress bars and coloured messages use. All other codes are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from markupsafe import Markup, escape

# Each repetition is bounded, so that no text takes more than time in proportion to its length.
_TOKENS: Final = re.compile(
    r"(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|\x1b\[(?P<numbers>[0-?]{0,64})[ -/]{0,4}(?P<command>[@-~])"
    r"|\x1b[\]PX^_][^\x07\x1b]{0,2048}(?:\x07|\x1b\\)?"  # titles of windows, addresses of links
    r"|\x1b[ -/]{0,4}[0-~]"
    r"|(?P<control>[\x00-\x1f\x7f-\x9f])",
)
_FARTHEST: Final = 1_000
"""How many columns or rows a code moves at most."""
_MOST_GAPS: Final = 200_000
"""How many blanks codes make altogether: a few characters can ask for a thousand."""
_TAB: Final = 8
# By the bits red, green and blue; black and white are the colours of quiet and of plain text, in both themes.
_HUES: Final = ("quiet", "red", "green", "yellow", "blue", "magenta", "cyan", "")
_SWITCHES: Final = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike"}
_OFF: Final = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("inverse",), 29: ("strike",)}


class Sheet:
    """An endless sheet that ``text`` was printed on."""

    def __init__(self, text: str) -> None:
        self._rows: list[tuple[list[str], list[str]]] = [([], [])]  # characters, and the classes of each
        self._row = self._column = self._gaps = 0
        self._style: dict[str, str] = {}
        self._classes = ""
        for token in _TOKENS.finditer(text):
            if token["text"]:
                self._put(token["text"])
            elif token["control"]:
                self._control(token["control"])
            elif token["command"] == "m":
                self._dress(token["numbers"])
            elif token["command"]:
                self._move(token["command"], token["numbers"])
        while len(self._rows) > 1 and not "".join(self._rows[-1][0]).strip():
            self._rows.pop()

    def __len__(self) -> int:
        return len(self._rows) if self._rows[-1][0] else len(self._rows) - 1

    def html(self, lines: int) -> Markup:
        """The last ``lines`` lines, escaped; what has a look is in elements with classes."""
        return Markup("\n").join(Markup().join(_spans(*row)) for row in self._rows[-lines:])

    def _put(self, text: str) -> None:
        characters, classes = self._rows[self._row]
        start, end = self._column, self._column + len(text)
        gap = min(max(start - len(characters), 0), _MOST_GAPS - self._gaps)
        if gap:
            self._gaps += gap
            characters.extend(" " * gap)
            classes.extend([""] * gap)
        characters[start:end] = text
        classes[start:end] = [self._classes] * len(text)
        self._column = min(end, len(characters))

    def _control(self, control: str) -> None:
        if control == "\n":
            self._row, self._column = self._row + 1, 0
            if self._row == len(self._rows):
                self._rows.append(([], []))
        elif control == "\r":
            self._column = 0
        elif control == "\b":
            self._column = max(self._column - 1, 0)
        elif control == "\t":
            # Where nothing stands, it leaves blanks; elsewhere it only moves.
            after = self._column - self._column % _TAB + _TAB
            self._put(" " * (after - self._column)) if after > len(self._rows[self._row][0]) else self._go(after)

    def _go(self, column: int) -> None:
        self._column = min(max(column, 0), max(self._column, _FARTHEST))

    def _move(self, command: str, numbers: str) -> None:
        first = numbers.partition(";")[0]
        count = min(int(first), _FARTHEST) if first.isdecimal() and first.isascii() else 0
        by = max(count, 1)
        if command in "AF":
            self._row = max(self._row - by, 0)
        elif command in "BE":
            self._row = min(self._row + by, len(self._rows) - 1)
        elif command == "C":
            self._go(self._column + by)
        elif command == "D":
            self._go(self._column - by)
        elif command == "G":
            self._go(by - 1)
        elif command in "JK" and count != 1:
            self._erase(below=command == "J", how=count)
        if command in "EF":
            self._column = 0

    def _erase(self, *, below: bool, how: int) -> None:
        """Erase what follows the cursor, or the whole line; what is above and before it stays, whatever is asked."""
        characters, classes = self._rows[self._row]
        start = 0 if how == 2 and not below else self._column
        del characters[start:], classes[start:]
        if below:
            del self._rows[self._row + 1 :]

    def _dress(self, numbers: str) -> None:
        """Change the look of what follows."""
        codes = [int(number) if number.isdecimal() and number.isascii() else 0 for number in re.split("[;:]", numbers)]
        pending = iter(codes)
        for code in pending:
            if code == 0:
                self._style.clear()
            elif code in _SWITCHES:
                self._style[_SWITCHES[code]] = _SWITCHES[code]
            elif code in _OFF:
                for name in _OFF[code]:
                    self._style.pop(name, None)
            elif code in {38, 48}:
                self._colour("on" if code == 48 else "", _of_many(pending))
            elif code % 10 < 8 and code // 10 in {3, 4, 9, 10}:
                bright = code >= 90 and code % 10 == 0
                self._colour("on" if code // 10 in {4, 10} else "", "quiet" if bright else _HUES[code % 10])
            elif code in {39, 49}:
                self._style.pop("on" if code == 49 else "", None)
        self._classes = " ".join(f"ansi-{name}" for name in self._style.values())

    def _colour(self, place: str, hue: str) -> None:
        self._style.pop(place, None)
        if hue:
            self._style[place] = f"{place}-{hue}" if place else hue


def _of_many(codes: Iterator[int]) -> str:
    """The hue nearest to one of 256 colours, or of 16 millions."""
    kind = next(codes, 0)
    if kind == 2:
        return _hue(next(codes, 0), next(codes, 0), next(codes, 0))
    number = next(codes, 15) if kind == 5 else 15
    if number < 16:
        return "quiet" if number == 8 else _HUES[number % 8]
    if number < 232:
        parts = (number - 16) // 36, (number - 16) // 6 % 6, (number - 16) % 6
        return _hue(*(0 if part == 0 else 55 + 40 * part for part in parts))
    return "quiet" if number < 250 else ""


def _hue(red: int, green: int, blue: int) -> str:
    most = max(red, green, blue)
    bits = sum(1 << i for i, part in enumerate((red, green, blue)) if part * 4 > most * 3)
    return "quiet" if bits == 7 and most < 180 else _HUES[bits]


def _spans(characters: list[str], classes: list[str]) -> Iterator[Markup]:
    if not any(classes):
        yield escape("".join(characters).rstrip())
        return
    start = 0
    for names, group in groupby(classes):
        end = start + sum(1 for _ in group)
        text = escape("".join(characters[start:end]))
        yield Markup('<span class="{}">{}</span>').format(names, text) if names else text
        start = end
