"""The database that commands of the tracker work on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbnd_tracker._settings import TrackerSettings


def database_url(given: str | None, settings: TrackerSettings) -> str:
    """``given`` on the command line, else ``tracker.database``, else the embedded tracker's own file."""
    from dbnd._tracking.transport import embedded_url

    url = given or settings.database or embedded_url()
    assert url is not None, "this package serves SQLite files"
    return url
