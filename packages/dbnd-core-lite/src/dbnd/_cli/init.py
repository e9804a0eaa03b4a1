"""``dbnd init``: a configuration file in which every key stands, explained."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from dbnd._base.errors import DatabandError, UsageError
from dbnd._base.paths import dbnd_home, working_directory
from dbnd._config.config import COMMAND_LINE, Config
from dbnd._config.layers import FILE_NAMES
from dbnd._context.registry import load_config
from dbnd._terminal import console


@click.command()
def init() -> None:
    """Write a databand.cfg with all keys, each explained and commented out, into the working directory.

    What -c says is set in it: dbnd init -c mlflow_tracking.databand_tracking=True. With DBND_HOME set, the file is
    written there, where it is read.
    """
    config = load_config()
    config.check()
    folder = dbnd_home() if os.environ.get("DBND_HOME") else working_directory() or Path()
    file = folder / FILE_NAMES[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = "\n".join(_lines(config)).encode()
        with file.open("xb") as stream:
            stream.write(text)
    except (OSError, UnicodeEncodeError) as error:
        if os.path.exists(file):  # noqa: PTH110  Path.exists() raises where it may not look
            raise UsageError(f"{file} exists already, and stays as it is: move it away first.") from None
        raise DatabandError(f"{file} cannot be written: {getattr(error, 'strerror', None) or error}.") from None
    console.success(f"{file} is written; `dbnd config show` says what counts, and why.")


def _lines(config: Config) -> Iterator[str]:
    yield "# The configuration of dbnd. Take the # away from a key to set it; what stands behind it is its default."
    for section, model in config.sections.items():
        yield from ("", f"[{section}]")
        for key, field in model.model_fields.items():
            yield from (f"# {line}".rstrip() for line in (field.description or "").replace("``", "").splitlines())
            is_set = config.source(section, key) == COMMAND_LINE
            # The further lines of a value are those that begin with a blank.
            value = "\n    ".join(config.written(section, key).splitlines())
            yield f"{key} = {value}" if is_set else f"#{key} = {_default(field)}".rstrip()
    yield ""


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, SecretStr):
        return ""
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
