"""``DatabandStore``: the user's own MLflow store, with what is written to it reported.

It is no subclass of any MLflow class: an abstract base would answer methods that the inner store implements, and would
fall behind with every MLflow release. It forwards every attribute, whatever its name, and answers ``isinstance`` and
``hasattr`` as the inner store does.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

from .taps import TAPPED, tapped

if TYPE_CHECKING:
    from .._reporting.reporter import Reporter

Origin = tuple[Callable[..., Any], tuple[str | None, ...]]

# The proxy's own attributes; all others are the inner store's.
_OWN: Final = frozenset({"_databand_inner", "_databand_reporter", "_databand_origin", "__reduce_ex__", "__reduce__"})


class DatabandStore:
    """A transparent proxy of an MLflow store (tracking or model registry) that reports successful writes.

    Args:
        inner: The user's own store.
        reporter: What takes the reports.
        origin: A builder and its arguments, by which the store is found again when it is unpickled.
    """

    __slots__ = ("__weakref__", "_databand_inner", "_databand_origin", "_databand_reporter")

    _databand_inner: object
    _databand_reporter: Reporter
    _databand_origin: Origin

    def __init__(self, inner: object, reporter: Reporter, origin: Origin) -> None:
        object.__setattr__(self, "_databand_inner", inner)
        object.__setattr__(self, "_databand_reporter", reporter)
        object.__setattr__(self, "_databand_origin", origin)

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN:
            return object.__getattribute__(self, name)
        inner = object.__getattribute__(self, "_databand_inner")
        # Fetched first, so that hasattr() answers for this MLflow version's store and no table of versions is needed.
        found = getattr(inner, name)
        # A method of the store itself, and not what somebody has put in its place, such as a mock.
        if name in TAPPED and type(found) is MethodType and found.__self__ is inner:
            return MethodType(tapped(name, found.__func__), self)
        return found

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._databand_inner, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._databand_inner, name)

    def __dir__(self) -> list[str]:
        return dir(self._databand_inner)

    def __reduce__(self) -> Origin:
        return self._databand_origin

    def __repr__(self) -> str:
        return f"<DatabandStore over {self._databand_inner!r}>"
