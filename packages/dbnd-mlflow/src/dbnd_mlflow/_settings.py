"""``[mlflow_tracking]``: the plugin's configuration."""

from __future__ import annotations

from typing import ClassVar

from pydantic import field_validator

from dbnd import Settings

from ._uri import is_composite_uri


class MlflowTrackingSettings(Settings):
    """``[mlflow_tracking]``: whether MLflow's runs are tracked, and where else they are stored."""

    section: ClassVar[str] = "mlflow_tracking"

    databand_tracking: bool = False
    """Track what MLflow logs in the tracker, too."""
    duplicate_tracking_to: str | None = None
    """The MLflow tracking URI of your own store; unset, the one that MLflow is set to already."""

    @field_validator("duplicate_tracking_to")
    @classmethod
    def _not_composite(cls, value: str | None) -> str | None:
        if is_composite_uri(value or ""):
            raise ValueError("it is a databand URI itself; name your own MLflow store")
        return value
