"""A pseudo-terminal, and the screen that a person would see."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from kit.warm import Warm


class Terminal:
    """``dbnd`` in a pseudo-terminal of its own, and the screen that a person would see."""

    def __init__(self, warm: Warm, arguments: Sequence[str], columns: int, lines: int, env: Mapping[str, str]) -> None:
        import pyte

        self._screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self.output = b""
        self._fd, other = pty.openpty()
        self._set_size(columns, lines)
        self.process = warm.start({"arguments": arguments}, Path(os.ttyname(other)), env=env)
        os.close(other)

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without blanks at their ends and without empty lines below the last one."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    @property
    def has_whole_screen(self) -> bool:
        """Whether no lines are kept from scrolling."""
        return self._screen.margins in {None, (0, self._screen.lines - 1)}

    def wait_for(self, seen: Callable[[list[str]], object]) -> list[str]:
        """Read on until ``seen`` is true of the lines, and return them."""
        deadline = time.monotonic() + 60
        while not seen(self.lines):
            if time.monotonic() > deadline or not self._read():
                pytest.fail("The screen is not as expected:\n" + "\n".join(self.lines))
        return self.lines

    def end(self) -> int:
        """Read until the command has ended, and return its exit code, or minus the signal that ended it."""
        deadline = time.monotonic() + 60
        while self._read():
            if time.monotonic() > deadline:
                pytest.fail("The command does not end:\n" + "\n".join(self.lines))
        return self.process.wait(60)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._fd, keys)

    def close(self) -> None:
        """End the command, if it has not ended."""
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def resize(self, columns: int, lines: int) -> None:
        """Make the terminal another size, as a person does with the mouse."""
        self._screen.resize(lines, columns)
        self._set_size(columns, lines)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> bool:
        """Take what has been written; returns False at the end."""
        if not select.select([self._fd], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # EIO: the other side is closed
            return False
        self.output += data
        self._stream.feed(data)
        return bool(data)
