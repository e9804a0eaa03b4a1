"""What libraries log to a terminal, in a process that runs nobody's code but ours."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from dbnd._terminal.text import plain


class _Record(logging.LogRecord):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[0]:
            # Formatters take this for what they have made of the exception before.
            self.exc_text = plain("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"), lines=True)

    def getMessage(self) -> str:  # noqa: N802  the library's name
        return plain(super().getMessage(), lines=True)


def clean_logs() -> None:
    """Clean what is logged from now on, whichever handler writes it."""
    logging.setLogRecordFactory(_Record)
