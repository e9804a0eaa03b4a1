"""Composite URIs: the tracker and the user's own MLflow store in one tracking URI.

``dbnd://host:port?duplicate_tracking_to=<MLflow URI, percent-encoded twice>``; ``dbnd+s`` for an https tracker;
``dbnd:///absolute/tracker.db?…`` for the embedded tracker's file. ``databand`` and ``databand+s`` are aliases. Any
other tracker URL stands percent-encoded twice in the query, as ``databand_url``.

In journals an MLflow store has a URL, too: ``mlflow:`` and its tracking URI. A workspace of MLflow (3.10 and later)
follows behind ``#workspace=``: what is kept is delivered there.

dbnd is imported only for an error: the process in which MLflow looks for what a model imports parses URIs, too, and
dbnd is nothing that a model needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from dbnd import ConfigError

_SCHEME_OF: Final = {"http": "dbnd", "https": "dbnd+s"}
_TRACKER_OF: Final = {"dbnd": "http", "databand": "http", "dbnd+s": "https", "databand+s": "https"}
SCHEMES: Final = tuple(_TRACKER_OF)
_SQLITE: Final = "sqlite:///"
_TRACKER: Final = "databand_url"
_OWN: Final = "duplicate_tracking_to"
_WRITES: Final = "store_writes"
_KINDS_OF_WRITES: Final = ("direct", "keep", "deferred")
JOURNAL_SCHEME: Final = "mlflow"
_WORKSPACE: Final = "#workspace="


@dataclass(frozen=True, slots=True)
class CompositeUri:
    """The two halves of a composite URI.

    Args:
        databand_url: The tracker.
        duplicate_tracking_to: The user's own MLflow tracking URI, or None for MLflow's default.
        store_writes: How writes reach the user's own store: ``direct``, ``keep`` or ``deferred``; None where only the
            configuration says so.
    """

    databand_url: str
    duplicate_tracking_to: str | None
    store_writes: str | None = None


def is_composite_uri(uri: str) -> bool:
    """Whether ``uri`` is one of ours, by its scheme."""
    return uri.partition(":")[0].lower() in SCHEMES and "://" in uri


def build_composite_uri(
    databand_url: str, duplicate_tracking_to: str | None = None, store_writes: str | None = None
) -> str:
    """The composite URI of a tracker and an MLflow tracking URI; ``parse_composite_uri`` is its inverse.

    Args:
        databand_url: The tracker: http(s)://…, sqlite:///…, or any URL that a transport serves.
        duplicate_tracking_to: Any MLflow tracking URI but a composite one; None for MLflow's default.
        store_writes: As of ``CompositeUri``.

    Raises:
        ConfigError: ``duplicate_tracking_to`` is a composite URI itself.
    """
    refuse_composite(duplicate_tracking_to or "", "mlflow_tracking.duplicate_tracking_to")
    query = []
    parts = urlsplit(databand_url)
    if parts.scheme in _SCHEME_OF:
        base = f"{_SCHEME_OF[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}"
    elif databand_url.startswith(_SQLITE) and "?" not in databand_url:
        from dbnd.plugins import sqlite_path, sqlite_url

        path, _ = sqlite_path(databand_url)
        base = f"dbnd://{quote(sqlite_url(path.absolute()).removeprefix(_SQLITE))}"
    else:
        base = "dbnd://"
        query.append(f"{_TRACKER}={_encode(databand_url)}")
    if duplicate_tracking_to:
        query.append(f"{_OWN}={_encode(duplicate_tracking_to)}")
    if store_writes:
        query.append(f"{_WRITES}={store_writes}")
    return f"{base}?{'&'.join(query)}" if query else base


def parse_composite_uri(uri: str) -> CompositeUri:
    """The two halves of a composite URI, whose values may be percent-encoded once or twice.

    Raises:
        ConfigError: ``uri`` is not a composite URI, names no tracker, or holds another composite URI or something
            that is not known.
    """
    if not is_composite_uri(uri):
        raise _error(f"{_masked(uri)} is not a composite URI: it starts with none of {', '.join(SCHEMES)} and '://'.")
    base, _, query = uri.partition("?")
    scheme, _, rest = base.partition("://")
    values = _values(base, query)
    host, slash, path = rest.partition("/")
    if _TRACKER in values:
        databand_url = values[_TRACKER]
    elif "=" in host:
        raise _error(f"The composite URI {_masked(uri)} has no '?' between the tracker's address and {_OWN}.")
    elif host:
        databand_url = f"{_TRACKER_OF[scheme.lower()]}://{host}{slash}{path}".rstrip("/")
    elif path:
        databand_url = f"{_SQLITE}/{unquote(path)}"
    else:
        raise _error(
            f"The composite URI {_masked(uri)} names no tracker: write dbnd://host:port or dbnd:///path/tracker.db."
        )
    inner = values.get(_OWN, "")
    refuse_composite(inner, _OWN)
    writes = values.get(_WRITES)
    if writes not in {None, *_KINDS_OF_WRITES}:
        raise _bad_query(base, f"{_WRITES}={_masked(str(writes))}, which is none of {', '.join(_KINDS_OF_WRITES)}.")
    return CompositeUri(databand_url, inner or None, writes)


def build_journal_url(uri: str, workspace: str | None) -> str:
    """The URL that an MLflow store has in journals; ``parse_journal_url`` is its inverse."""
    where = f"{_WORKSPACE}{workspace}" if workspace else ""
    return f"{JOURNAL_SCHEME}:{absolute_uri(uri)}{where}"


def parse_journal_url(url: str) -> tuple[str, str | None]:
    """The tracking URI and the workspace in the URL that an MLflow store has in journals."""
    uri, _, workspace = url.partition(":")[2].partition(_WORKSPACE)
    return uri, workspace or None


def store_name(uri: str) -> str:
    """How messages name an MLflow store."""
    return f"the MLflow store {_without_secrets(uri)}"


def without_user(uri: str) -> str:
    """An MLflow store's URI without a user: who asks makes no other store of it."""
    masked = _without_secrets(uri)
    parts = urlsplit(masked)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else masked


