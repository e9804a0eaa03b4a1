"""``DatabandStore``: the user's own MLflow store, with what is written to it reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from .._proxy import StoreProxy
from .taps import TAPPED, tapped


def _method(name: str, function: Callable[..., Any]) -> Callable[..., Any] | None:
    return tapped(name, function) if name in TAPPED else None


class DatabandStore(StoreProxy):
    """A transparent proxy of an MLflow store (tracking or model registry) that reports successful writes."""

    __slots__ = ()
    _databand_method: ClassVar = staticmethod(_method)
