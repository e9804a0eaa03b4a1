"""MLflow plugin of databand: MLflow runs stand in the tracker and in the user's own MLflow store.

MLflow imports this package while it is itself being imported, so nothing heavy stands at the top.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._store.store import DatabandStore as DatabandStore
    from ._store.switch import disable_dbnd_for_mlflow_tracking as disable_dbnd_for_mlflow_tracking
    from ._store.switch import enable_dbnd_for_mlflow_tracking as enable_dbnd_for_mlflow_tracking
    from ._uri import CompositeUri as CompositeUri
    from ._uri import build_composite_uri as build_composite_uri
    from ._uri import is_composite_uri as is_composite_uri
    from ._uri import parse_composite_uri as parse_composite_uri

_HOME = {
    "CompositeUri": "._uri",
    "DatabandStore": "._store.store",
    "build_composite_uri": "._uri",
    "disable_dbnd_for_mlflow_tracking": "._store.switch",
    "enable_dbnd_for_mlflow_tracking": "._store.switch",
    "is_composite_uri": "._uri",
    "parse_composite_uri": "._uri",
}

__version__ = "2.0.0"
__all__ = sorted(_HOME)  # noqa: PLE0605  the table above is the one list of names


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dbnd_mlflow' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
