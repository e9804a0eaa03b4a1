"""``[mlflow_tracking]``: the plugin's configuration."""

from __future__ import annotations

import os
from typing import ClassVar, Final, Literal

from pydantic import Field, field_validator

from dbnd import Config, Settings

from ._uri import is_composite_uri, parse_composite_uri

DIRECT: Final = "direct"
KEEP: Final = "keep"
DEFERRED: Final = "deferred"


class MlflowTrackingSettings(Settings):
    """``[mlflow_tracking]``: whether MLflow's runs are tracked, and where else they are stored."""

    section: ClassVar[str] = "mlflow_tracking"

    databand_tracking: bool = False
    """Track what MLflow logs in the tracker, too."""
    duplicate_tracking_to: str | None = None
    """The MLflow tracking URI of your own store; unset, the one that MLflow is set to already."""
    store_writes: Literal["direct", "keep", "deferred"] = "direct"
    """How writes reach your own MLflow store: ``direct``, exactly as in MLflow; ``keep``, directly while the store
    answers, else kept on disk until it does; ``deferred``, kept on disk and delivered in the background, always."""
    store_timeout: float = Field(5.0, gt=0)
    """Seconds in which your MLflow server has to answer in ``keep`` and ``deferred``, before it counts as away."""
    store_spool_max_bytes: int = Field(1 << 30, ge=0)
    """Bytes that artifacts may take together that wait for your MLflow server."""

    @field_validator("duplicate_tracking_to")
    @classmethod
    def _not_composite(cls, value: str | None) -> str | None:
        if is_composite_uri(value or ""):
            raise ValueError("it is a databand URI itself; name your own MLflow store")
        return value


def configured_uri(config: Config) -> str | None:
    """The user's own tracking URI: as databand's configuration has it, else as MLflow's environment has it."""
    uri = config.settings(MlflowTrackingSettings).duplicate_tracking_to or os.environ.get("MLFLOW_TRACKING_URI")
    return parse_composite_uri(uri).duplicate_tracking_to if uri and is_composite_uri(uri) else uri
