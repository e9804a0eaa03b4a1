"""URLs of MLflow stores in journals: ``mlflow:`` and the store's tracking URI, without credentials.

A workspace of MLflow (3.10 and later) follows behind ``#workspace=``: what is kept is delivered there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dbnd.plugins import mask_url
from dbnd.tracking import Destination

from .._settings import MlflowTrackingSettings
from .._uri import absolute_uri, is_composite_uri, parse_composite_uri

if TYPE_CHECKING:
    from dbnd import Config

SCHEME: Final = "mlflow"
_WORKSPACE: Final = "#workspace="


def journal_url(uri: str, workspace: str | None) -> str:
    """The URL of a store by its tracking URI."""
    return f"{SCHEME}:{absolute_uri(uri)}{_WORKSPACE}{workspace}" if workspace else f"{SCHEME}:{absolute_uri(uri)}"


def parsed(url: str) -> tuple[str, str | None]:
    """The tracking URI and the workspace in the URL of a store."""
    uri, _, workspace = url.partition(":")[2].partition(_WORKSPACE)
    return uri, workspace or None


def store_name(uri: str) -> str:
    """How messages name a store."""
    return f"the MLflow store {mask_url(uri)}"


def destination(url: str, config: Config) -> Destination | None:
    """What a journal's URL stands for, if it is an MLflow store.

    Writes go to the configured store, with its credentials, and to databases and folders of this machine.
    """
    if url.partition(":")[0] != SCHEME:
        return None
    uri, workspace = parsed(url)
    configured = _configured(config)
    own = absolute_uri(configured) if configured else ""
    is_local = uri.startswith(("sqlite:", "/"))
    found = own if own and _bare(own) == _bare(uri) else uri if is_local else None
    hint = f"`dbnd sync --set-config mlflow_tracking.duplicate_tracking_to={_bare(uri)}` sends them"
    return Destination(store_name(uri), None if found is None else journal_url(found, workspace), hint)


def _bare(uri: str) -> str:
    """A store's URI without a user: who asks makes no other store of it."""
    parts = urlsplit(mask_url(uri))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else mask_url(uri)


def _configured(config: Config) -> str | None:
    """The user's own tracking URI: as databand's configuration has it, else as MLflow's environment has it."""
    uri = config.settings(MlflowTrackingSettings).duplicate_tracking_to or os.environ.get("MLFLOW_TRACKING_URI")
    return parse_composite_uri(uri).duplicate_tracking_to if uri and is_composite_uri(uri) else uri
