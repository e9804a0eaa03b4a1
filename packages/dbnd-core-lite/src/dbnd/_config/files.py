"""The files of the configuration: where they are, and what stands in them."""

from __future__ import annotations

import configparser
import os
import re
import stat
from pathlib import Path
from typing import Final

from dbnd._base.errors import ConfigError
from dbnd._base.masking import mask_text
from dbnd._base.paths import dbnd_home, user_home, working_directory

SYSTEM_FILE: Final = Path("/etc/databand.cfg")
FILE_NAMES: Final = ("databand.cfg", "project.cfg")
# Where configparser says the line of an entry is nowhere kept, the file is looked at once more.
_SECTION_LINE: Final = re.compile(r"^\[(?P<name>[^]]+)\]")


def default_files() -> list[tuple[Path, str | None]]:
    """The files that are read without being given, lowest layer first, each with who names it, if anybody does."""
    files: list[tuple[Path, str | None]] = [(SYSTEM_FILE, None)]
    home, named, here = os.environ.get("DBND_HOME"), os.environ.get("DBND_CONFIG"), working_directory()
    if home:
        files += [(dbnd_home() / name, None) for name in FILE_NAMES]
    if named:
        files.append((Path(named), "named by the environment variable DBND_CONFIG"))
    files.append((user_home() / FILE_NAMES[0], None))
    if here is not None and not home:
        files += [(here / name, None) for name in FILE_NAMES]
    return files


def exists(path: Path) -> bool:
    """Whether there is something to be read.

    Raises:
        ConfigError: That cannot be known, or it is a folder.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        raise _unreadable(path, "it is a folder")
    return stat.S_ISREG(mode)


def read_values(path: Path, named: str | None) -> list[tuple[str, str, str, str]]:
    """Section, key, value and line number of everything that a file sets.

    Args:
        path: The file.
        named: Who names it, if it must be there.

    Raises:
        ConfigError: It does not exist, or cannot be read or parsed.
    """
    # No interpolation: a composite URI is full of "%".
    parser = configparser.RawConfigParser(strict=False)
    try:
        text = path.read_text(encoding="utf-8-sig")
        parser.read_string(text, source=str(path))
    except configparser.MissingSectionHeaderError as error:
        msg = f"{path}, line {error.lineno}: a [section] must stand before the first key."
        raise ConfigError(msg) from None
    except configparser.ParsingError as error:
        # Python 3.13 has an error with one line and no list of them.
        line, content = (getattr(error, "errors", None) or [(getattr(error, "lineno", "?"), "it")])[0]
        msg = f"{path}, line {line}: {mask_text(content)} is not of the form key = value."
        raise ConfigError(msg) from None
    except FileNotFoundError:
        msg = f"The configuration file {str(path)!r} {named or ''} does not exist."
        raise ConfigError(msg) from None
    except (OSError, ValueError, configparser.Error) as error:
        raise _unreadable(path, error) from None
    lines = _lines(text)
    return [
        (section.lower(), key, value, str(lines.get((section.lower(), key), "?")))
        for section in parser.sections()
        for key, value in parser.items(section)
    ]


def _unreadable(path: Path, reason: object) -> ConfigError:
    why = getattr(reason, "strerror", None) or reason  # without the path once more
    return ConfigError(f"The configuration file {path} cannot be read: {why}.")


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Line numbers by section and key, of the last place where each stands."""
    found, section = {}, ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = _SECTION_LINE.match(line)
        if header:
            section = header["name"].lower()
        elif line and not line[0].isspace():
            found[section, re.split(r"[=:]", line, maxsplit=1)[0].strip().lower()] = number
    return found
