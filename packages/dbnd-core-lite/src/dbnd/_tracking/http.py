"""The transport to a tracker behind HTTP: a Databand server, or ``dbnd tracker start``."""

from __future__ import annotations

import gzip
import json
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from dbnd import __version__
from dbnd._tracking.transport import Batch, PartlyAppliedError, RefusedError, TooLargeError, UnreachableError
from dbnd._tracking.wire import PROTOCOL_VERSION

if TYPE_CHECKING:
    from dbnd._settings import CoreSettings

_TRACE_ID: Final = uuid.uuid4().hex
# Statuses after which the same request may be taken later.
_RETRIED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
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

    def send(self, batch: Batch) -> None:
        """Deliver one batch (see ``Transport.send``)."""
        headers = {"X-Databand-Batch": f"{batch.journal}:{batch.first}-{batch.last}"}
        session = self._connect()
        response = self._request(session, "POST", f"tracking/{batch.call}", batch.wire_text(), headers)
        if response.status_code in _NO_ACCESS:
            self.close()  # a session cookie may have run out: log in anew at the next attempt
            what = "core.databand_access_token" if self._settings.databand_access_token else "core.dbnd_user"
            msg = f"it answered {response.status_code} and so refuses the credentials of {what}"
            raise UnreachableError(msg)
        _raise_for_status(response)

    def close(self) -> None:
        """Close the connection; the next ``send`` makes a new one."""
        if self._session is not None:
            self._session.close()
            self._session = None

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
        answer = self._request(session, "GET", "auth/csrf", "null")
        csrf = session.cookies.get("X-CSRF-TOKEN")
        if csrf:
            session.headers["X-CSRFToken"] = csrf
        if answer.ok:
            login = {
                "username": self._settings.dbnd_user,
                "password": self._settings.dbnd_password.get_secret_value(),
            }
            answer = self._request(session, "POST", "auth/login", json.dumps(login))
        if not answer.ok:
            msg = f"its login answered {answer.status_code}; set core.databand_access_token or core.dbnd_user"
            raise UnreachableError(msg)

    def _request(
        self, session: requests.Session, method: str, path: str, body: str, headers: dict[str, str] | None = None
    ) -> requests.Response:
        try:
            return session.request(
                method,
                f"{self._base}/{path}",
                data=gzip.compress(body.encode("ascii"), compresslevel=1),
                headers={"X-Request-ID": uuid.uuid4().hex, **(headers or {})},
                timeout=(self._settings.connect_timeout, self._settings.api_request_timeout_sec),
                allow_redirects=False,  # a redirected POST would become a GET
            )
        except requests.ConnectTimeout:
            msg = f"no connection within {self._settings.connect_timeout:g} s"
        except requests.Timeout:
            msg = f"no answer within {self._settings.api_request_timeout_sec:g} s"
        except requests.exceptions.SSLError as error:
            msg = f"its certificate is not accepted: {_innermost(error)}"
        except requests.ConnectionError as error:
            msg = f"no connection: {_innermost(error)}"
        except requests.RequestException as error:
            msg = f"the request failed: {error}"
        self.close()
        raise UnreachableError(msg)


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
    if status in _RETRIED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        msg = f"it answered {status}"
        raise UnreachableError(msg, _retry_after(response))
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        msg = "it answered 413"
        raise TooLargeError(msg)
    msg = f"it answered {status}: {response.text[:300]}"
    raise RefusedError(msg)


def _retry_after(response: requests.Response) -> float | None:
    """Seconds of a Retry-After header; its other form, a date, is taken for absent."""
    try:
        return min(max(float(response.headers["Retry-After"]), 0.0), 3600.0)
    except (KeyError, ValueError):
        return None


def _innermost(error: BaseException) -> str:
    """The reason at the bottom of a chain of wrapped errors: "Connection refused"."""
    reason = getattr(error, "reason", None)
    inner = reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__
    if inner is None and error.args and isinstance(error.args[0], BaseException):
        inner = error.args[0]
    return _innermost(inner) if inner is not None and inner is not error else str(error)
