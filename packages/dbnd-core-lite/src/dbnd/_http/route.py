"""The way to a server: its addresses, a proxy of the environment, TLS."""

from __future__ import annotations

import base64
import encodings.idna  # noqa: F401  what getaddrinfo() imports: a fork in that moment would leave the child its lock
import errno
import ipaddress
import os
from pathlib import Path
from socket import IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, gaierror, getaddrinfo, socket
from ssl import CERT_NONE, PROTOCOL_TLS_CLIENT, SSLCertVerificationError, SSLContext, SSLError
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi

from dbnd._base.clock import monotonic
from dbnd._base.masking import mask_url
from dbnd._base.paths import above_streams
from dbnd._tracking.contracts import BusyError, UnreachableError

PORTS: Final = {"http": 80, "https": 443}
"""The port of each scheme."""
_NO_ROUTE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL})
# Variables that name a file or folder of certificates; the first that is set counts.
_CERTIFICATES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
# Bound here like the classes: see `connection`.
_wrap: Final = SSLContext.wrap_socket


def server_of(url: str) -> SplitResult:
    """``url`` in its parts; ValueError where scheme, host or port cannot be used."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or parts.port == 0:
        raise ValueError("http(s)://host:port is needed")
    return parts


def open_socket(host: str, port: int, deadline: float) -> socket:
    """A socket that is connected to the first address of ``host`` that takes it; OSError where none does."""
    failure: OSError = gaierror(f"{host} has no address")
    try:
        found = getaddrinfo(host, port, 0, SOCK_STREAM)
    except UnicodeError:  # no name of a host
        raise failure from None
    for family, kind, protocol, _, address in found:
        opened = socket(family, kind, protocol)
        opened = socket(family, kind, protocol, above_streams(opened.detach()))
        try:
            opened.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            opened.settimeout(time_left(deadline))
            opened.connect(address)
        except BaseException as error:
            opened.close()
            if not isinstance(error, OSError):
                raise
            failure = error
        else:
            return opened
    raise failure


def secured(opened: socket, host: str, deadline: float, *, verifies: bool) -> socket:
    """``opened`` with TLS on it."""
    opened.settimeout(time_left(deadline))
    return _wrap(_tls(verifies=verifies), opened, server_hostname=host)


def time_left(deadline: float) -> float:
    """Seconds until ``deadline`` (of ``monotonic``); TimeoutError when it is over."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def not_connected(error: OSError, seconds: float) -> UnreachableError:
    """What a failure to connect says about the tracker: that there is none, or that it has its troubles."""
    if isinstance(error, TimeoutError):
        return UnreachableError(f"no connection within {round(seconds, 1):g} s")
    if isinstance(error, SSLCertVerificationError):
        return UnreachableError(f"its certificate is not accepted: {error.verify_message}")
    if isinstance(error, SSLError):
        return UnreachableError(f"it does not speak TLS as it should: {error.reason or error}")
    if isinstance(error, (ConnectionRefusedError, gaierror)) or error.errno in _NO_ROUTE:
        return UnreachableError(f"no connection: {error}")
    return BusyError(f"the connection broke: {error}")


def _tls(*, verifies: bool) -> SSLContext:
    context = SSLContext(PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if not verifies:
        context.check_hostname = False
        context.verify_mode = CERT_NONE
        return context
    named = next((name for name in _CERTIFICATES if os.environ.get(name)), None)
    if named is None:
        context.load_verify_locations(certifi.where())
        return context
    path = os.environ[named]
    try:
        context.load_verify_locations(**{"capath" if Path(path).is_dir() else "cafile": path})
    except OSError as error:
        raise UnreachableError(f"the certificates of {named} = {path!r} cannot be read: {error}") from None
    return context


def proxy_for(scheme: str, host: str, port: int) -> SplitResult | None:
    """The proxy that the environment names for a server, or None; UnreachableError where it cannot be used."""
    proxies = getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    if not url or _is_direct(host, port, proxies.get("no", "")):
        return None
    trouble = f"the proxy {mask_url(url)!r} of the environment cannot be used"
    try:
        proxy = server_of(url if "://" in url else f"http://{url}")
    except ValueError:
        raise UnreachableError(f"{trouble}: http://host:port is needed") from None
    if proxy.scheme == scheme == "https":
        raise UnreachableError(f"{trouble} for https: one that speaks http is needed")
    return proxy


def _is_direct(host: str, port: int, exceptions: str) -> bool:
    """Whether the environment has the server spoken to without a proxy: by name, or by a network like 10.0.0.0/8."""
    if proxy_bypass(f"{host}:{port}"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in exceptions.split(","):
        try:
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:  # a name
            continue
    return False


def proxy_authorization(proxy: SplitResult | None) -> dict[str, str]:
    """The header by which a proxy knows the user that its URL names, if it names one."""
    if proxy is None or proxy.username is None:
        return {}
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}
