"""The transport to a tracker behind HTTP: a Databand server, or ``dbnd tracker start``."""

from __future__ import annotations

import errno
import gzip
import math
import socket
import time
import uuid
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from dbnd import __version__
from dbnd._json import encode
from dbnd._tracking.transport import (
    AccessError,
    Batch,
    BusyError,
    PartlyAppliedError,
    RefusedError,
    TooLargeError,
    UnreachableError,
)
from dbnd._tracking.wire import PROTOCOL_VERSION

if TYPE_CHECKING:
    from dbnd._settings import CoreSettings

_TRACE_ID: Final = uuid.uuid4().hex
# Statuses after which the same request may be taken later.
_RETRIED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
# By this header a server says that it takes points as the journal has them, and a request that it has some.
_POINTS: Final = "X-Databand-Points"
# Statuses by which a server may say that it does not know that form.
_NOT_UNDERSTOOD: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY}
)
_NO_ROUTE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL})
# Seconds: the least time-out of a request near its deadline, and the longest that a tracker can ask to be left alone.
_LEAST_TIMEOUT: Final = 0.1
_LONGEST_WAIT: Final = 3600.0
_NO_ACCESS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class HttpTransport:
    """Posts batches to ``/api/v1/tracking/<call>`` of a server.

    Args:
        url: Base URL of the server; a path in it belongs to the web page only and is left out of calls.
        settings: Credentials, time-outs and headers.
    """

    def __init__(self, url: str, settings: CoreSettings) -> None:
        parts = urlsplit(url)
        self._base: Final = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/api/v1"
        self._settings = settings
        self._session: requests.Session | None = None
        # Whether this server, in this session, has said that it takes points as the journal has them.
        self._takes_points = False
        self.deadline: float | None = None

    def send(self, batch: Batch) -> None:
        """Deliver one batch (see ``Transport.send``)."""
        headers = {"X-Databand-Batch": f"{batch.journal}:{batch.first}-{batch.last}"}
        session = self._connect()
        path = f"tracking/{batch.call}"
        if self._takes_points and isinstance(batch.body, list):
            body = encode({"points": batch.body})
            response = self._request(session, "POST", path, body, {**headers, _POINTS: "1"})
            if response.status_code not in _NOT_UNDERSTOOD:
                self._raise_for_status(response)
                return
            # Behind one address there may be servers of several versions.
            self._takes_points = False
        self._raise_for_status(self._request(session, "POST", path, batch.wire_text().encode("ascii"), headers))

    def heartbeat(self, run_uid: str) -> str | None:
        """Say that a run is alive (see ``Transport.heartbeat``)."""
        response = self._request(self._connect(), "POST", "tracking/heartbeat", encode({"run_uid": run_uid}))
        self._raise_for_status(response)
        try:
            state = response.json()
        except ValueError:
            return None
        return state if isinstance(state, str) else None

    def check(self) -> None:
        """Log no metrics: a call like any other, with nothing in it (see ``Transport.check``)."""
        self._raise_for_status(self._request(self._connect(), "POST", "tracking/log_metrics", b'{"metrics_info": []}'))

    def close(self) -> None:
        """Close the connection; the next ``send`` makes a new one."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self._takes_points = False

    def _connect(self) -> requests.Session:
        if self._session is not None:
            return self._session
        session = requests.Session()
        session.trust_env = True
        session.verify = not self._settings.ignore_ssl_errors
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=0))  # only the sender retries
        session.headers.update(
            {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "Content-Encoding": "gzip",
                "User-Agent": f"dbnd-core-lite/{__version__}",
                "X-Databand-Version": PROTOCOL_VERSION,
                "X-Databand-Trace-ID": _TRACE_ID,
                **self._settings.extra_default_headers,
            }
        )
        token = self._settings.databand_access_token
        if token is not None:
            session.auth = _Bearer(token.get_secret_value())
        else:
            self._login(session)
        self._session = session
        return session

    def _login(self, session: requests.Session) -> None:
        session.auth = _NoAuth()
        answer = self._request(session, "GET", "auth/csrf", b"null")
        csrf = session.cookies.get("X-CSRF-TOKEN")
        if csrf:
            session.headers["X-CSRFToken"] = csrf
        if answer.ok:
            login = {
                "username": self._settings.dbnd_user,
                "password": self._settings.dbnd_password.get_secret_value(),
            }
            answer = self._request(session, "POST", "auth/login", encode(login))
        if not answer.ok:
            _raise_if_busy(answer)
            msg = f"its login answered {answer.status_code}; set core.databand_access_token or core.dbnd_user"
            raise AccessError(msg)

    def _request(
        self, session: requests.Session, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> requests.Response:
        connect, read = self._settings.connect_timeout, self._settings.api_request_timeout_sec
        if self.deadline is not None:
            left = max(_LEAST_TIMEOUT, self.deadline - time.monotonic())
            connect, read = min(connect, left), min(read, left)
        try:
            response = session.request(
                method,
                f"{self._base}/{path}",
                data=gzip.compress(body, compresslevel=1),
                headers={"X-Request-ID": uuid.uuid4().hex, **(headers or {})},
                timeout=(connect, read),
                allow_redirects=False,  # a redirected POST would become a GET
            )
        except requests.RequestException as error:
            self.close()
            raise _unreachable(error, connect, read) from None
        if response.headers.get(_POINTS) == "1":
            self._takes_points = True
        return response

    def _raise_for_status(self, response: requests.Response) -> None:
        if response.status_code in _NO_ACCESS:
            self.close()  # a session cookie may have run out: log in anew at the next attempt
            what = "core.databand_access_token" if self._settings.databand_access_token else "core.dbnd_user"
            msg = f"it answered {response.status_code} and so refuses the credentials of {what}"
            raise AccessError(msg)
        _raise_for_status(response)


def _unreachable(error: requests.RequestException, connect: float, read: float) -> UnreachableError:
    """What an exception of requests says about the tracker: that there is none, or that it has its troubles."""
    if isinstance(error, requests.ConnectTimeout):
        return UnreachableError(f"no connection within {connect:g} s")
    if isinstance(error, requests.exceptions.SSLError):
        return UnreachableError(f"its certificate is not accepted: {_innermost(error)}")
    if isinstance(error, requests.Timeout):
        return BusyError(f"no answer within {read:g} s")
    reason = _innermost(error)
    if isinstance(error, requests.ConnectionError):
        never_connected = isinstance(reason, (ConnectionRefusedError, socket.gaierror)) or (
            isinstance(reason, OSError) and reason.errno in _NO_ROUTE
        )
        kind = UnreachableError if never_connected or isinstance(error, requests.exceptions.ProxyError) else BusyError
        return kind(f"no connection: {reason}" if never_connected else f"the connection broke: {reason}")
    return BusyError(f"the request failed: {error}")


class _Bearer(requests.auth.AuthBase):
    """Sends the token, and keeps requests from using a password of ``~/.netrc`` instead."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _NoAuth(requests.auth.AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _raise_for_status(response: requests.Response) -> None:
    status = response.status_code
    applied = response.headers.get("X-Databand-Applied", "")
    if status == HTTPStatus.CONFLICT and applied.isdigit():
        raise PartlyAppliedError(int(applied))
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return
    if status < HTTPStatus.BAD_REQUEST:
        msg = f"it redirects to {response.headers.get('Location', 'nowhere')}: set core.databand_url to that"
        raise UnreachableError(msg)
    _raise_if_busy(response)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        msg = "it answered 413"
        raise TooLargeError(msg)
    msg = f"it answered {status}: {response.text[:300]}"
    raise RefusedError(msg)


def _raise_if_busy(response: requests.Response) -> None:
    status = response.status_code
    if status in _RETRIED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        msg = f"it answered {status}"
        raise BusyError(msg, _retry_after(response))


def _retry_after(response: requests.Response) -> float | None:
    """Seconds of a Retry-After header, which has a number of seconds or a date; None where it says neither."""
    text = response.headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        seconds = (date - datetime.now(timezone.utc)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_WAIT) if math.isfinite(seconds) else None


def _innermost(error: BaseException) -> BaseException:
    """The reason at the bottom of a chain of wrapped errors: "Connection refused"."""
    reason = getattr(error, "reason", None)
    inner = reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__
    if inner is None:
        inner = next((argument for argument in error.args if isinstance(argument, BaseException)), None)
    return error if inner is None or inner is error else _innermost(inner)
