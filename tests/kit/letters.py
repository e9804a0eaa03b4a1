"""Dead letters, read back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dbnd._base.paths import open_file
from dbnd._journal.records import content
from dbnd._model.encoding import decode


def letters(path: Path) -> Iterator[tuple[str, Any, str, int]]:
    """The events of a dead-letter file that can be read: call, body, why it was refused, number in its journal."""
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as lines:
        for line in list(lines)[1:]:
            with suppress(ValueError):
                call, body, *_, reason, number = decode(content(line) or b"")
                yield call, body, reason, number
