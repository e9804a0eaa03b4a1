"""The version of this package, as it is installed."""

from __future__ import annotations

import functools
from importlib import metadata


@functools.cache
def version() -> str:
    """The version of dbnd-core-lite, such as "2.0.0"."""
    return metadata.version("dbnd-core-lite")
