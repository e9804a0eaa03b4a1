"""Lines at the bottom of a terminal that nothing else writes to.

The terminal itself keeps them: its scroll region is made to end above them. What the user's code writes goes its own
way, through whatever stream, file descriptor or child process, and scrolls above; nothing is intercepted.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from dbnd._base.forks import in_children

_SAVE: Final = "\x1b7"
_RESTORE: Final = "\x1b8"
_WHOLE: Final = "\x1b[r"
_CLEAR_BELOW: Final = "\x1b[J"
_CLEAR_REST: Final = "\x1b[0m\x1b[K"
_DOWN: Final = "\x1bD"
# Fewer lines than this are the user's own.
_LEFT_FREE: Final = 4
# Waits for the end of the process, and gives the terminal back if no line has said that this was done.
_GUARD: Final = r"""exec 3<&0; { read -r done <&3 || printf '\0337\033[r\0338\033[J'; } &"""
_guards: Final[set[int]] = set()


@in_children
def _close_guards() -> None:
    """In a forked child: only the end of the process that draws is to be noticed."""
    while _guards:
        os.close(_guards.pop())


def is_usable(fd: int) -> bool:
    """Whether ``fd`` is a terminal that knows its size and in which this process may write."""
    try:
        return os.isatty(fd) and os.get_terminal_size(fd).lines > 2 * _LEFT_FREE
    except OSError:
        return False


class Region:
    """The lines of the terminal ``fd``, which is duplicated: it stays when the user's code redirects its streams."""

    def __init__(self, fd: int) -> None:
        self._fd: Final = os.dup(fd)
        self._process: Final = os.getpid()
        self._size: os.terminal_size | None = None
        self._height = 0
        self._guard: int | None = None

    def size(self) -> tuple[int, int]:
        """Columns that a line may have, and lines that ``draw`` takes at the moment; an OSError without a terminal."""
        size = os.get_terminal_size(self._fd)
        # The last column stays free: a terminal that has written there wraps in ways of its own.
        return size.columns - 1, size.lines - _LEFT_FREE

    def draw(self, lines: Sequence[str]) -> None:
        """Show ``lines`` (no more and no wider than ``size`` says), the last of them on the terminal's last line.

        The region grows with the lines and does not shrink. Nothing is drawn while the process is in the background.

        Raises:
            OSError: The terminal is gone.
        """
        # A terminal that does not control this process puts nothing into the background.
        with suppress(OSError):
            if os.tcgetpgrp(self._fd) != os.getpgrp():
                return
        size = os.get_terminal_size(self._fd)
        parts = []
        if size != self._size:
            parts.append(self._leave(size))
            self._size, self._height = size, 0
        height = min(max(len(lines), self._height), max(size.lines - _LEFT_FREE, 0))
        if height > self._height:
            # Scrolls what stands there out of the way, and keeps the column of a line that is not finished.
            parts += [_DOWN * (height - self._height), f"\x1b[{height - self._height}A"]
            self._height = height
        if not height:
            return
        top = size.lines - height
        # The region is set each time, because whatever clears or resets the terminal takes it away.
        parts += [_SAVE, f"\x1b[1;{top}r"]
        shown = [""] * (height - len(lines)) + list(lines[-height:])
        parts += [f"\x1b[{top + i};1H\x1b[0m{line}{_CLEAR_REST}" for i, line in enumerate(shown, 1)]
        if self._guard is None:
            self._guard = _start_guard(self._fd)
        self._write("".join([*parts, _RESTORE]))

    def close(self) -> None:
        """Give the lines back; what was written above them stays, and the next output follows it."""
        if os.getpid() != self._process:  # a forked child, in whose parent the run goes on
            return
        with suppress(OSError):  # the terminal is gone, with what stood there
            self._write(self._leave(os.get_terminal_size(self._fd)))
        if self._guard is not None:
            _guards.discard(self._guard)
            with suppress(OSError):
                os.write(self._guard, b"done\n")
            os.close(self._guard)
        os.close(self._fd)

    def _leave(self, size: os.terminal_size) -> str:
        if not self._height:
            return ""
        if size == self._size:
            return f"{_SAVE}{_WHOLE}\x1b[{size.lines - self._height + 1};1H\x1b[0m{_CLEAR_BELOW}{_RESTORE}"
        # What stood where is not known any more, but that it was below the user's own output.
        return f"{_SAVE}{_WHOLE}{_RESTORE}{_CLEAR_BELOW}"

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another program has made the terminal non-blocking
                select.select([], [self._fd], [])


def _start_guard(fd: int) -> int:
    """Start what frees the terminal if this process is killed; returns the pipe whose end tells it.

    It is an orphan in a session of its own: Ctrl-C does not reach it, and the user's code has no child more.
    """
    read, write = os.pipe()
    try:
        command = ["/bin/sh", "-c", _GUARD]
        subprocess.run(command, stdin=read, stdout=fd, stderr=fd, start_new_session=True, check=False)  # noqa: S603
    finally:
        os.close(read)
    _guards.add(write)
    return write
