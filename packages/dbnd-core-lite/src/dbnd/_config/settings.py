"""The base of configuration sections, and core's own sections.

A section is a pydantic model that a package declares next to what it configures and registers with the hook
``dbnd_settings``. Every key can be set in a file, by ``DBND__SECTION__KEY``, with ``--set-config`` and in code.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from dbnd._base.paths import SQLITE, absolute, journal_folder, sqlite_path, sqlite_url

LONGEST: Final = 1e9
"""The longest time that a key takes, in seconds: some thirty years. The system's own clocks end later."""


def _absolute(path: Path) -> Path:
    try:
        return absolute(path.expanduser())
    except RuntimeError:
        raise ValueError("the home that its ~ stands for is not known") from None


class Settings(BaseModel):
    """Base of a configuration section; a subclass names its ``section`` and declares its keys as fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    section: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _parse_text(cls, values: Any) -> Any:
        """Read the text of INI files and of the environment: JSON for lists and dicts, empty for unset."""
        if not isinstance(values, dict):
            return values
        found = {key: value for key, value in values.items() if value != ""}
        for key, value in found.items():
            if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
                with suppress(ValueError):
                    found[key] = json.loads(value)
        return found


class CoreSettings(Settings):
    """``[core]``: where the tracker is and how it is spoken to."""

    section: ClassVar[str] = "core"

    databand_url: str | None = None
    """The tracker: http://host:port, https://host, sqlite:///file or postgresql://…; unset is the embedded tracker."""
    databand_access_token: SecretStr | None = None
    """Token sent as "Authorization: Bearer"; without one the client logs in with dbnd_user and dbnd_password."""
    dbnd_user: str = "databand"
    """User of the login that takes place when there is no token."""
    dbnd_password: SecretStr = SecretStr("databand")
    """Password of that login."""
    ignore_ssl_errors: bool = False
    """Accept any certificate of an https tracker."""
    extra_default_headers: dict[str, str] = Field(default_factory=dict)
    """Headers added to every request, as a JSON object."""
    connect_timeout: float = Field(default=5.0, gt=0, le=LONGEST)
    """Seconds to wait for a connection to the tracker."""
    api_request_timeout_sec: float = Field(default=120.0, gt=0, le=LONGEST)
    """Seconds to wait for an answer of the tracker."""
    flush_timeout: float = Field(default=10.0, ge=0, le=LONGEST)
    """Seconds that the end of a run waits for the tracker to take the next unsent events; they stay in the journal."""
    sync_timeout: float = Field(default=10.0, ge=0, le=LONGEST)
    """Seconds that `dbnd run` gives to the events that earlier runs could not deliver; 0 leaves them to `dbnd sync`."""
    journal_folder: Path | None = None
    """Folder of the journals, which machines may share; unset, the folder ``journal`` in the home of dbnd."""
    delivery: Literal["direct", "relay"] = "direct"
    """Who sends events: "direct", the process that logs them; "relay", only a `dbnd sync --watch` of that folder."""
    journal_max_bytes: int = Field(default=1 << 30, gt=0)
    """Bytes that the unsent events of one process may take; events beyond are lost, counted and reported."""
    journal_fsync: bool = False
    """Wait for the disk at each log call, so that events survive a power cut, too."""
    tracker_raise_on_error: bool = False
    """Fail the run at its end when the tracker did not take every event."""

    @field_validator("journal_folder")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        return value and _absolute(value)

    @property
    def journals(self) -> Path:
        """The folder of the journals."""
        return self.journal_folder or journal_folder()

    @field_validator("databand_url")
    @classmethod
    def _has_scheme(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise ValueError("a URL such as http://localhost:8080 is needed")
        if value and value.startswith(SQLITE):  # the same file whatever the working directory
            path, query = sqlite_path(value)
            return sqlite_url(_absolute(path), query)
        if value and value.startswith("http"):
            server = urlsplit(value)  # raises where the host or the port is none
            if not server.hostname or server.port == 0 or any(map(str.isspace, value)):
                raise ValueError("http(s)://host:port is needed")
            return value.rstrip("/")
        return value


class TrackingSettings(Settings):
    """``[tracking]``: how runs are named and what of a task is recorded."""

    section: ClassVar[str] = "tracking"

    project: str | None = None
    """Project of the runs."""
    job: str | None = None
    """Job of the runs; unset, the name of the task or script."""
    log_value_preview: bool = True
    """Record a preview of what tasks return."""


class RunInfoSettings(Settings):
    """``[run_info]``: facts about a run that the user gives."""

    section: ClassVar[str] = "run_info"

    name: str | None = None
    """Name of the run; unset, a random one."""
    description: str | None = None
    """Description of the run."""
    user: str | None = None
    """User of the run; unset, ``DBND_USER`` or the user of the operating system."""


class RunSettings(Settings):
    """``[run]``: what a run does while it goes on."""

    section: ClassVar[str] = "run"

    heartbeat_interval_s: float = Field(default=5.0, le=LONGEST)
    """Seconds between two heartbeats, by which a tracker knows that a run is alive; 0 or less sends none."""


class LogSettings(Settings):
    """``[log]``: how much of what a task prints is kept."""

    section: ClassVar[str] = "log"

    capture_tracking_log: bool = True
    """Keep what tasks print under ``dbnd run``."""
    preview_head_bytes: int = Field(default=32 * 1024, ge=0)
    """Bytes kept from the start of a task's output."""
    preview_tail_bytes: int = Field(default=32 * 1024, ge=0)
    """Bytes kept from the end of a task's output."""


CORE_SECTIONS: tuple[type[Settings], ...] = (CoreSettings, TrackingSettings, RunInfoSettings, RunSettings, LogSettings)
