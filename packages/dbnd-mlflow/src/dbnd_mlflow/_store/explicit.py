"""Stores that code names by their own URI while tracking is on: the one in the composite URI is tracked as well.

Scripts set the tracking URI of their store themselves, and loggers of other libraries take it for their clients. While
a composite URI is set, the builders that MLflow has registered are followed by ours, in its own registry and by its own
``register()``; with the last one they are put back, and MLflow is what it was before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from mlflow.tracking._tracking_service import utils as mlflow_tracking

from dbnd.plugins import console, mask_url

from .._uri import SCHEMES, is_composite_uri, parse_composite_uri, same_store
from .builders import default_tracking_uri, tracking_store
from .store import DatabandStore

if TYPE_CHECKING:
    from .._reporting.reporter import Reporter

Builder = Callable[..., Any]

# The composite URIs that are set, by their owners; the last one counts.
_active: Final[dict[int, str]] = {}
_followers: Final[dict[str, Builder]] = {}
_said: Final[set[str]] = set()


def begin(owner: int, uri: str) -> None:
    """Track the store in a composite URI by its own URI, too.

    Args:
        owner: Who has set it.
        uri: The composite URI.
    """
    registry = mlflow_tracking._tracking_store_registry  # noqa: SLF001
    if not _active:
        for scheme, builder in list(registry._registry.items()):  # noqa: SLF001
            if scheme not in SCHEMES:
                _followers[scheme] = _follower(builder)
                registry.register(scheme, _followers[scheme])
    _active[owner] = uri
    _forget_stores(registry)


def end(owner: int) -> None:
    """Undo ``begin``."""
    if _active.pop(owner, None) is None:
        return
    registry = mlflow_tracking._tracking_store_registry  # noqa: SLF001
    if not _active:
        for scheme, follower in _followers.items():
            if registry._registry.get(scheme) is follower:  # noqa: SLF001  and not what was registered since
                registry.register(scheme, followed(follower))
        _followers.clear()
        _said.clear()
    _forget_stores(registry)


def tracked_uri(uri: str) -> str | None:
    """The composite URI by which a store is tracked that MLflow is asked for by ``uri``; None if it is not."""
    if is_composite_uri(uri):
        return uri
    composite = next(reversed(_active.values()), None)
    if composite is not None and same_store(uri, _own_uri(composite)):
        return composite
    return None


def followed(builder: Builder) -> Builder:
    """MLflow's own builder in place of the one of ours that follows it."""
    return getattr(builder, "databand_followed", builder)


def _follower(builder: Builder) -> Builder:
    @functools.wraps(builder)
    def follow(store_uri: str, artifact_uri: str | None = None, **kwargs: Any) -> Any:
        composite = tracked_uri(store_uri)
        if composite is not None:
            return tracking_store(composite, artifact_uri)
        store = builder(store_uri=store_uri, artifact_uri=artifact_uri, **kwargs)
        if not _active:
            return store
        bystander = cast("Reporter", _Bystander(store_uri))
        return DatabandStore(store, bystander, (_named, (store_uri, artifact_uri)))

    follow.databand_followed = builder  # type: ignore[attr-defined]
    return follow


def _named(uri: str, artifact_uri: str | None) -> Any:
    return mlflow_tracking._get_store(uri, artifact_uri)  # noqa: SLF001


def _forget_stores(registry: Any) -> None:
    """Have stores built again: MLflow keeps those that it has built, and its clients ask for them each time."""
    registry._get_store_with_resolved_uri.cache_clear()  # noqa: SLF001


def _own_uri(composite: str) -> str:
    return parse_composite_uri(composite).duplicate_tracking_to or default_tracking_uri()


class _Bystander:
    """Takes the reports of a store that is not tracked, and says so at the first that something was written.

    Args:
        uri: Its tracking URI.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def link_tags(self, _: Mapping[str, str]) -> dict[str, str]:
        """No tags: the run is no task run."""
        return {}

    def __getattr__(self, name: str) -> Callable[..., object]:
        return _ignore if name in _NO_WRITES else self._say

    def _say(self, *_: object, **__: object) -> None:
        composite = next(reversed(_active.values()), None)
        if composite is None or self._uri in _said:
            return
        _said.add(self._uri)
        console.warning(
            f"What your code logs to the MLflow store {mask_url(self._uri)} is not tracked: the one that is tracked is "
            f"{mask_url(_own_uri(composite))} (mlflow_tracking.duplicate_tracking_to)."
        )


# What the reporter is told that changes no run.
_NO_WRITES: Final = frozenset(
    {"run_seen", "experiment_seen", "find", "to_change", "not_created", "half_logged", "failed"}
)


def _ignore(*_: object, **__: object) -> list[str]:
    return []
