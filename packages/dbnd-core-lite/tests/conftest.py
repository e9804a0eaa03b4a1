from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.scripted import ScriptedServer, ScriptedTransport, scripted_server


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A real HTTP server that keeps what it is sent and answers as told."""
    with scripted_server() as scripted:
        yield scripted


@pytest.fixture
def scripted() -> type[ScriptedTransport]:
    """The class of transports that do what a test's script says."""
    return ScriptedTransport
