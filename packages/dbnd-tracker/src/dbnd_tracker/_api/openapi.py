"""The OpenAPI document: what FastAPI makes of the routes, with the bodies of the tracking calls and all refusals."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dbnd_tracker._api.tracking import call_path, router
from dbnd_tracker._ingest import CALLS

_REFERENCE: Final = "#/components/schemas/{model}"


class Problem(BaseModel):
    """Why a request is refused: one sentence."""

    detail: str


_STATUSES: Final = (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503)
_CONTENT: Final = {"application/json": {"schema": {"$ref": _REFERENCE.format(model=Problem.__name__)}}}
# What any route may answer instead of what was asked for.
_REFUSALS: Final[dict[str, dict[str, Any]]] = {
    str(status): {"content": _CONTENT, "description": HTTPStatus(status).phrase} for status in _STATUSES
}


def describe_calls(app: FastAPI) -> None:
    """Let the document of ``app`` have the schemas of the calls' bodies and of refusals; it is made when asked for."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            _add_bodies(document)
            _add_refusals(document)
        return make()

    app.openapi = openapi  # type: ignore[method-assign]


def _add_bodies(document: dict[str, Any]) -> None:
    schemas, definitions = models_json_schema(
        [(Problem, "validation"), *((call.body, "validation") for call in CALLS.values())], ref_template=_REFERENCE
    )
    document["components"]["schemas"] |= definitions.get("$defs", {})
    for name, call in CALLS.items():
        body = document["paths"][f"{router.prefix}{call_path(name)}"]["post"]["requestBody"]
        body["content"]["application/json"]["schema"] = schemas[call.body, "validation"]


def _add_refusals(document: dict[str, Any]) -> None:
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # FastAPI's own
            operation["responses"] = _REFUSALS | operation["responses"]
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
