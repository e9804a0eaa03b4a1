"""Which MLflow run the links of an attempt name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_RUN: Final = re.compile(r"/runs/([0-9A-Za-z_-]{1,64})/?$")


def mlflow_run_of(url: object) -> str | None:
    """The id of the MLflow run whose page, or place in a store, ``url`` is; None for another address."""
    found = _RUN.search(url) if isinstance(url, str) else None
    return found[1] if found else None


def linked_mlflow_run(links: Mapping[str, object] | None) -> str | None:
    """The id of the MLflow run that one of the links names."""
    return next((run for url in (links or {}).values() if (run := mlflow_run_of(url))), None)
