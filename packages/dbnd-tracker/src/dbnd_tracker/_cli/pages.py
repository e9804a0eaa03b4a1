"""The address at which a browser shows a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbnd import DatabandError, load_config
from dbnd.plugins import CoreSettings
from dbnd.tracking import page_path
from dbnd_tracker._errors import RemoteError
from dbnd_tracker._reader import HttpReader
from dbnd_tracker._settings import TrackerSettings

if TYPE_CHECKING:
    from dbnd_tracker._reader import RunReader
    from dbnd_tracker._views import RunSummary

# Seconds for a server on this machine to answer.
_PATIENCE: Final = 3


def page_of(reader: RunReader, run: RunSummary) -> str:
    """The address of the run's page: on the configured tracker, or on one that serves the same database here.

    Raises:
        RemoteError: No tracker serves it.
    """
    url = reader.page_url(run)
    if url is not None:
        return url
    settings = load_config().settings(TrackerSettings)
    root = f"http://localhost:{settings.port}"
    address = f"{root}{page_path(run.job_name, run.run_uid)}"
    core = CoreSettings(
        databand_access_token=settings.token, connect_timeout=_PATIENCE, api_request_timeout_sec=_PATIENCE
    )
    here = HttpReader(root, core)
    try:
        is_served = here.run_summary(run.run_uid) is not None
    except DatabandError:
        is_served = False
    finally:
        here.close()
    if not is_served:
        msg = (
            f"No tracker on {root} serves {reader.name}: start one with `dbnd tracker start`, and the page is {address}"
        )
        raise RemoteError(msg)
    return address
