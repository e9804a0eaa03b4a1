"""Layered configuration in which every value remembers where it came from.

Lowest layer first: the defaults of the sections · ``/etc/databand.cfg`` · ``$DBND_HOME/databand.cfg`` and
``project.cfg`` · the file named by ``$DBND_CONFIG`` · ``~/.dbnd/databand.cfg`` · ``databand.cfg`` and ``project.cfg``
of the working directory (when ``DBND_HOME`` is unset) · ``DBND__SECTION__KEY`` · ``--set-config`` · ``--conf-file`` ·
``dbnd_tracking(conf=…)``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from dbnd import _console
from dbnd._config_files import default_files, exists, read_values
from dbnd._errors import ConfigError
from dbnd._masking import mask_text, mask_value
from dbnd._original_keys import is_original

if TYPE_CHECKING:
    from pydantic import ValidationError

    from dbnd._settings import Settings

    S = TypeVar("S", bound=Settings)

_ENVIRONMENT: Final = re.compile(r"^DBND__([\w-]+)__([\w-]+)$")


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
        lenient: Whether a value that cannot be used is a warning, and the default stands in for it.
    """

    def __init__(self, entries: Iterable[Entry], files: Iterable[Path] = (), *, lenient: bool = False) -> None:
        self.files: Final = tuple(files)
        self._lenient: Final = lenient
        self._entries: dict[tuple[str, str], Entry] = {}
        self._seen: list[Entry] = []
        self._sections: dict[type[Settings], Settings] = {}
        for entry in entries:
            self._entries[entry.section, entry.key] = entry
            self._seen.append(entry)

    @classmethod
    def load(
        cls,
        *,
        set_config: Iterable[str] = (),
        conf_files: Iterable[str] = (),
        conf: Mapping[str, Any] | None = None,
        lenient: bool = False,
    ) -> Config:
        """Read all layers.

        Args:
            set_config: "section.key=value" from the command line.
            conf_files: Files named on the command line, each over the last.
            conf: Values given in code, as ``{"section": {"key": value}}`` or ``{"section.key": value}``.
            lenient: Whether a file or a value that cannot be used is a warning, and left out. So it is for who never
                asked for a configuration: a training under a composite URI alone.

        Raises:
            ConfigError: A file cannot be read or parsed, or an assignment has no section, key or value.
        """
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
                _warn_once(f"{error} It is left out.")
        entries += _from_environment()
        entries += _from_command_line(set_config)
        for name in conf_files:
            files.append(Path(name))
            entries += _read_file(Path(name), "given with --conf-file")
        entries += _from_code(conf or {})
        return cls(entries, files, lenient=lenient)

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
                reason = self._explain(model, error)
                if not self._lenient:
                    raise ConfigError(reason) from None
                _warn_once(f"{reason} The default is used.")
                place = error.errors(include_url=False)[0]["loc"]
                for key in place[:1] or given:
                    del self._entries[model.section, str(key)]
                return self.settings(model)
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


def current_config(*, lenient: bool = False) -> Config:
    """The configuration of the current context, or, outside of one, of files and environment as they are now.

    Args:
        lenient: As of ``Config.load``; the configuration of a context has been checked when it was entered.
    """
    from dbnd._context import get_databand_context

    context = get_databand_context()
    return Config.load(lenient=lenient) if context is None else context.config
