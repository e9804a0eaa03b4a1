"""The configuration section of the tracker."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SecretStr

from dbnd._settings import Settings


class TrackerSettings(Settings):
    """``[tracker]``: how ``dbnd tracker start`` serves the tracker."""

    section: ClassVar[str] = "tracker"

    host: str = "127.0.0.1"
    """Address to listen on; anything but the loopback needs a token."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    database: str | None = None
    """Database of the server: a file, sqlite:///file or postgresql://…; unset is the embedded tracker's own file."""
    token: SecretStr | None = None
    """Token that every request must carry; unset, everyone who reaches the port may read and write."""
    heartbeat_timeout_s: float = Field(default=300, gt=0)
    """Seconds of silence after which a run that sends heartbeats is shown as lost, until it reports again."""
