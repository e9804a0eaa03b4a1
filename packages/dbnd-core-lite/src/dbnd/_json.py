"""JSON for what is written and read by the thousand, in a fraction of the time that ``json`` takes for it.

A log call waits for its event to be encoded, and the sender's work takes the interpreter from the training. pydantic's
encoder and decoder, which the configuration needs anyway, are three to six and two times as fast. ``json`` stands in
for what they refuse and it can do: halves of surrogate pairs, which Python's strings may hold.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json


def encode(value: object) -> bytes:
    """``value`` as JSON: UTF-8, without spaces and line breaks; NaN and infinities by the names that ``json`` knows.

    Raises:
        TypeError: It has no JSON form.
        ValueError: It contains itself.
    """
    try:
        return to_json(value, inf_nan_mode="constants")
    except PydanticSerializationError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode(data: bytes) -> Any:  # noqa: ANN401  whatever it holds
    """What ``data`` says.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return from_json(data)
    except ValueError:
        return json.loads(data)
