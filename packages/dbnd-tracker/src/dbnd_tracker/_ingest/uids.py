"""Uids of what has none on the wire: the same for the same facts, so that what is said again replaces them."""

from __future__ import annotations

import uuid
from typing import Final

_NAMESPACE: Final = uuid.UUID("7d3f8f0e-5a06-5f0c-9a0b-3b1f5f0f4b52")


def target_uid(attempt_uid: str, param: str | None, path: str, operation: str) -> str:
    """Uid of an operation of an attempt on a target."""
    return _uid(attempt_uid, param, path, operation)


def dataset_uid(attempt_uid: str, path: str | None, operation: str, *version: str) -> str:
    """Uid of an operation of an attempt on a dataset, or on one version of it."""
    return _uid(attempt_uid, path, operation, *version)


def _uid(*parts: str | None) -> str:
    return str(uuid.uuid5(_NAMESPACE, repr(parts)))
