"""``dbnd tracker``: serve the tracker."""

from __future__ import annotations

import click


@click.group()
def tracker() -> None:
    """Serve the tracker on this machine."""


@tracker.command()
@click.option("--host", help="Address to listen on (tracker.host); anything but the loopback needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (tracker.port); 0 takes a free one.")
@click.option("--database", help="File, sqlite:///file or postgresql://… (tracker.database).")
@click.option("--token", help="Token that every request must carry (tracker.token).")
def start(host: str | None, port: int | None, database: str | None, token: str | None) -> None:
    """Serve the HTTP API and the web page until Ctrl-C.

    Unless told otherwise, the database is the file that runs without a tracker write to.
    """
    from dbnd import _console
    from dbnd._config import Config
    from dbnd._errors import ConfigError
    from dbnd._tracking.transport import embedded_url
    from dbnd_tracker._api.access import is_loopback
    from dbnd_tracker._app import create_app
    from dbnd_tracker._database import open_database
    from dbnd_tracker._server import listen, serve
    from dbnd_tracker._settings import TrackerSettings

    config = Config.load()
    settings = config.settings(TrackerSettings)
    host = host or settings.host
    port = settings.port if port is None else port
    token = token or (settings.token.get_secret_value() if settings.token else None)
    if not is_loopback(host) and token is None:
        msg = (
            f"The tracker does not listen on {host} ({config.source('tracker', 'host')}) without a token, because "
            "everyone there could read and write runs: set tracker.token, or leave tracker.host at 127.0.0.1."
        )
        raise ConfigError(msg)
    url = database or settings.database or embedded_url()
    assert url is not None, "this package serves SQLite files"
    with listen(host, port) as listening:
        opened = open_database(url, heartbeat_timeout_s=settings.heartbeat_timeout_s)
        shown = "localhost" if is_loopback(host) else f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}"
        serve(
            create_app(opened, host=host, token=token),
            listening,
            started=lambda: _console.result(f"Tracker at {address} over {opened.name}."),
        )
        opened.close()
