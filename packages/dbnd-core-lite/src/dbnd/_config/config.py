"""A configuration: layers of entries folded into one, in which every value remembers where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from dbnd._base.errors import ConfigError
from dbnd._base.masking import mask_value
from dbnd._config.original_keys import is_original
from dbnd._terminal import console
from dbnd._terminal.text import did_you_mean, first_problem

if TYPE_CHECKING:
    from pydantic import ValidationError

    from dbnd._config.settings import Settings

    S = TypeVar("S", bound=Settings)


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
        sections: The sections that exist, by name.
        files: The files that the entries were read from.
        lenient: Whether a value that cannot be used is a warning, and the default stands in for it.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        sections: Mapping[str, type[Settings]],
        files: Iterable[Path] = (),
        *,
        lenient: bool = False,
    ) -> None:
        self.files: Final = tuple(files)
        self._known: Final = sections
        self._lenient: Final = lenient
        self._entries: dict[tuple[str, str], Entry] = {}
        self._seen: list[Entry] = []
        self._sections: dict[type[Settings], Settings] = {}
        for entry in entries:
            self._entries[entry.section, entry.key] = entry
            self._seen.append(entry)

    def get(self, section: str, key: str, default: object = None) -> Any:
        """The value of ``section.key``: validated where a section declares the key, as it was written elsewhere."""
        section, key = section.lower(), key.lower()
        model = self._known.get(section)
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
                console.warn_once(f"{reason} The default is used.")
                place = error.errors(include_url=False)[0]["loc"]
                for key in place[:1] or given:
                    del self._entries[model.section, str(key)]
                return self.settings(model)
        return cast("S", self._sections[model])

    def source(self, section: str, key: str) -> str:
        """Where the value of ``section.key`` came from, in words."""
        entry = self._entries.get((section.lower(), key.lower()))
        return "default" if entry is None else entry.source

    def check(self) -> None:
        """Validate every registered section and look for unknown keys.

        Raises:
            ConfigError: A value cannot be used, or an unknown key stands on the command line or in code. An unknown
                key in a file or the environment is a warning.
        """
        for entry in self._seen:
            reason = self._unknown(entry)
            if reason is None:
                continue
            if entry.strict:
                raise ConfigError(reason)
            console.warn_once(f"{reason} It is ignored.")
        for model in self._known.values():
            self.settings(model)

    def explain(self) -> list[ExplainedValue]:
        """Every declared key with its value and source, then set keys that no section declares."""
        rows = []
        for section, model in sorted(self._known.items()):
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
        path, reason = first_problem(error)
        if not path:
            return f"The section [{model.section}] cannot be used: {reason}."
        entry = self._entries[model.section, str(path[0])]
        return f"{entry.section}.{entry.key} = {entry.shown!r} ({entry.source}) cannot be used: {reason}."

    def _unknown(self, entry: Entry) -> str | None:
        """Why ``entry`` is unknown, as a sentence, or None when it is known."""
        model = self._known.get(entry.section)
        if (model and entry.key in model.model_fields) or is_original(entry.section, entry.key):
            return None
        if model:
            what = f"The key {entry.section}.{entry.key}"
            hint = did_you_mean(entry.key, model.model_fields, f"{entry.section}.")
        else:
            what, hint = f"The section [{entry.section}]", did_you_mean(entry.section, self._known)
        return f"{what} ({entry.source}) does not exist.{hint or ' `dbnd config show` lists all keys.'}"


def shown(key: str, value: object) -> str:
    """``value`` as it may be printed under the name ``key``."""
    if value is None:
        return ""
    return mask_value(key, str(value))
