"""The tracker's own error classes.

TrackerError
├── PayloadError        a call whose body is wrong, for good
│   ├── TooMuchError
│   └── UnknownCallError
├── MissingError        a question or order about something that does not exist
├── StorageError        the database cannot take or give anything now
│   └── LockedError
└── RemoteError         a tracker behind HTTP did not answer as one
"""

from __future__ import annotations

from dbnd import DatabandError


class TrackerError(DatabandError):
    """Base of what goes wrong in the tracker."""


class PayloadError(TrackerError):
    """The body of a call is wrong; sending it again would change nothing."""


class UnknownCallError(PayloadError):
    """No tracking call has this name."""


class TooMuchError(PayloadError):
    """The body of a call holds more than one call may; in parts it would be taken."""


class MissingError(TrackerError):
    """There is no run or task run with the uid that was given."""


class StorageError(TrackerError):
    """The database is locked, full, gone or broken; the same call may succeed later."""


class LockedError(StorageError):
    """Others are writing to the database, and have been for as long as one waits for them."""


class RemoteError(TrackerError):
    """A tracker behind HTTP cannot be reached or did not answer as a tracker does."""
