"""Exceptions as the tracker and the terminal show them."""

from __future__ import annotations

import importlib
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dbnd._base.masking import mask_text
from dbnd._model.values import masked

# Longest message and longest traceback, in characters.
_MAX_ERROR: Final = 100_000
_OWN_CODE: Final = str(Path(__file__).resolve().parent.parent) + os.sep


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as the tracker shows it, secrets masked."""

    message: str
    exception_type: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """What there is to say of ``error``, its traceback without our own frames."""
        return cls(
            message=masked(message_of(error), _MAX_ERROR),
            exception_type=str(type(error)),
            traceback=mask_text(_without_middle(user_traceback(error))),
        )


def message_of(error: BaseException) -> str:
    """What an exception says, or its name; of a user's, whose text form may raise, too."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return str(error) if str(error) != str(error.code) else f"The script ended with exit code {error.code}."
    try:
        return str(error) or type(error).__name__
    except Exception as second:  # noqa: BLE001  a user's __str__ may raise anything
        return f"<{type(error).__name__} whose text form raises {type(second).__name__}>"


def user_traceback(error: BaseException) -> str:
    """The traceback of ``error`` without the frames of dbnd itself and of the import system."""
    shown = traceback.TracebackException.from_exception(error, compact=True)
    pending = [shown]
    while pending:
        part = pending.pop()
        part.stack = traceback.StackSummary.from_list([f for f in part.stack if not _is_own(f.filename)])
        pending += [linked for linked in (part.__cause__, part.__context__) if linked is not None]
    return "".join(shown.format())


def _is_own(filename: str) -> bool:
    return filename.startswith((_OWN_CODE, "<frozen importlib")) or filename == importlib.__file__


def _without_middle(text: str) -> str:
    """The start and the end of ``text``: of a traceback they tell where, and what."""
    left_out, half = len(text) - _MAX_ERROR, _MAX_ERROR // 2
    return text if left_out <= 0 else f"{text[:half]}\n... ({left_out} characters left out) ...\n{text[-half:]}"
