"""``DatabandStore``: the user's own MLflow store, with what is written to it reported.

It is no subclass of any MLflow class: an abstract base would answer methods that the inner store implements, and would
fall behind with every MLflow release. It forwards every attribute, whatever its name, and answers ``isinstance`` and
``hasattr`` as the inner store does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._taps import TAPS, report, with_links

if TYPE_CHECKING:
    from ._reporter import Reporter

Origin = tuple[Callable[..., Any], tuple[str | None, ...]]
_OWN = ("_databand_inner", "_databand_reporter", "_databand_origin")


class DatabandStore:
    """A transparent proxy of an MLflow store (tracking or model registry) that reports successful writes.

    Args:
        inner: The user's own store.
        reporter: What takes the reports.
        origin: A builder and its arguments, by which the store is found again when it is unpickled.
    """

    __slots__ = (*_OWN, "__weakref__")

    def __init__(self, inner: object, reporter: Reporter, origin: Origin) -> None:
        for name, value in zip(_OWN, (inner, reporter, origin), strict=True):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the inner store has
        inner = object.__getattribute__(self, "_databand_inner")
        # Fetched first, so that hasattr() answers for this MLflow version's store and no table of versions is needed.
        found = getattr(inner, name)
        if name in TAPS and inspect.ismethod(found):
            return _tapped(object.__getattribute__(self, "_databand_reporter"), name, found)
        return found

    def __setattr__(self, name: str, value: object) -> None:
        setattr(object.__getattribute__(self, "_databand_inner"), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(object.__getattribute__(self, "_databand_inner"), name)

    def __dir__(self) -> list[str]:
        return dir(object.__getattribute__(self, "_databand_inner"))

    @property  # type: ignore[misc]  # object declares an attribute
    def __class__(self) -> type:
        return type(object.__getattribute__(self, "_databand_inner"))

    def __reduce__(self) -> Origin:
        origin: Origin = object.__getattribute__(self, "_databand_origin")
        return origin

    def __repr__(self) -> str:
        return f"<DatabandStore over {object.__getattribute__(self, '_databand_inner')!r}>"


def _tapped(reporter: Reporter, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` of the inner store, followed by its report when it has succeeded."""
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def call_async(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            result = await method(*args, **kwargs)
            report(reporter, name, method, args, kwargs, result)
            return result

        return call_async

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if name == "create_run":
            args, kwargs = with_links(reporter, method, args, kwargs)
        result = method(*args, **kwargs)
        report(reporter, name, method, args, kwargs, result)
        return result

    return call
