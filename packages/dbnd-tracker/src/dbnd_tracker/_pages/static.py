"""The style sheet and scripts of the page, served as they stand in the package."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES: Final = {
    path.name: path.read_bytes()
    for path in sorted(files("dbnd_tracker").joinpath("_static").iterdir(), key=lambda path: path.name)
    if path.name.rpartition(".")[2] in _TYPES
}
_HASH: Final = hashlib.blake2b(b"\0".join(_FILES.values()), digest_size=6).hexdigest()


def static_url(name: str) -> str:
    """The address of a static file; it changes with the files, so that a browser never mixes versions."""
    if name not in _FILES:
        raise FileNotFoundError(name)
    return f"/static/{_HASH}/{name}"


def static_router() -> APIRouter:
    """The route that serves static files; they hold nothing that a token would have to guard."""
    router = APIRouter(include_in_schema=False)

    @router.get("/favicon.ico")
    def favicon() -> Response:
        # Browsers ask for it beside what is no page, such as a log.
        return Response(_FILES["icon.svg"], media_type=_TYPES["svg"], headers={"Cache-Control": "max-age=86400"})

    @router.get("/static/{version}/{name}")
    def static(version: str, name: str) -> Response:
        if name not in _FILES:
            return PlainTextResponse("There is no such file.", HTTPStatus.NOT_FOUND)
        # Any version gets the present files, but only the present version may be kept.
        kept = "public, max-age=31536000, immutable" if version == _HASH else "no-store"
        headers = {"Cache-Control": kept, "X-Content-Type-Options": "nosniff"}
        media_type = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
        return Response(_FILES[name], media_type=media_type, headers=headers)

    return router
