"""The layers of a configuration: files, environment, command line and code.

Lowest layer first: the defaults of the sections · ``/etc/databand.cfg`` · ``$DBND_HOME/databand.cfg`` and
``project.cfg`` · the file named by ``$DBND_CONFIG`` · ``~/.dbnd/databand.cfg`` · ``databand.cfg`` and ``project.cfg``
of the working directory (when ``DBND_HOME`` is unset) · ``DBND__SECTION__KEY`` · ``--set-config`` · ``--conf-file`` ·
``dbnd_tracking(conf=…)``.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dbnd._base.errors import ConfigError
from dbnd._base.masking import mask_text
from dbnd._base.paths import dbnd_home, user_home, working_directory
from dbnd._config.config import CODE, COMMAND_LINE, Config, Entry
from dbnd._terminal import console

if TYPE_CHECKING:
    from dbnd._config.settings import Settings

SYSTEM_FILE: Final = Path("/etc/databand.cfg")
FILE_NAMES: Final = ("databand.cfg", "project.cfg")
# Where click's context holds what the options of these names were given (see ``_cli.main``).
SET_CONFIG: Final = "dbnd_set_config"
CONF_FILE: Final = "dbnd_conf_file"
_ENVIRONMENT: Final = re.compile(r"^DBND__([\w-]+)__([\w-]+)$")
_SECTION: Final = re.compile(r"^\[(?P<name>[^]]+)\]")


def read_layers(
    sections: Mapping[str, type[Settings]], *, conf: Mapping[str, Any] | None = None, lenient: bool = False
) -> Config:
    """Read all layers into a configuration of these sections (see ``load_config``)."""
    context = click.get_current_context(silent=True)
    given = {} if context is None else context.meta
    entries: list[Entry] = []
    files: list[Path] = []
    for path, named in _default_files():
        try:
            found = _read_file(path, named)
        except ConfigError as error:
            if not lenient:
                raise
            console.warn_once(f"{error} It is left out.")
        else:
            if found is not None:
                entries += found
                files.append(path)
    entries += _from_environment()
    entries += map(_from_command_line, given.get(SET_CONFIG, ()))
    for name in given.get(CONF_FILE, ()):
        entries += _read_file(Path(name), "given with --conf-file") or ()
        files.append(Path(name))
    entries += _from_code(conf or {})
    return Config(entries, sections, files, lenient=lenient)


def _default_files() -> Iterator[tuple[Path, str | None]]:
    """The files that are read without being given, lowest layer first, each with who names it, if anybody does."""
    home, named, here = os.environ.get("DBND_HOME"), os.environ.get("DBND_CONFIG"), working_directory()
    yield SYSTEM_FILE, None
    if home:
        yield from ((dbnd_home() / name, None) for name in FILE_NAMES)
    if named:
        yield Path(named), "named by the environment variable DBND_CONFIG"
    yield user_home() / FILE_NAMES[0], None
    if here is not None and not home:
        yield from ((here / name, None) for name in FILE_NAMES)


def _read_file(path: Path, named: str | None) -> list[Entry] | None:
    """What ``path`` sets, or None when it does not exist and nobody has ``named`` it.

    Raises:
        ConfigError: It cannot be read or parsed, or somebody has named it and it does not exist.
    """
    # No interpolation: a composite URI is full of "%".
    parser = configparser.RawConfigParser(strict=False)
    try:
        text = path.read_text(encoding="utf-8-sig")
        parser.read_string(text, source=str(path))
    except (FileNotFoundError, NotADirectoryError):
        if named is None:
            return None
        raise ConfigError(f"The configuration file {str(path)!r} {named} does not exist.") from None
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(f"{path}, line {error.lineno}: a [section] must stand before the first key.") from None
    except configparser.ParsingError as error:
        # Python 3.13 has an error with one line and no list of them.
        line, content = (getattr(error, "errors", None) or [(getattr(error, "lineno", "?"), "it")])[0]
        raise ConfigError(f"{path}, line {line}: {mask_text(content)} is not of the form key = value.") from None
    except (OSError, ValueError, configparser.Error) as error:
        if named is None and not os.access(path.parent, os.X_OK):  # the home of another user, in a container
            return None
        why = getattr(error, "strerror", None) or error  # without the path once more
        raise ConfigError(f"The configuration file {path} cannot be read: {why}.") from None
    lines = _lines(text)
    return [
        Entry(section.lower(), key, value, f"{path}, line {lines.get((section.lower(), key), '?')}")
        for section in parser.sections()
        for key, value in parser.items(section)
    ]


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Line numbers by section and key, which configparser does not keep; of the last place where each stands."""
    found, section = {}, ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = _SECTION.match(line)
        if header:
            section = header["name"].lower()
        elif line and not line[0].isspace():
            found[section, re.split(r"[=:]", line, maxsplit=1)[0].strip().lower()] = number
    return found


def _from_environment() -> list[Entry]:
    return [
        Entry(found[1].lower(), found[2].lower(), value.strip(), f"environment variable {name}")  # as of files
        for name, value in sorted(os.environ.items())
        if (found := _ENVIRONMENT.match(name))
    ]


def _from_command_line(assignment: str) -> Entry:
    name, equals, value = assignment.partition("=")
    section, _, key = name.strip().lower().rpartition(".")
    if not (equals and section and key):
        raise ConfigError(f"--set-config {mask_text(assignment)!r} is not of the form section.key=value.")
    return Entry(section, key, value.strip(), COMMAND_LINE)


def _from_code(conf: Mapping[str, Any]) -> Iterator[Entry]:
    if not isinstance(conf, Mapping):
        raise ConfigError(
            f"conf is a {type(conf).__name__}, and not a dict of sections or of values named 'section.key'."
        )
    for name, value in conf.items():
        section, dot, key = str(name).lower().rpartition(".")
        if dot:
            yield Entry(section, key, value, CODE)
        elif isinstance(value, Mapping):
            yield from (Entry(key, str(k).lower(), v, CODE) for k, v in value.items())
        else:
            raise ConfigError(f"conf[{name!r}] is neither a section (a dict) nor a value named 'section.key'.")
