"""Stores that code names by their own URI while tracking is on: the one in the composite URI is tracked as well.

Scripts set the tracking URI of their store themselves, and loggers of other libraries take it for their clients. While
a composite URI is set, the builders that MLflow has registered are wrapped in ours, in its own registry and by its own
``register()``; with the last one they are put back, and MLflow is what it was before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from mlflow.tracking._tracking_service import utils as mlflow_tracking

from .._uri import SCHEMES, is_composite_uri, same_store, store_name
from .builders import finds_requirements, inner_uri, tracking_store
from .store import DatabandStore

if TYPE_CHECKING:
    from .._reporting.reporter import Reporter

Builder = Callable[..., Any]

# The composite URIs that are set, by their owners; the last one counts.
_active: Final[dict[int, str]] = {}
# The owner of a composite URI that the environment names: the process.
_ENVIRONMENT: Final = 0
# Our builders in place of those of MLflow that they wrap, by scheme.
_wrappers: Final[dict[str, Builder]] = {}


def begin(owner: int, uri: str) -> None:
    """Track the store in a composite URI by its own URI, too, until ``end`` is called for its owner."""
    registry = mlflow_tracking._tracking_store_registry
    if not _active:
        for scheme, builder in registry._registry.copy().items():
            if scheme not in SCHEMES:
                _wrappers[scheme] = _wrapped(builder)
                registry.register(scheme, _wrappers[scheme])
    _active[owner] = uri
    _forget_stores()


def build_watched(composite: str, builder: Builder, store_uri: str, artifact_uri: str | None, **kwargs: Any) -> Any:
    """Build a store that is named by its own URI in a process whose environment names a composite one."""
    # While one is set, a wrapper of ours is around the builder already.
    if not _active and not finds_requirements() and _is_usable(composite):
        begin(_ENVIRONMENT, composite)
        builder = _wrapped(builder)
    return builder(store_uri=store_uri, artifact_uri=artifact_uri, **kwargs)


def _is_usable(composite: str) -> bool:
    from dbnd import ConfigError
    from dbnd.plugins import console

    try:
        inner_uri(composite)
    except ConfigError as error:
        console.warn_once(
            f"What MLflow logs is not tracked where code sets another URI than MLFLOW_TRACKING_URI: {error}"
        )
        return False
    return True


def end(owner: int) -> None:
    """Undo ``begin``."""
    if _active.pop(owner, None) is None:
        return
    registry = mlflow_tracking._tracking_store_registry
    if not _active:
        for scheme, wrapper in _wrappers.items():
            if registry._registry.get(scheme) is wrapper:  # and not what was registered since
                registry.register(scheme, wrapper.databand_wraps)
        _wrappers.clear()
    _forget_stores()


def tracked_uri(uri: str) -> str | None:
    """The composite URI by which a store is tracked that MLflow is asked for by ``uri``; None if it is not."""
    if is_composite_uri(uri):
        return uri
    composite = _current()
    return composite if composite is not None and same_store(uri, inner_uri(composite)) else None


def _current() -> str | None:
    return next(reversed(_active.values()), None)


def _wrapped(builder: Builder) -> Builder:
    @functools.wraps(builder)
    def build(store_uri: str, artifact_uri: str | None = None, **kwargs: Any) -> Any:
        composite = tracked_uri(store_uri)
        if composite is not None:
            return tracking_store(composite, artifact_uri)
        store = builder(store_uri=store_uri, artifact_uri=artifact_uri, **kwargs)
        if not _active:
            return store
        reporter = cast("Reporter", _UntrackedReporter(store_uri))
        return DatabandStore(store, reporter, (mlflow_tracking._get_store, (store_uri, artifact_uri)))

    build.databand_wraps = builder  # type: ignore[attr-defined]
    return build


def _forget_stores() -> None:
    """Have stores built again: MLflow keeps those that it has built, and its clients ask for them each time."""
    mlflow_tracking._tracking_store_registry._get_store_with_resolved_uri.cache_clear()


class _UntrackedReporter:
    """Takes the reports of a store that is not tracked, and says so at the first that something was written."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._has_said = False

    def __getattr__(self, name: str) -> Callable[..., object]:
        return (lambda *_: None) if name in _NO_WRITES else self._say

    def _say(self, *_: object, **__: object) -> None:
        from dbnd.plugins import console, mask_url

        composite = _current()
        if composite is not None and not self._has_said:
            self._has_said = True
            console.warn_once(
                f"What your code logs to {store_name(self._uri)} is not tracked: the tracked one "
                f"is {mask_url(inner_uri(composite))} (mlflow_tracking.duplicate_tracking_to)."
            )


# What a reporter is told or asked that changes no run.
_NO_WRITES: Final = frozenset(
    {"link_tags", "run_seen", "experiment_seen", "runs_to_change", "not_created", "half_logged", "failed"}
)
