"""Commands of this project in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from dbnd._config.layers import CONF_FILE, SET_CONFIG

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def script(name: str) -> str:
    """The path of an installed command."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def run_command(*command: str, timeout: float = 100, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without input."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **env},
    )


@contextmanager
def command_line(*, set_config: Sequence[str] = (), conf_files: Sequence[str] = ()) -> Iterator[None]:
    """Be a command of ``dbnd`` that was given these options."""
    with click.Context(click.Command("test")) as context:
        context.meta[SET_CONFIG], context.meta[CONF_FILE] = set_config, conf_files
        yield
