"""What a call costs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def processor_time(call: Callable[[], object]) -> float:
    """Seconds of the processor that a call takes, the least of three.

    What others do on this machine does not count, nor other threads, nor a collection of all garbage of this process.
    """
    gc.disable()
    try:
        return min(_once(call) for _ in range(3))
    finally:
        gc.enable()


def _once(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start
