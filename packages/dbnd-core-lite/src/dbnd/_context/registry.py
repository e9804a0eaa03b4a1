"""What needs the plugins and the configuration: sections, the tracker's URL, its client, its transport, its reader."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from dbnd._base.errors import ConfigError
from dbnd._base.forks import in_children
from dbnd._base.masking import mask_url
from dbnd._base.paths import dbnd_home, sqlite_url
from dbnd._config.config import Config
from dbnd._config.layers import read_layers
from dbnd._config.settings import CoreSettings
from dbnd._context.current import get_databand_context
from dbnd._context.plugins import plugins
from dbnd._tracking.client import TrackingAPIClient
from dbnd._tracking.network_file import NetworkFileTransport, network_of

if TYPE_CHECKING:
    from dbnd._tracking.contracts import Destination, Reader, Transport


def load_config(*, conf: Mapping[str, Any] | None = None, lenient: bool = False) -> Config:
    """Read the configuration as it is now; in a command of ``dbnd``, with what its options say.

    Args:
        conf: Values given in code, as ``{"section": {"key": value}}`` or ``{"section.key": value}``.
        lenient: Whether a file or a value that cannot be used is a warning, and left out. So it is for who never
            asked for a configuration: a training under a composite URI alone.

    Raises:
        ConfigError: A file cannot be read or parsed, or an assignment has no section, key or value.
    """
    sections = {model.section: model for models in plugins().call("dbnd_settings") for model in models}
    return read_layers(sections, conf=conf, lenient=lenient)


def current_config(*, lenient: bool = False) -> Config:
    """The configuration of the current context, or, outside of one, of files and environment as they are now.

    Args:
        lenient: As of ``load_config``; the configuration of a context has been checked when it was entered.
    """
    context = get_databand_context()
    return load_config(lenient=lenient) if context is None else context.config


class _CurrentConfig:
    def __getattr__(self, name: str) -> Any:
        return getattr(current_config(), name)


config: Final = cast("Config", _CurrentConfig())
"""The configuration of the current context, or the one that a context would get now."""


def configured_url(config: Config) -> str | None:
    """Where events go: ``core.databand_url``, else the embedded tracker's file, else nowhere (None)."""
    return config.settings(CoreSettings).databand_url or embedded_url()


def embedded_url() -> str | None:
    """The URL of the embedded tracker's default file, or None when no package serves SQLite files."""
    return sqlite_url(dbnd_home() / "tracker.db") if "sqlite" in _by_scheme("dbnd_transports") else None


def create_transport(url: str, config: Config) -> Transport:
    """The transport for ``url``, chosen by its scheme; one that takes nothing for SQLite on a network file system.

    Raises:
        ConfigError: No installed package serves the scheme.
    """
    factories = _by_scheme("dbnd_transports")
    scheme = url.partition(":")[0].lower()
    if scheme in factories and (kind := network_of(url)):
        return NetworkFileTransport(kind)
    if scheme in factories:
        transport: Transport = factories[scheme](url, config)
        return transport
    source = config.source("core", "databand_url")
    hint = "" if "sqlite" in factories else " The embedded tracker comes with the package dbnd-tracker."
    raise ConfigError(
        f"core.databand_url = {mask_url(url)!r} ({source}) cannot be used: "
        f"its scheme is none of {', '.join(sorted(factories))}.{hint}"
    )


def destination_of(url: str, config: Config) -> Destination:
    """What the URL in a journal stands for: a plugin says so, or else it is a tracker."""
    found: Destination = plugins().call("dbnd_destination", reverse=True, url=url, config=config)[0]
    return found


def create_reader(config: Config) -> Reader:
    """A reader of the configured tracker.

    Raises:
        ConfigError: No tracker is configured, or no installed package reads it.
    """
    url = configured_url(config)
    factory = _by_scheme("dbnd_readers").get((url or "").partition(":")[0].lower())
    if url is None or factory is None:
        what = f"The tracker {mask_url(url)}" if url else "The tracker"
        raise ConfigError(f"{what} cannot be read: install dbnd-tracker (pip install 'databand[tracker]').")
    reader: Reader = factory(url, config)
    return reader


def _by_scheme(hook: str) -> dict[str, Any]:
    return {scheme: factory for found in plugins().call(hook) for scheme, factory in found.items()}


_by_url: Final[dict[str, TrackingAPIClient]] = {}
_making = threading.RLock()


@in_children
def _make_anew() -> None:
    global _making  # noqa: PLW0603  another thread of the parent may hold it
    _making = threading.RLock()


def get_client(url: str, config: Config) -> TrackingAPIClient:
    """This process' client for ``url``: one for each URL, whoever asks; the last configuration counts.

    Raises:
        ConfigError: No transport serves the URL's scheme.
    """
    with _making:
        if url not in _by_url:
            _by_url[url] = TrackingAPIClient(url, config, create_transport)
        else:
            _by_url[url].reconfigure(config)
        return _by_url[url]
