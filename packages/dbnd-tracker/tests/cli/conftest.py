from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kit.payloads import Tracker


@pytest.fixture(params=["database", "http"])
def configured_tracker(
    request: pytest.FixtureRequest,
    home: Path,
    tracker: Tracker,
    database_url: str,
    serve: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Tracker:
    """A tracker that the commands read, directly or through a server."""
    url = database_url if request.param == "database" else serve(tracker.database).url
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", url)
    return tracker
