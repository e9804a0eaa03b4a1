"""The error classes of the core: one base, finished sentences, an exit code each."""

from __future__ import annotations

from typing import ClassVar


class DatabandError(Exception):
    """Base of every error that dbnd raises; its text is a finished sentence for a user."""

    exit_code: ClassVar[int] = 1


class ConfigError(DatabandError):
    """Configuration that cannot be used: names the value, where it came from and what to do."""

    exit_code = 8


class UsageError(DatabandError):
    """A command, or a call, that was given the wrong arguments."""

    exit_code = 2


class TaskNotFoundError(UsageError):
    """The target of ``dbnd run`` names no task."""


class TrackingError(DatabandError):
    """The tracker did not take every event; raised only with ``core.tracker_raise_on_error``."""

    exit_code = 10
