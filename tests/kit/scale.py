"""How much chance there is in tests: little for every save, much in ``nox -s thorough``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")
THOROUGH = os.environ.get("THOROUGH") == "1"


def scaled(small: int, large: int) -> int:
    """How much of something this session takes."""
    return large if THOROUGH else small


def leading(values: Sequence[T], count: int = 1) -> Sequence[T]:
    """The first of several values that lead through the same code; in ``nox -s thorough`` all of them."""
    return values[: scaled(count, len(values))]


def load_profile() -> None:
    """Tell Hypothesis: the same few examples each time, or many new ones."""
    settings.register_profile(
        "kit",
        max_examples=scaled(20, 500),
        derandomize=not THOROUGH,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("kit")
