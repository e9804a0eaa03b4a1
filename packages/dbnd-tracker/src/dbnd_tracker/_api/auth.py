"""The login that clients without a token go through; without a token there is nothing to authenticate."""

from __future__ import annotations

import secrets

from fastapi import APIRouter, Response

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])


@router.get("/csrf")
def csrf(response: Response) -> dict[str, str]:
    """Set the cookie whose value clients repeat as a header."""
    response.set_cookie("X-CSRF-TOKEN", secrets.token_hex(16), samesite="strict")
    return {}


@router.post("/login")
def login() -> dict[str, str]:
    """Accept any user: access is a matter of the token, not of users."""
    return {"status": "ok"}


@router.get("/ping")
def ping() -> dict[str, str]:
    """Say that the tracker is ready."""
    return {"status": "ok"}
