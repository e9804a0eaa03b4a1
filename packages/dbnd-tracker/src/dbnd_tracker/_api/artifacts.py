"""The routes of artifacts: their pages, and their content, none of which is trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final
from urllib.parse import quote

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dbnd_tracker._access.places import Places
from dbnd_tracker._api.pages import HEADERS, message, render
from dbnd_tracker._api.state import TheDatabase
from dbnd_tracker._content.mlflow_facts import mlflow_facts
from dbnd_tracker._content.opened import MOST_BYTES, ArtifactError, Content, Folder
from dbnd_tracker._pages.artifacts import IMAGES, PAGES, ArtifactPage, kind_of, open_artifact
from dbnd_tracker._queries.artifacts import FoundArtifact, find_artifact, links_of
from dbnd_tracker._storage.database import Database

_POLICY: Final = (
    "sandbox{}; default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; font-src data:; media-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
# Of an origin of its own, without anything to ask and to go to: what a figure that draws itself needs.
_SCRIPTS: Final = "; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; worker-src blob:"
_SMALL_BYTES: Final = 1 << 22
_NOT_THIS_USER: Final = (
    "Without a token, the tracker opens files for the user of this machine who started it, and for nobody else. "
    "tracker.artifact_places says which are open for all."
)

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/app/artifacts/{task_run_uid}")
async def artifact(
    *, database: TheDatabase, request: Request, task_run_uid: str, name: str = "", path: str = "", scripts: bool = False
) -> Response:
    """What an artifact holds, as far as it can be shown."""

    def make() -> Response:
        found = _find(database, task_run_uid, name)
        try:
            opened: Content | Folder | ArtifactError = _open(request, found, path)
        except ArtifactError as error:
            opened = error
        try:
            page = ArtifactPage(found, path, opened, runs_scripts=scripts)
        finally:
            if isinstance(opened, Content):
                opened.close()
        status = opened.status if isinstance(opened, ArtifactError) else 200
        return render(request, "artifact.html", status, page=page)

    response = await run_sync(make, limiter=request.app.state.artifact_threads)
    response.headers["Content-Security-Policy"] = f"{HEADERS['Content-Security-Policy']}; frame-src 'self'"
    return response


@router.get("/app/in-mlflow/{task_run_uid}")
async def in_mlflow(*, database: TheDatabase, request: Request, task_run_uid: str) -> Response:
    """What MLflow's server says of a task run: a part of its page, which is not kept waiting for it."""

    def make() -> Response:
        with database.read() as session:
            links = links_of(session, task_run_uid.lower())
        places: Places = request.app.state.places
        facts, error = None, ""
        if links and places.allows_caller(request.scope):
            try:
                facts = mlflow_facts(links, places)
            except ArtifactError as refused:
                error = str(refused)
        return render(request, "in_mlflow.html", facts=facts, error=error)

    return await run_sync(make, limiter=request.app.state.artifact_threads)


@router.get("/app/artifacts/{task_run_uid}/file")
async def file(
    *,
    database: TheDatabase,
    request: Request,
    task_run_uid: str,
    name: str = "",
    path: str = "",
    scripts: bool = False,
    download: bool = False,
    small: bool = False,
) -> Response:
    """The content of an artifact: of images and HTML what browsers show, in a sandbox; of all other, a download.

    Where a ``small`` one is asked for, to be shown among others, a large one is refused.
    """

    def open_file() -> Content:
        opened = _open(request, _find(database, task_run_uid, name), path)
        if isinstance(opened, Folder):
            raise ArtifactError(400, "It is a folder: its files can be downloaded.")
        if opened.size is not None and opened.size > MOST_BYTES:
            opened.close()
            raise ArtifactError(413, f"It is larger than {MOST_BYTES >> 30} GiB: fetch it from its place.")
        if small and (opened.size is None or opened.size > _SMALL_BYTES):
            opened.close()
            raise ArtifactError(413, f"It may be larger than {_SMALL_BYTES >> 20} MiB: its page shows it.")
        return opened

    threads = request.app.state.artifact_threads
    content = await run_sync(open_file, limiter=threads)
    # A tab of its own may go anywhere, and take along what is typed into it; the frame of the artifact's page may not.
    is_framed = request.headers.get("sec-fetch-dest") != "document"
    return _Streamed(content, threads, runs_scripts=scripts and is_framed, is_download=download)


async def answer_closed(request: Request, error: Exception) -> Response:
    """Answer for an artifact that cannot be opened: a page that says why."""
    assert isinstance(error, ArtifactError)
    return message(request, str(error), error.status)


def _find(database: Database, task_run_uid: str, name: str) -> FoundArtifact:
    with database.read() as session:
        found = find_artifact(session, task_run_uid.lower(), name)
    if found is None:
        raise ArtifactError(404, f"There is no artifact {name!r} of the task run {task_run_uid}.")
    return found


def _open(request: Request, found: FoundArtifact, path: str) -> Content | Folder:
    places: Places = request.app.state.places
    if not places.allows_caller(request.scope):
        raise ArtifactError(403, _NOT_THIS_USER)
    return open_artifact(found, path, places)


class _Streamed(StreamingResponse):
    """Hands ``content`` on as it comes, and closes it, whatever becomes of the client."""

    def __init__(self, content: Content, threads: CapacityLimiter, *, runs_scripts: bool, is_download: bool) -> None:
        self._content = content
        kind = kind_of(content.name)
        media_type = "text/html; charset=utf-8" if kind in PAGES else IMAGES.get(kind)
        is_page = kind in PAGES and runs_scripts
        headers = {
            **HEADERS,
            "Content-Security-Policy": _POLICY.format(" allow-scripts" if is_page else "")
            + (_SCRIPTS if is_page else ""),
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "private, no-cache",
        }
        if is_download or media_type is None:
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(content.name, safe='')}"
        if content.size is not None:
            headers["Content-Length"] = str(content.size)
        super().__init__(_stream(content.chunks(), threads), headers=headers)
        # Never what the content seems to be, and never with a charset for what is no text.
        self.headers["content-type"] = media_type or "application/octet-stream"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._content.close()


async def _stream(chunks: Iterator[bytes], threads: CapacityLimiter) -> AsyncIterator[bytes]:
    while chunk := await run_sync(next, chunks, b"", limiter=threads):
        yield chunk
