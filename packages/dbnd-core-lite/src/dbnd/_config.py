"""Layered configuration in which every value remembers where it came from.

Lowest layer first: the defaults of the sections · ``/etc/databand.cfg`` · ``$DBND_HOME/databand.cfg`` and
``project.cfg`` · the file named by ``$DBND_CONFIG`` · ``~/.dbnd/databand.cfg`` · ``databand.cfg`` and ``project.cfg``
of the working directory (when ``DBND_HOME`` is unset) · ``DBND__SECTION__KEY`` · ``--set-config`` · ``--conf-file`` ·
``dbnd_tracking(conf=…)``.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from dbnd import _console
from dbnd._errors import ConfigError
from dbnd._masking import mask_text, mask_value
from dbnd._original_keys import is_original
from dbnd._paths import user_home

if TYPE_CHECKING:
    from pydantic import ValidationError

    from dbnd._settings import Settings

    S = TypeVar("S", bound=Settings)

_ENVIRONMENT: Final = re.compile(r"^DBND__([\w-]+)__([\w-]+)$")
# Where configparser says the line of an entry is nowhere kept, the file is looked at once more.
_SECTION_LINE: Final = re.compile(r"^\[(?P<name>[^]]+)\]")
SYSTEM_FILE: Final = Path("/etc/databand.cfg")
FILE_NAMES: Final = ("databand.cfg", "project.cfg")


@dataclass(frozen=True, slots=True)
class Entry:
    """One configured value as it was written, and where.

    Args:
        section: Section in lower case.
        key: Key in lower case.
        value: Text from files, environment and command line; any object from code.
        source: Where it stands, in words: "databand.cfg, line 3".
        strict: Whether an unknown key is an error there (command line and code) or a warning.
    """

    section: str
    key: str
    value: object
    source: str
    strict: bool = False

    @property
    def shown(self) -> str:
        """The value as it may be printed: secrets masked."""
        return shown(self.key, self.value)


@dataclass(frozen=True, slots=True)
class ExplainedValue:
    """One row of ``dbnd config show``."""

    section: str
    key: str
    value: str
    source: str


class Config:
    """All layers, folded: of each key the entry that wins.

    Args:
        entries: The entries of all layers, lowest layer first.
        files: The files that they were read from.
    """

    def __init__(self, entries: Iterable[Entry], files: Iterable[Path] = ()) -> None:
        self.files: Final = tuple(files)
        self._entries: dict[tuple[str, str], Entry] = {}
        self._seen: list[Entry] = []
        self._sections: dict[type[Settings], Settings] = {}
        for entry in entries:
            self._entries[entry.section, entry.key] = entry
            self._seen.append(entry)

    @classmethod
    def load(
        cls, *, set_config: Iterable[str] = (), conf_files: Iterable[str] = (), conf: Mapping[str, Any] | None = None
    ) -> Config:
        """Read all layers.

        Args:
            set_config: "section.key=value" from the command line.
            conf_files: Files named on the command line, each over the last.
            conf: Values given in code, as ``{"section": {"key": value}}`` or ``{"section.key": value}``.

        Raises:
            ConfigError: A file cannot be read or parsed, or an assignment has no section, key or value.
        """
        entries: list[Entry] = []
        files = [path for path in _default_files() if path.is_file()]
        for path in files:
            entries += _read_file(path)
        entries += _from_environment()
        entries += _from_command_line(set_config)
        for name in conf_files:
            if not Path(name).is_file():
                msg = f"The configuration file {name!r} given with --conf-file does not exist."
                raise ConfigError(msg)
            files.append(Path(name))
            entries += _read_file(Path(name))
        entries += _from_code(conf or {})
        return cls(entries, files)

    def get(self, section: str, key: str, default: object = None) -> Any:  # noqa: ANN401  the type is the key's own
        """The value of ``section.key``: validated where a section declares the key, as it was written elsewhere."""
        section, key = section.lower(), key.lower()
        model = _models().get(section)
        if model is not None and key in model.model_fields:
            value = getattr(self.settings(model), key)
            return default if value is None else value
        entry = self._entries.get((section, key))
        return default if entry is None else entry.value

    def settings(self, model: type[S]) -> S:
        """The validated section ``model``.

        Raises:
            ConfigError: A value cannot be used; the message names it and where it stands.
        """
        if model not in self._sections:
            from pydantic import ValidationError

            given = {
                key: entry.value
                for (section, key), entry in self._entries.items()
                if section == model.section and key in model.model_fields
            }
            try:
                self._sections[model] = model.model_validate(given)
            except ValidationError as error:
                raise ConfigError(self._explain(model, error)) from None
        return cast("S", self._sections[model])

    def source(self, section: str, key: str) -> str:
        """Where the value of ``section.key`` came from, in words."""
        entry = self._entries.get((section.lower(), key.lower()))
        return "default" if entry is None else entry.source

    def is_set(self, section: str, key: str) -> bool:
        """Whether any layer sets ``section.key``, also to an empty value."""
        return (section.lower(), key.lower()) in self._entries

    def check(self) -> None:
        """Validate every registered section and look for unknown keys.

        Raises:
            ConfigError: A value cannot be used, or an unknown key stands on the command line or in code. An unknown
                key in a file or the environment is a warning.
        """
        for entry in self._seen:
            reason = _unknown(entry)
            if reason is None:
                continue
            if entry.strict:
                raise ConfigError(reason)
            _warn_once(f"{reason} It is ignored.")
        for model in _models().values():
            self.settings(model)

    def explain(self) -> list[ExplainedValue]:
        """Every declared key with its value and source, then set keys that no section declares."""
        rows = []
        for section, model in sorted(_models().items()):
            values = self.settings(model)
            rows += [
                ExplainedValue(section, key, shown(key, getattr(values, key)), self.source(section, key))
                for key in model.model_fields
            ]
        declared = {(row.section, row.key) for row in rows}
        rest = sorted(place for place in self._entries if place not in declared)
        rows += [
            ExplainedValue(section, key, entry.shown, f"{entry.source} (not used)")
            for section, key in rest
            for entry in [self._entries[section, key]]
        ]
        return rows

    def _explain(self, model: type[Settings], error: ValidationError) -> str:
        problem = error.errors(include_url=False)[0]
        place = problem["loc"]
        reason = problem["msg"].removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
        if not place:
            return f"The section [{model.section}] cannot be used: {reason}."
        entry = self._entries[model.section, str(place[0])]
        return f"{entry.section}.{entry.key} = {entry.shown!r} ({entry.source}) cannot be used: {reason}."


def shown(key: str, value: object) -> str:
    """``value`` as it may be printed under the name ``key``."""
    if value is None:
        return ""
    return mask_value(key, str(value))


def _models() -> dict[str, type[Settings]]:
    from dbnd._plugins import plugins

    return {model.section: model for models in plugins().call("dbnd_settings") for model in models}


def _default_files() -> list[Path]:
    home = os.environ.get("DBND_HOME")
    named = os.environ.get("DBND_CONFIG")
    if named and not Path(named).is_file():
        msg = f"The configuration file {named!r} named by the environment variable DBND_CONFIG does not exist."
        raise ConfigError(msg)
    return [
        SYSTEM_FILE,
        *([Path(home).expanduser() / name for name in FILE_NAMES] if home else []),
        *([Path(named)] if named else []),
        user_home() / FILE_NAMES[0],
        *(Path.cwd() / name for name in (() if home else FILE_NAMES)),
    ]


def _read_file(path: Path) -> list[Entry]:
    # No interpolation: a composite URI is full of "%".
    parser = configparser.RawConfigParser(strict=False)
    try:
        text = path.read_text(encoding="utf-8")
        parser.read_string(text, source=str(path))
    except configparser.MissingSectionHeaderError as error:
        msg = f"{path}, line {error.lineno}: a [section] must stand before the first key."
        raise ConfigError(msg) from None
    except configparser.ParsingError as error:
        line, content = error.errors[0]
        msg = f"{path}, line {line}: {content} is not of the form key = value."
        raise ConfigError(msg) from None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"The configuration file {path} cannot be read: {error}."
        raise ConfigError(msg) from None
    lines = _lines(text)
    return [
        Entry(section.lower(), key, value, f"{path}, line {lines.get((section.lower(), key), '?')}")
        for section in parser.sections()
        for key, value in parser.items(section)
    ]


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


def _from_environment() -> list[Entry]:
    return [
        Entry(found[1].lower(), found[2].lower(), value, f"environment variable {name}")
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


def _unknown(entry: Entry) -> str | None:
    """Why ``entry`` is unknown, as a sentence, or None when it is known."""
    models = _models()
    model = models.get(entry.section)
    if (model and entry.key in model.model_fields) or is_original(entry.section, entry.key):
        return None
    import difflib

    if model:
        what, near = f"The key {entry.section}.{entry.key}", difflib.get_close_matches(entry.key, model.model_fields, 1)
        near = [f"{entry.section}.{key}" for key in near]
    else:
        what, near = f"The section [{entry.section}]", difflib.get_close_matches(entry.section, models, 1)
    hint = f" Did you mean {near[0]}?" if near else " `dbnd config show` lists all keys."
    return f"{what} ({entry.source}) does not exist.{hint}"


_warned: set[str] = set()


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        _console.warning(text)


class _CurrentConfig:
    """``dbnd.config``: the configuration of the current context, or the one that a context would get now."""

    def get(self, section: str, key: str, default: object = None) -> Any:  # noqa: ANN401  the type is the key's own
        """The value of ``section.key`` (see ``Config.get``)."""
        return current_config().get(section, key, default)

    def settings(self, model: type[S]) -> S:
        """The validated section ``model`` (see ``Config.settings``)."""
        return current_config().settings(model)


config: Final = _CurrentConfig()


def current_config() -> Config:
    """The configuration of the current context, or, outside of one, of files and environment as they are now."""
    from dbnd._context import get_databand_context

    context = get_databand_context()
    return Config.load() if context is None else context.config
