"""The configuration section of the tracker."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator

from dbnd import Settings


class TrackerSettings(Settings):
    """``[tracker]``: how ``dbnd tracker start`` serves the tracker."""

    section: ClassVar[str] = "tracker"

    host: str = "127.0.0.1"
    """Address to listen on; anything but the loopback needs a token."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    database: str | None = None
    """Database of the server: a file, sqlite:///file or postgresql://…; unset is the embedded tracker's own file."""
    read_database: str | None = None
    """A streaming replica of the database, from which pages, read API and exports are read; unset, they are read from
    the database itself."""
    connections: int = Field(default=90, ge=3)
    """Connections to PostgreSQL that all server processes have together, at most 15 each; as many to its replica."""
    archive: Path | None = None
    """Folder of the points that `dbnd tracker archive` has moved to files; they are read from there."""
    partitions: int = Field(default=1, ge=1, le=1024)
    """Parts of the tables of points, by hash of the series, that a new database of PostgreSQL gets."""
    token: SecretStr | None = None
    """An admin's token; with it, or once `dbnd tracker token create` has made one, every request must carry a token."""
    workers: int = Field(default=1, ge=1, le=64)
    """Server processes; more than one needs PostgreSQL, because an SQLite file has one writer at a time."""
    allowed_hosts: list[str] = Field(default_factory=list)
    """Further names that the server goes by, such as that of a reverse proxy, as a JSON list."""
    access_log: str | None = None
    """File that every request is written to as a line of JSON, or - for standard error; unset, none."""
    artifact_places: list[str] | None = None
    """Folders of this machine, and addresses of MLflow servers, whose artifacts the page opens, as a JSON list; unset,
    everything of this machine for the user who started a tracker on the loopback without a token, else nothing."""
    request_timeout_s: float = Field(default=60, gt=0)
    """Seconds that a request may take until its answer begins; what was not written by then is not written later."""
    shutdown_timeout_s: int = Field(default=30, ge=0)
    """Seconds that requests under way have to end when the server is told to."""
    max_connections: int = Field(default=1000, gt=0)
    """Connections that a server process keeps open at once; `/healthz` is answered beyond them, too."""
    max_request_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """Largest request body as received, in bytes."""
    max_unpacked_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """Largest request body after gunzip, in bytes."""
    heartbeat_timeout_s: float = Field(default=300, gt=0)
    """Seconds of silence after which a run that sends heartbeats is shown as lost, until it reports again."""

    @field_validator("artifact_places")
    @classmethod
    def _check_places(cls, places: list[str] | None) -> list[str] | None:
        for place in places or ():
            if not place.startswith(("/", "http://", "https://")):
                raise ValueError(
                    f"{place!r} is neither the absolute path of a folder nor the address of an MLflow server"
                )
        return places
