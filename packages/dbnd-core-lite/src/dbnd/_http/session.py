"""A session with a tracker behind HTTP: credentials, headers and limits, for sending and for reading."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from dbnd._base.clock import monotonic
from dbnd._base.environment import version
from dbnd._base.masking import mask_url
from dbnd._base.names import new_uid
from dbnd._http.connection import Answer, Connection, Limits
from dbnd._http.route import server_of
from dbnd._model.encoding import encode
from dbnd._model.wire import PROTOCOL_VERSION
from dbnd._tracking.contracts import AccessError, BusyError, NotATrackerError, UnreachableError

if TYPE_CHECKING:
    from dbnd._config.settings import CoreSettings

_TRACE_ID: Final = new_uid().hex
# Statuses after which the same request may be taken later.
_RETRIED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_NO_ACCESS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
# Seconds: the least time-out of a request near its deadline, and the longest that a tracker can ask to be left alone.
_LEAST_TIMEOUT: Final = 0.1
_LONGEST_WAIT: Final = 3600.0
# An answer to a call is short: seconds from its first byte to its last, and bytes.
_TRANSFER: Final = 5.0
_SIZE: Final = 1 << 18
# Cookies that are kept; a tracker sets two.
_MOST_COOKIES: Final = 20
# Characters of an answer that messages show.
_EXCERPT: Final = 100

POINTS: Final = "X-Databand-Points"
"""By this header a server says that it takes points as the journal has them, and a request that it has some."""


class Session:
    """Requests to ``/api/v1/…`` of one server; it logs in by itself where there is no token.

    Args:
        url: Base URL of the server; a path in it belongs to the web page only and is left out of requests.
        settings: Credentials, time-outs and headers.
        transfer: Seconds that an answer may take from its first byte on.
        size: Bytes that an answer may have, unpacked.

    Attributes:
        deadline: Time (of ``monotonic``) by which a request should have ended, or None.
        takes_points: Whether the server has said that it takes points as the journal has them.
    """

    def __init__(self, url: str, settings: CoreSettings, *, transfer: float = _TRANSFER, size: int = _SIZE) -> None:
        self._url = url
        self._connection: Connection | None = None
        self._settings = settings
        self._transfer = transfer
        self._size = size
        self._is_open = False
        self._login_headers: dict[str, str] = {}
        self._cookies: dict[str, str] = {}
        self.takes_points = False
        self.deadline: float | None = None

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Answer:
        """Send a request, after a login where that is needed.

        Args:
            method: GET, POST, ….
            path: What follows ``/api/v1/``, quoted.
            body: Bytes of a JSON document.
            headers: Headers of this request.
            query: Values of the query.

        Raises:
            UnreachableError: There is no answer.
            AccessError: The server refuses the credentials.
        """
        self.open()
        target = f"{path}?{urlencode(query)}" if query else path
        answer = self._request(method, target, body, headers or {})
        if answer.status in _NO_ACCESS:
            self.close()  # a session cookie may have run out: log in anew at the next attempt
        return answer

    def close(self) -> None:
        """Close the connection and forget the login; the next request begins anew."""
        if self._connection is not None:
            self._connection.close()
        self._is_open = self.takes_points = False
        self._login_headers, self._cookies = {}, {}

    def open(self) -> None:
        """Log in where that is needed and has not been done.

        Raises:
            UnreachableError: There is no answer.
            AccessError: The server refuses the login.
        """
        if self._is_open:
            return
        token = self._settings.databand_access_token
        if token is not None:
            self._login_headers = {"Authorization": f"Bearer {token.get_secret_value()}"}
        else:
            self._log_in()
        self._is_open = True

    def _log_in(self) -> None:
        self._check_login(self._request("GET", "auth/csrf", b"null", {}))
        csrf = self._cookies.get("X-CSRF-TOKEN")
        if csrf:
            self._login_headers = {"X-CSRFToken": csrf}
        login = {"username": self._settings.dbnd_user, "password": self._settings.dbnd_password.get_secret_value()}
        self._check_login(self._request("POST", "auth/login", encode(login), {}))

    @staticmethod
    def _check_login(answer: Answer) -> None:
        if answer.is_success:
            if answer.body:  # it may be empty, as the protocol has it; a page it may not be
                document(answer)
            return
        raise_for_redirect(answer)
        raise_if_busy(answer)
        msg = f"its login answered {answer.status}; set core.databand_access_token or core.dbnd_user"
        raise AccessError(msg)

    def _request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        all_headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": f"dbnd-core-lite/{version()}",
            "X-Databand-Version": PROTOCOL_VERSION,
            "X-Databand-Trace-ID": _TRACE_ID,
            "X-Request-ID": new_uid().hex,
        }
        if body is not None:
            all_headers |= {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        if self._cookies:
            all_headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        all_headers |= {**self._settings.extra_default_headers, **self._login_headers, **headers}
        packed = b"" if body is None else gzip.compress(body, compresslevel=1, mtime=0)
        try:
            answer = self._connect().request(method, f"/api/v1/{path}", all_headers, packed, self._limits())
        except UnreachableError:
            self.close()
            raise
        for cookie in answer.headers.get_all("Set-Cookie", [])[:_MOST_COOKIES]:
            name, _, value = pair = cookie.partition(";")[0].strip().partition("=")
            can_be_sent = "".join(pair).isascii() and "".join(pair).isprintable()
            if can_be_sent and (name in self._cookies or len(self._cookies) < _MOST_COOKIES):
                self._cookies[name] = value
        self.takes_points = self.takes_points or answer.headers.get(POINTS) == "1"
        return answer

    def _connect(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = Connection(server_of(self._url), verifies=not self._settings.ignore_ssl_errors)
            except ValueError as error:  # also what no name of a host can be
                msg = f"the address {mask_url(self._url)!r} (core.databand_url) cannot be used: {error}"
                raise UnreachableError(msg) from None
        return self._connection

    def _limits(self) -> Limits:
        connect, read = self._settings.connect_timeout, self._settings.api_request_timeout_sec
        if self.deadline is not None:
            left = max(_LEAST_TIMEOUT, self.deadline - monotonic())
            connect, read = min(connect, left), min(read, left)
        return Limits(connect, read, self._transfer, self._size)


def document(answer: Answer) -> object:
    """The JSON document that a tracker has answered.

    Raises:
        NotATrackerError: It is none.
    """
    kind = answer.headers.get_content_type() if "Content-Type" in answer.headers else ""
    if answer.is_whole and kind in {"", "application/json"}:
        try:
            found: object = json.loads(answer.body)
        except (ValueError, RecursionError):
            pass
        else:
            return found
    raise not_a_tracker(answer)


def not_a_tracker(answer: Answer) -> NotATrackerError:
    """The error that says what has answered."""
    kind = answer.headers.get_content_type() if "Content-Type" in answer.headers else "text"
    what = f"with {kind}, and not as a tracker does" if answer.body else "with nothing, and a tracker says something"
    text = " ".join(answer.text[: 2 * _EXCERPT].split())[:_EXCERPT]
    return NotATrackerError(f"it answered {answer.status} {what}" + (f": {text!r}" if text else ""))


def raise_for_redirect(answer: Answer) -> None:
    """Refuse a redirection, which could turn a POST into a GET.

    Raises:
        UnreachableError: The answer is one.
    """
    if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
        location = mask_url(answer.headers.get("Location", "nowhere"))[: 3 * _EXCERPT]
        msg = f"it redirects to {location}: set core.databand_url to that"
        raise UnreachableError(msg)


def raise_if_busy(answer: Answer) -> None:
    """Tell the statuses after which the same request may be taken later.

    Raises:
        BusyError: The answer has one of them.
    """
    if answer.status in _RETRIED or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        msg = f"it answered {answer.status}"
        raise BusyError(msg, _retry_after(answer))


def is_no_access(answer: Answer) -> bool:
    """Whether the server refuses the credentials."""
    return answer.status in _NO_ACCESS


def _retry_after(answer: Answer) -> float | None:
    """Seconds of a Retry-After header, which has a number of seconds or a date; None where it says neither."""
    text = answer.headers.get("Retry-After", "")
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
