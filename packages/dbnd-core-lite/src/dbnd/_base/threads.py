"""Threads that are good to have, and that a process may not get."""

from __future__ import annotations

import threading


def start(thread: threading.Thread) -> bool:
    """Start a thread; False where there can be no more of them, or the interpreter is going down."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True
