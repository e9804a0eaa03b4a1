"""The layers of a configuration: files, environment, command line and code.

Lowest layer first: the defaults of the sections · ``/etc/databand.cfg`` · ``$DBND_HOME/databand.cfg`` and
``project.cfg`` · the file named by ``$DBND_CONFIG`` · ``~/.dbnd/databand.cfg`` · ``databand.cfg`` and ``project.cfg``
of the working directory (when ``DBND_HOME`` is unset) · ``DBND__SECTION__KEY`` · ``--set-config`` · ``--conf-file`` ·
``dbnd_tracking(conf=…)``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dbnd._base.errors import ConfigError
from dbnd._base.masking import mask_text
from dbnd._config.config import Config, Entry
from dbnd._config.files import default_files, exists, read_values
from dbnd._terminal import console

if TYPE_CHECKING:
    from dbnd._config.settings import Settings

_ENVIRONMENT: Final = re.compile(r"^DBND__([\w-]+)__([\w-]+)$")


def read_layers(
    sections: Mapping[str, type[Settings]],
    *,
    set_config: Iterable[str] = (),
    conf_files: Iterable[str] = (),
    conf: Mapping[str, Any] | None = None,
    lenient: bool = False,
) -> Config:
    """Read all layers into a configuration of these sections (see ``load_config``)."""
    entries: list[Entry] = []
    files: list[Path] = []
    for path, named in default_files():
        try:
            if named or exists(path):
                entries += _read_file(path, named)
                files.append(path)
        except ConfigError as error:
            if not lenient:
                raise
            console.warn_once(f"{error} It is left out.")
    entries += _from_environment()
    entries += _from_command_line(set_config)
    for name in conf_files:
        files.append(Path(name))
        entries += _read_file(Path(name), "given with --conf-file")
    entries += _from_code(conf or {})
    return Config(entries, sections, files, lenient=lenient)


def _read_file(path: Path, named: str | None = None) -> list[Entry]:
    found = read_values(path, named)
    return [Entry(section, key, value, f"{path}, line {line}") for section, key, value, line in found]


def _from_environment() -> list[Entry]:
    return [
        Entry(found[1].lower(), found[2].lower(), value.strip(), f"environment variable {name}")  # as of files
        for name, value in sorted(os.environ.items())
        if (found := _ENVIRONMENT.match(name))
    ]


def _from_command_line(assignments: Iterable[str]) -> list[Entry]:
    entries = []
    for assignment in assignments:
        place, equals, value = assignment.partition("=")
        section, dot, key = place.strip().lower().rpartition(".")
        if not (equals and dot and section and key):
            msg = f"--set-config {mask_text(assignment)!r} is not of the form section.key=value."
            raise ConfigError(msg)
        entries.append(Entry(section, key, value.strip(), "--set-config", strict=True))
    return entries


def _from_code(conf: Mapping[str, Any]) -> list[Entry]:
    entries = []
    for name, value in conf.items():
        section, dot, key = name.lower().rpartition(".")
        if dot:
            entries.append(Entry(section, key, value, "conf", strict=True))
        elif isinstance(value, Mapping):
            entries += [Entry(key, str(k).lower(), v, "conf", strict=True) for k, v in value.items()]
        else:
            msg = f"conf[{name!r}] is neither a section (a dict) nor a value named 'section.key'."
            raise ConfigError(msg)
    return entries