def absolute_uri(uri: str) -> str:
    """``uri`` in a form that names the same store from every working directory."""
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else _canonical(uri)


def same_store(uri: str, other: str) -> bool:
    """Whether two MLflow tracking URIs name one store, however they write its path or address."""
    return _canonical(uri) == _canonical(other)


def _canonical(uri: str) -> str:
    scheme, colon, rest = uri.partition(":")
    if scheme in {"http", "https"}:
        parts = urlsplit(uri)
        return f"{scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
    is_sqlite = scheme.partition("+")[0] == "sqlite" and rest.startswith("///")
    if is_sqlite and not rest.startswith(("///file:", "///:memory:")):  # a URI, no file
        return f"{scheme}:///{Path(rest.removeprefix('///')).absolute()}"
    if scheme == "file" or (not colon and scheme != "databricks"):
        # MLflow decodes what is no URI, too.
        return str(Path(unquote(urlsplit(uri).path if colon else uri)).absolute()).replace("%", "%25")
    return f"{scheme}{colon}{rest}"


def _values(base: str, query: str) -> dict[str, str]:
    """Values of the query by name. A mistyped name would let MLflow write elsewhere without a word."""
    values: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        written, _, text = pair.partition("=")
        name, value = unquote(written), _decode(text)
        if name not in {_TRACKER, _OWN, _WRITES}:
            from dbnd.plugins import did_you_mean

            known = f"beside {_WRITES}, it knows {_OWN} (the URI of your own MLflow store) and {_TRACKER}"
            hint = did_you_mean(name, (_OWN, _TRACKER, _WRITES))
            raise _bad_query(base, f"{_masked(name)}, which is unknown: {known}.{hint}")
        if name in values:
            raise _bad_query(base, f"{name} twice: once is enough.")
        # The original client writes the user's own half empty where there is none.
        if not value and name != _OWN:
            raise _bad_query(base, f"no value for {name}: leave it out, or give one.")
        values[name] = value
    return values


def _bad_query(base: str, has: str) -> ConfigError:
    return _error(f"The query of the tracking URI {_masked(base)} has {has}")


def refuse_composite(uri: str, source: str) -> None:
    """Raise a ``ConfigError`` for a composite URI where the user's own MLflow URI belongs."""
    if is_composite_uri(uri):
        raise _error(f"{source} = {_masked(uri)} is a databand URI itself: name your own MLflow store there.")


def _error(text: str) -> ConfigError:
    from dbnd import ConfigError

    return ConfigError(text)


def _masked(uri: str) -> str:
    """``uri`` in quotes and without credentials."""
    return repr(_without_secrets(uri))


def _without_secrets(uri: str) -> str:
    from dbnd.plugins import mask_url

    return mask_url(uri)


def _encode(value: str) -> str:
    return quote(quote(value, safe=""), safe="")


def _decode(value: str) -> str:
    """Undo one or two encodings: after the first, a value encoded twice has neither ":" nor "/" yet."""
    once = unquote(value)
    return once if ":" in once or "/" in once else unquote(once)
