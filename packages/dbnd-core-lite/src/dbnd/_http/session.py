"""A session with a tracker behind HTTP: credentials, headers and limits, for sending and for reading."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from dbnd._base.clock import monotonic
from dbnd._base.environment import version
from dbnd._base.masking import mask_url
from dbnd._base.names import new_uid
from dbnd._http.answer import Answer
from dbnd._http.connection import Connection, Limits
from dbnd._http.route import server_of
from dbnd._model.encoding import encode
from dbnd._model.wire import PROTOCOL_VERSION
from dbnd._tracking.contracts import AccessError, UnreachableError

if TYPE_CHECKING:
    from dbnd._config.settings import CoreSettings

_TRACE_ID: Final = new_uid().hex
# An answer to a call is short: seconds from its first byte to its last, and bytes.
_TRANSFER: Final = 5.0
_SIZE: Final = 1 << 18
# Cookies that are kept; a tracker sets two.
_MOST_COOKIES: Final = 20

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
        self._settings = settings
        self._transfer = transfer
        self._size = size
        self._connection: Connection | None = None
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
            UnreachableError: There is no answer, or it is a redirection.
            AccessError: The server refuses the login.
        """
        self.open()
        answer = self._request(method, f"{path}?{urlencode(query)}" if query else path, body, headers or {})
        if answer.refuses_access:
            self.close()  # a session cookie may have run out: log in anew at the next attempt
        return answer

    def close(self) -> None:
        """Close the connection and forget the login; the next request begins anew."""
        if self._connection is not None:
            self._connection.close()
        self._is_open = self.takes_points = False
        self._login_headers, self._cookies = {}, {}

    def open(self) -> None:
        """Log in where that is needed and has not been done (see ``request``)."""
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
        if not answer.is_success:
            answer.raise_if_busy()
            raise AccessError(f"its login answered {answer.status}; set core.databand_access_token or core.dbnd_user")
        if answer.body:  # it may be empty, as the protocol has it; a page it may not be
            answer.document()

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
            answer.raise_for_redirect()
        except UnreachableError:
            self.close()
            raise
        for cookie in answer.headers.get_all("Set-Cookie", [])[:_MOST_COOKIES]:
            name, _, value = cookie.partition(";")[0].strip().partition("=")
            can_be_sent = (name + value).isascii() and (name + value).isprintable()
            if can_be_sent and (name in self._cookies or len(self._cookies) < _MOST_COOKIES):
                self._cookies[name] = value
        self.takes_points = self.takes_points or answer.headers.get(POINTS) == "1"
        return answer

    def _connect(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = Connection(server_of(self._url), verifies=not self._settings.ignore_ssl_errors)
            except ValueError as error:  # also what no name of a host can be
                raise UnreachableError(
                    f"the address {mask_url(self._url)!r} (core.databand_url) cannot be used: {error}"
                ) from None
        return self._connection

    def _limits(self) -> Limits:
        connect, read = self._settings.connect_timeout, self._settings.api_request_timeout_sec
        if self.deadline is not None:
            left = max(0.1, self.deadline - monotonic())
            connect, read = min(connect, left), min(read, left)
        return Limits(connect, read, self._transfer, self._size)
