"""A configuration: layers of entries folded into one, in which every value remembers where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from dbnd._base.errors import ConfigError
from dbnd._base.masking import mask_value
from dbnd._config.original_keys import is_original
from dbnd._terminal import console
from dbnd._terminal.text import did_you_mean, first_problem

if TYPE_CHECKING:
    from dbnd._config.settings import Settings

    S = TypeVar("S", bound=Settings)

COMMAND_LINE: Final = "--set-config"
CODE: Final = "conf"


class Entry(NamedTuple):
    """One configured value as it was written (section and key in lower case), and where: "databand.cfg, line 3"."""

    section: str
    key: str
    value: object
    source: str

    @property
    def shown(self) -> str:
        """The value as it may be printed: secrets masked."""
        return "" if self.value is None else mask_value(self.key, str(self.value))


class Config:
    """All layers, folded: of each key the entry that wins; ``entries`` begin with those of the lowest layer.

    If ``lenient``, a value that cannot be used is a warning, and the default stands in for it.
    """

    def __init__(
        self, entries: Sequence[Entry], sections: Mapping[str, type[Settings]], files: Sequence[Path], *, lenient: bool
    ) -> None:
        self.files: Final = tuple(files)
        self.sections: Final = dict(sorted(sections.items()))
        self._lenient, self._written = lenient, entries
        self._entries: Final = {(entry.section, entry.key): entry for entry in self._written}
        self._validated: Final[dict[type[Settings], Settings]] = {}

    def get(self, section: str, key: str, default: object = None) -> Any:
        """The value of ``section.key``: validated where a section declares the key, as it was written elsewhere."""
        section, key = section.lower(), key.lower()
        model = self.sections.get(section)
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
        if model not in self._validated:
            self._validated[model] = self._validate(model)
        return cast("S", self._validated[model])

    def _validate(self, model: type[Settings]) -> Settings:
        from pydantic import ValidationError

        given = {
            key: entry.value
            for (section, key), entry in self._entries.items()
            if section == model.section and key in model.model_fields
        }
        try:
            return model.model_validate(given)
        except ValidationError as error:
            path, reason = first_problem(error)
        if path:
            entry = self._entries[model.section, str(path[0])]
            what = f"{entry.section}.{entry.key} = {entry.shown!r} ({entry.source})"
        else:
            what = f"The section [{model.section}]"
        if not self._lenient:
            raise ConfigError(f"{what} cannot be used: {reason}.")
        console.warn_once(f"{what} cannot be used: {reason}. The default is used.")
        for key in path[:1] or given:
            del self._entries[model.section, str(key)]
        return self._validate(model)

    def source(self, section: str, key: str) -> str:
        """Where the value of ``section.key`` came from, in words."""
        entry = self._entries.get((section.lower(), key.lower()))
        return "default" if entry is None else entry.source

    def written(self, section: str, key: str) -> str:
        """The value of ``section.key`` as it was written, secrets included; empty where nobody has."""
        entry = self._entries.get((section, key))
        return "" if entry is None else str(entry.value)

    def check(self) -> None:
        """Validate every registered section and look for unknown keys.

        Raises:
            ConfigError: A value cannot be used, or an unknown key stands on the command line or in code. An unknown
                key in a file or the environment is a warning.
        """
        for entry in self._written:
            reason = self._unknown(entry)
            if reason is not None and entry.source in {COMMAND_LINE, CODE}:
                raise ConfigError(reason)
            if reason is not None:
                console.warn_once(f"{reason} It is ignored.")
        for model in self.sections.values():
            self.settings(model)

    def explain(self) -> list[Entry]:
        """Every declared key with its value as it may be printed and its source, then keys that no section declares."""
        declared = {
            (section, key): Entry(section, key, getattr(self.settings(model), key), self.source(section, key))
            for section, model in self.sections.items()
            for key in model.model_fields
        }
        keys = [key for _, key in declared]
        rest = [  # one that is spelt like a secret's is taken for it
            entry._replace(
                value=mask_value(did_you_mean(entry.key, keys), entry.shown), source=f"{entry.source} (not used)"
            )
            for name, entry in sorted(self._entries.items())
            if name not in declared
        ]
        return [entry._replace(value=entry.shown) for entry in (*declared.values(), *rest)]

    def _unknown(self, entry: Entry) -> str | None:
        """Why ``entry`` is unknown, as a sentence, or None when it is known."""
        model = self.sections.get(entry.section)
        if (model and entry.key in model.model_fields) or is_original(entry.section, entry.key):
            return None
        if model:
            what = f"The key {entry.section}.{entry.key}"
            hint = did_you_mean(entry.key, model.model_fields, f"{entry.section}.")
        else:
            what, hint = f"The section [{entry.section}]", did_you_mean(entry.section, self.sections)
        return f"{what} ({entry.source}) does not exist.{hint or ' `dbnd config show` lists all keys.'}"
