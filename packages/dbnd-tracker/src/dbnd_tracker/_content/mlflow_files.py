"""Files that an MLflow server keeps (``mlflow-artifacts:``), fetched from it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final
from urllib.parse import quote, unquote

from dbnd.tracking import storable
from dbnd_tracker._access.places import MlflowServer, Places, mlflow_server
from dbnd_tracker._content.opened import ArtifactError, Content, Entry, Folder, steps_of

SCHEME: Final = "mlflow-artifacts:"
ENDPOINT: Final = "/api/2.0/mlflow-artifacts/artifacts"
_SILENCE_S: Final = 10.0
"""Seconds that the server may say nothing, and ..."""
_ANSWER_S: Final = 20.0
"""... until its answer has begun, however many bytes drip in meanwhile."""
_JSON_BYTES: Final = 1 << 23
_LISTED: Final = 1_000


def open_served(place: str, inside: str, links: Sequence[str], places: Places) -> Content | Folder:
    """Open what MLflow's server has at ``place``, below it ``inside``.

    The server is the one that the run has linked to, or that its place names, and one of those that ``places`` allow.
    It is asked as anybody, without a password, and where it sends elsewhere is not followed.

    Raises:
        ArtifactError: That is not allowed, the server does not answer, or it does not have it.
    """
    addresses, path = _parts(place)
    named = addresses or links
    server = places.server_of(named)
    if server is None:
        asked = next((found for url in named if (found := mlflow_server(url))), None)
        raise ArtifactError(403, _not_allowed(asked))
    steps = [*steps_of(path), *steps_of(inside)]
    if not steps:
        raise ArtifactError(404, "Its place does not say which of the server's files it is.")
    folder = _list(server, steps)
    if folder is not None:
        return folder
    return ask_server(server, f"{ENDPOINT}/{quote('/'.join(steps))}")


def is_served(place: str) -> bool:
    """Whether an MLflow server keeps what stands at ``place``."""
    return place.startswith(SCHEME) or (place.startswith(("http://", "https://")) and f"{ENDPOINT}/" in place)


def _parts(place: str) -> tuple[list[str], str]:
    """The addresses that a place may mean, if it names a server, and the path there."""
    if not place.startswith(SCHEME):
        address, _, path = place.partition(ENDPOINT)
        return [address], path
    rest = place.removeprefix(SCHEME)
    if not rest.startswith("//"):
        return [], rest
    host, _, path = rest[2:].partition("/")
    return [f"{scheme}://{host}" for scheme in ("http", "https") if host], path


def _not_allowed(server: MlflowServer | None) -> str:
    if server is None:
        return "It is at an MLflow server, and the run does not say which one."
    return (
        f"This tracker does not ask the MLflow server {server}. Whoever runs it can allow it: "
        f'tracker.artifact_places = ["{server}"]'
    )


def _list(server: MlflowServer, steps: list[str]) -> Folder | None:
    """What is in a folder; None if it is none, which the server says by an empty list or by the file itself."""
    with understanding(server):
        files = ask_json(server, f"{ENDPOINT}?path={quote('/'.join(steps), safe='')}").get("files", [])
        found = [
            Entry(storable(str(each["path"])), bool(each.get("is_dir")), _size(each.get("file_size"))) for each in files
        ]
    if not found or (len(found) == 1 and not found[0].is_folder and found[0].name == steps[-1]):
        return None
    found.sort(key=lambda each: (not each.is_folder, each.name))
    return Folder(found[:_LISTED], is_cut=len(found) > _LISTED)


def _size(text: object) -> int | None:
    return int(text) if isinstance(text, int) or (isinstance(text, str) and text.isdecimal()) else None


@contextmanager
def understanding(server: MlflowServer) -> Iterator[None]:
    """Turn what goes wrong with the JSON of an answer into the sentence that the server is none of MLflow's."""
    try:
        yield
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise ArtifactError(502, f"The MLflow server {server} has not answered as one.") from None


def ask_json(server: MlflowServer, path: str, body: object = None) -> Any:
    """The JSON that a server answers, to be looked at while ``understanding`` it; a ``body`` makes it a POST.

    Raises:
        ArtifactError: It does not answer, or refuses.
        ValueError: It answers something else, or too much.
    """
    with closing(ask_server(server, path, None if body is None else json.dumps(body))) as answer:
        text, _ = answer.read(_JSON_BYTES)
    return json.loads(text)


def ask_server(server: MlflowServer, path: str, body: str | None = None) -> Content:
    """The answer of a server to a question, whose head has come; ArtifactError where it does not, or is no success."""
    kind = http.client.HTTPSConnection if server.scheme == "https" else http.client.HTTPConnection
    connection = kind(server.host, server.port, timeout=_SILENCE_S)
    headers = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "databand-tracker"}
    try:
        connection.connect()
        # The time-out of a socket begins anew with each byte: a head that drips in is cut off.
        deadline = threading.Timer(_ANSWER_S, connection.sock.shutdown, (socket.SHUT_RDWR,))
        deadline.start()
        try:
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request("GET" if body is None else "POST", f"{server.path}{path}", body, headers)
            response = connection.getresponse()
        finally:
            deadline.cancel()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        reason = str(error) or type(error).__name__
        raise ArtifactError(502, f"The MLflow server {server} cannot be asked: {reason}.") from None
    if response.status != http.HTTPStatus.OK:
        response.close()
        raise ArtifactError(
            404 if response.status == http.HTTPStatus.NOT_FOUND else 502, _refusal(server, response.status)
        )
    return Content(unquote(path.rpartition("/")[2]), response.length, response)


def _refusal(server: MlflowServer, status: int) -> str:
    if status == http.HTTPStatus.NOT_FOUND:
        return f"The MLflow server {server} does not have it (any more)."
    if 300 <= status < 400:
        return f"The MLflow server {server} sends elsewhere, which is not followed."
    if status in {401, 403}:
        return f"The MLflow server {server} asks who one is, and the tracker has no name there: open it in MLflow."
    return f"The MLflow server {server} answers with {status}."
