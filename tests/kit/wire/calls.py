"""Calls as released clients make them, and captures of them."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

# The client's library makes these itself, for the server that it speaks to then.
_OF_THE_CONNECTION = {"host", "content-length", "connection", "accept-encoding", "user-agent"}


@dataclass(frozen=True)
class Call:
    """One request and the answer that its client counts on.

    Args:
        path: Path of the URL.
        body: Its body, before it is JSON and gzip.
        headers: Those that the client sets.
        reply: What the answer says.
    """

    path: str
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    reply: Any = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the call, such as ``init_run``."""
        return self.path.rpartition("/")[2]

    def send(self, session: requests.Session, url: str) -> requests.Response:
        """Make the request as the client did: gzip where it said so, and bare words for numbers that JSON has not."""
        data = json.dumps(self.body).encode()
        is_packed = any(name.lower() == "content-encoding" for name in self.headers)
        return session.post(
            f"{url}{self.path}", data=gzip.compress(data) if is_packed else data, headers=self.headers, timeout=60
        )


def captured(folder: Path) -> list[Call]:
    """The calls of one captured conversation, in their order."""
    found = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        headers = {n: v for n, v in content["headers"].items() if n.lower() not in _OF_THE_CONNECTION}
        assert content["method"] == "POST"
        found.append(Call(content["path"], content["body"], headers, content["reply"]["body"]))
    return found
