"""``DurableStore``: an MLflow store whose writes survive that it is away."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final

from dbnd.tracking import Outbox, create_transport

from .._mlflow import build_inner, current_workspace
from .._proxy import StoreProxy
from .._settings import KEEP, MlflowTrackingSettings
from .._uri import build_journal_url, store_name
from .creation import Creation, OnCreated
from .experiments import Experiments
from .ids import Ids
from .keeper import Keeper
from .models import Models
from .target import Target, made_patient
from .transport import ids_folder

if TYPE_CHECKING:
    from dbnd import Config

Function = Callable[..., Any]


@functools.lru_cache(maxsize=2048)
def _method(name: str, function: Function) -> Function:
    # Every method is one of the proxy's own, so that whoever wraps it sees them as such.
    if name in _KEPT:
        method = attrgetter(_KEPT[name])

        @functools.wraps(function)
        def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            keeper = self._databand_with.current
            try:
                return method(keeper)(*args, **kwargs)
            except Exception as error:
                # Arguments that are none of it are the store's affair, which says so, or has got them since.
                if name not in _CHECKED and _takes(method(keeper), args, kwargs):
                    raise
                refusal = error
            return keeper.ask(refusal, name, function, args, kwargs)

    else:

        @functools.wraps(function)
        def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            return self._databand_with.current.forward(name, function, args, kwargs)

    return call


def _takes(method: Function, args: Any, kwargs: Any) -> bool:
    try:
        inspect.signature(method).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _before(store: Any, name: str) -> None:
    if name in _INSIDE:
        store._databand_with.current.deliver()


class DurableStore(StoreProxy):
    """A transparent proxy of an MLflow tracking store whose calls one of ``Keepers`` makes, or keeps."""

    __slots__ = ()
    _databand_method: ClassVar = staticmethod(_method)
    _databand_before: ClassVar = staticmethod(_before)


@functools.lru_cache(maxsize=512)
def _registry_method(_: str, function: Function) -> Function:
    @functools.wraps(function)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        keeper = self._databand_with.current
        args, kwargs = keeper.translated(args, kwargs)
        with keeper.bounded():
            return function(self._databand_inner, *args, **kwargs)

    return call


class DurableRegistry(StoreProxy):
    """A transparent proxy of a model registry, in whose calls runs and models have their ids of the tracking store."""

    __slots__ = ()
    _databand_method: ClassVar = staticmethod(_registry_method)


class Keepers:
    """The keepers of a store, made one for each workspace of MLflow in which this process makes calls."""

    def __init__(self, make: Callable[[str | None], Keeper]) -> None:
        self._make = make
        self._made: dict[str | None, Keeper] = {}

    @property
    def current(self) -> Keeper:
        """The one of this thread's workspace."""
        workspace = current_workspace()
        return self._made.get(workspace) or self._made.setdefault(workspace, self._make(workspace))


# Methods of ours that no store has.
_OURS: Final = frozenset({"are_known", "ask", "bounded", "deliver", "forward", "translated"})
# Methods of a store that are ours: where a keeper has them.
_KEPT: Final = {
    name: f"{part}{name}"
    for kind, part in ((Keeper, ""), (Experiments, "experiments."), (Models, "models."))
    for name, member in vars(kind).items()
    if callable(member) and not name.startswith("_") and name not in _OURS
}
# By which code looks into the database of an SQL store itself, or into the files of another.
_INSIDE: Final = frozenset({"ManagedSessionMaker", "engine", "root_directory"})
# What our own checks may refuse: neither reads, nor what would make a second run or model.
_CHECKED: Final = frozenset(
    name for name in _KEPT if not name.startswith(("get_", "create_run", "create_logged_model"))
)

# One for each store, whoever asks.
_outboxes: Final[dict[str, Outbox]] = {}


def durable_store(
    inner: Any, uri: str, tracker: str, config: Config, writes: str, on_created: OnCreated
) -> DurableStore:
    """A store over MLflow's own one of ``uri``, whose ``writes`` are kept: ``keep`` or ``deferred``.

    The ``tracker`` hears of its runs: its URL, without credentials. ``on_created`` is that of ``Creation``.
    """
    settings = config.settings(MlflowTrackingSettings)
    ids, is_direct = Ids(ids_folder(config)), writes == KEEP
    creation = Creation(ids, on_created)
    made_patient(inner)

    def keeper(workspace: str | None) -> Keeper:
        outbox = _outbox(uri, workspace, config)
        target = Target(inner, uri, outbox, ids, creation, settings.store_timeout, is_direct=is_direct)
        return Keeper(target, tracker, settings.store_spool_max_bytes)

    keepers = Keepers(keeper)
    _ = keepers.current  # what is wrong with the store or its journals is said now
    return DurableStore(inner, keepers, (build_inner, (uri, None)))


def durable_registry(inner: Any, store: DurableStore) -> DurableRegistry:
    """A model registry over MLflow's own one, beside a store whose writes are kept."""
    made_patient(inner)
    return DurableRegistry(inner, store._databand_with, store._databand_origin)


def _outbox(uri: str, workspace: str | None, config: Config) -> Outbox:
    url = build_journal_url(uri, workspace)
    if url in _outboxes:
        _outboxes[url].reconfigure(config)
    else:
        _outboxes[url] = Outbox(url, config, create_transport, destination=store_name(uri))
    return _outboxes[url]


def outboxes() -> list[Outbox]:
    """Where writes to MLflow stores wait in this process."""
    return list(_outboxes.values())
