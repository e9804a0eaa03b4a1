"""What stands in for an MLflow store: a transparent proxy, some of whose methods do more.

It is no subclass of any MLflow class: an abstract base would answer methods that the inner store implements, and would
fall behind with every MLflow release. It forwards every attribute, whatever its name, and answers ``isinstance`` and
``hasattr`` as the inner store does.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, ClassVar, Final

Origin = tuple[Callable[..., Any], tuple[str | None, ...]]

# The proxy's own attributes; all others are the inner store's.
_OWN: Final = frozenset({"_databand_inner", "_databand_with", "_databand_origin", "__reduce_ex__", "__reduce__"})


class StoreProxy:
    """A transparent proxy of an MLflow store (tracking or model registry).

    Args:
        inner: The store behind it.
        extra: What its own methods work with.
        origin: A builder and its arguments, by which the store is found again when it is unpickled.
    """

    __slots__ = ("__weakref__", "_databand_inner", "_databand_origin", "_databand_with")

    _databand_inner: object
    _databand_with: Any
    _databand_origin: Origin
    _databand_method: ClassVar[Any]
    """What takes the place of a method, by its name and its function: a function with the proxy as its ``self``, the
    same one each time, so that bound methods compare equal; or None."""
    _databand_before: ClassVar[Any] = None
    """What is called with the proxy and the name of an attribute that is no method, before somebody reads it."""

    def __init__(self, inner: object, extra: object, origin: Origin) -> None:
        object.__setattr__(self, "_databand_inner", inner)
        object.__setattr__(self, "_databand_with", extra)
        object.__setattr__(self, "_databand_origin", origin)

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN:
            return object.__getattribute__(self, name)
        inner = object.__getattribute__(self, "_databand_inner")
        # Fetched first, so that hasattr() answers for this MLflow version's store and no table of versions is needed.
        found = getattr(inner, name)
        # A method of the store itself, and not what somebody has put in its place, such as a mock.
        if type(found) is MethodType and found.__self__ is inner:
            method = type(self)._databand_method(name, found.__func__)
            return found if method is None else MethodType(method, self)
        if (before := type(self)._databand_before) is not None:
            before(self, name)
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
        return f"<{type(self).__name__} over {self._databand_inner!r}>"
