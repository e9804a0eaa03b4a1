"""Entering and leaving a databand context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dbnd._base.errors import TrackingError
from dbnd._config.config import Config
from dbnd._config.settings import CoreSettings
from dbnd._context.current import DatabandContext, current_context
from dbnd._context.plugins import plugins
from dbnd._context.registry import configured_url, get_client, load_config
from dbnd._terminal import console


@contextmanager
def new_dbnd_context(
    conf: Mapping[str, Any] | None = None, *, config: Config | None = None
) -> Iterator[DatabandContext]:
    """Enter a databand context without a run; at the end of the block, deliver what was tracked.

    Args:
        conf: Configuration over all other layers: ``{"section": {"key": value}}`` or ``{"section.key": value}``.
        config: A configuration that is loaded already, in place of ``conf``.

    Raises:
        ConfigError: The configuration cannot be used.
        TrackingError: Something could not be delivered, and ``core.tracker_raise_on_error`` is on.
    """
    context = DatabandContext(config or load_config(conf=conf))
    context.config.check()
    is_strict = False
    try:
        with current_context(context):
            try:
                url = configured_url(context.config)
                if url is not None:
                    context.client = get_client(url, context.config)
                plugins().call("dbnd_on_pre_init_context", ctx=context)
                plugins().call("dbnd_on_new_context", ctx=context)
                yield context
            finally:
                plugins().call("dbnd_on_exit_context", reverse=True, ctx=context)
        is_strict = context.config.settings(CoreSettings).tracker_raise_on_error
    finally:
        _deliver(context, is_strict=is_strict)


def _deliver(context: DatabandContext, *, is_strict: bool) -> None:
    if context.client is None:
        return
    context.client.flush()
    problem = context.client.left_over()
    if problem and is_strict:
        raise TrackingError(problem)
    if problem:
        console.warning(problem)
