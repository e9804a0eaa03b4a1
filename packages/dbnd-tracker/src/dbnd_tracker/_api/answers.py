"""Answers of the read API."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import HTTPException, Response

if TYPE_CHECKING:
    from pydantic import BaseModel


def answer(found: BaseModel | None, missing: str = "") -> Response:
    """``found`` as JSON, written by its own model: it has been validated when it was made.

    Args:
        found: What was asked for, or None when it does not exist.
        missing: What to say then.

    Raises:
        HTTPException: It does not exist.
    """
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, missing)
    return Response(found.model_dump_json(), media_type="application/json")
