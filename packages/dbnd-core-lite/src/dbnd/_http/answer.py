"""What a server has answered, and what that says of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage
from typing import Any, Final

from dbnd._base.clock import utc_now
from dbnd._base.masking import mask_text, mask_url
from dbnd._tracking.contracts import BusyError, NotATrackerError, UnreachableError

# Characters of an answer that messages show.
_EXCERPT: Final = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server has answered.

    Args:
        status: The status.
        headers: The headers; their names are found in any case.
        body: The body, unpacked; of one that is too long or breaks off, its beginning.
        is_whole: Whether that is all of it.
    """

    status: int
    headers: HTTPMessage
    body: bytes
    is_whole: bool

    @property
    def is_success(self) -> bool:
        """Whether the status is one of the 200s."""
        return 200 <= self.status < 300

    @property
    def refuses_access(self) -> bool:
        """Whether the server refuses the credentials."""
        return self.status in {401, 403}

    @property
    def content_type(self) -> str:
        """Media type of the body; nothing where the server does not name one."""
        return self.headers.get_content_type() if "Content-Type" in self.headers else ""

    @property
    def text(self) -> str:
        """The body as text, whatever it is, for messages: a server may repeat the credentials that it was sent."""
        return mask_text(self.body.decode("utf-8", "replace"))

    def document(self) -> Any:
        """The JSON document that a tracker has answered; NotATrackerError where it is none."""
        if self.is_whole and self.content_type in {"", "application/json"}:
            try:
                return json.loads(self.body)
            except (ValueError, RecursionError):
                pass
        raise self.not_a_tracker()

    def not_a_tracker(self) -> NotATrackerError:
        """The error that says what has answered in the place of a tracker."""
        kind = self.content_type or "text"
        what = f"with {kind}, and not as a tracker does" if self.body else "with nothing, and a tracker says something"
        text = " ".join(self.text[: 2 * _EXCERPT].split())[:_EXCERPT]
        return NotATrackerError(f"it answered {self.status} {what}" + (f": {text!r}" if text else ""))

    def raise_for_redirect(self) -> None:
        """Refuse a redirection (UnreachableError), which could turn a POST into a GET."""
        if 300 <= self.status < 400:
            location = mask_url(self.headers.get("Location", "nowhere"))[: 3 * _EXCERPT]
            raise UnreachableError(f"it redirects to {location}: set core.databand_url to that")

    def raise_if_busy(self) -> None:
        """Raise BusyError for the statuses after which the same request may be taken later."""
        if self.status in {408, 429} or self.status >= 500:
            raise BusyError(f"it answered {self.status}", _seconds(self.headers.get("Retry-After", "")))


def _seconds(retry_after: str) -> float | None:
    """Seconds of a Retry-After header, an hour at most, which has a number or a date; None where it says neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            date: datetime = parsedate_to_datetime(retry_after)
        except (ValueError, OverflowError):
            return None
        seconds = ((date if date.tzinfo else date.replace(tzinfo=timezone.utc)) - utc_now()).total_seconds()
    return min(max(seconds, 0.0), 3600.0) if math.isfinite(seconds) else None
