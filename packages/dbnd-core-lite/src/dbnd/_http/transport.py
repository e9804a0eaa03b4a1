"""The transport to a tracker behind HTTP: a Databand server, or ``dbnd tracker start``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dbnd._http.answer import Answer
from dbnd._http.session import POINTS, Session
from dbnd._model.encoding import encode
from dbnd._tracking.contracts import (
    AccessError,
    Batch,
    NotATrackerError,
    PartlyAppliedError,
    RefusedError,
    TooLargeError,
)

if TYPE_CHECKING:
    from dbnd._config.settings import CoreSettings

# Our tracker says with these headers how far it has applied the journal, and what it has dropped of a batch because it
# was of runs that were deleted.
_APPLIED: Final = "X-Databand-Applied"
_DROPPED: Final = "X-Databand-Dropped"
_COUNT: Final = re.compile("([0-9a-f-]{32,36})=([0-9]{1,18})")
_NUMBER: Final = re.compile("[0-9]{1,18}")
# Members of a JSON document that names an error, and those that say whether there was none.
_ERRORS: Final = ("error", "errors")
_GOOD: Final = ("ok", "success")
_BAD_STATES: Final = ("error", "fail", "failed", "failure")
# Characters of a refusal that are kept.
_EXCERPT: Final = 300
# Statuses by which a server may say that it does not know points as the journal has them.
_NOT_UNDERSTOOD: Final = frozenset({400, 415, 422})
# Statuses of a proxy, or of a server that is spoken to in the wrong way: they say nothing of an event.
_OF_THE_WAY: Final = frozenset({407, 421, 425, 426})


class HttpTransport(Session):
    """A session that posts batches to ``/api/v1/tracking/<call>`` of a server (see ``Transport``).

    Only an answer that a tracker gives is a delivery. Ours says what it has applied; a Databand server is known by its
    JSON. A page, an empty answer or half of one comes from something else, and the events are kept.
    """

    def __init__(self, url: str, settings: CoreSettings) -> None:
        super().__init__(url, settings)
        # Whether a tracker of ours has answered: what answers otherwise from then on, a mock or a portal, is none.
        self._is_ours = False
        self._is_foreign = False
        self._credentials = "dbnd_user" if settings.databand_access_token is None else "databand_access_token"

    def send(self, batch: Batch) -> Mapping[str, int]:
        answer = self._posted(batch)
        self._check_delivery(answer, batch)
        return {run_uid: int(events) for run_uid, events in _COUNT.findall(answer.headers.get(_DROPPED, ""))}

    def heartbeat(self, run_uid: str) -> str | None:
        state = self._document_of(self.request("POST", "tracking/heartbeat", encode({"run_uid": run_uid})))
        return state if isinstance(state, str) else None

    def check(self) -> None:
        """Log no metrics: a call like any other, with nothing in it."""
        self._document_of(self.request("POST", "tracking/log_metrics", b'{"metrics_info": []}'))

    def _posted(self, batch: Batch) -> Answer:
        headers = {"X-Databand-Batch": f"{batch.journal}:{batch.first}-{batch.last}"}
        path = f"tracking/{batch.call}"
        self.open()  # the login may say, too, that it takes points
        if isinstance(batch.body, list) and self.takes_points:
            points = encode({"points": batch.body})
            answer = self.request("POST", path, points, headers={**headers, POINTS: "1"})
            if answer.status not in _NOT_UNDERSTOOD:
                return answer
            # Behind one address there may be servers of several versions.
            self.takes_points = False
        return self.request("POST", path, batch.wire_text().encode("ascii"), headers=headers)

    def _check_delivery(self, answer: Answer, batch: Batch) -> None:
        applied = answer.headers.get(_APPLIED)
        if applied is None:
            self._document_of(answer)
            if self._is_ours:
                raise NotATrackerError("it answered in JSON, and not as the tracker that was there before")
            self._is_foreign = True
            return
        number = int(applied) if _NUMBER.fullmatch(applied) else None
        if answer.status == 409:
            if number is not None and batch.first <= number < batch.last:
                raise PartlyAppliedError(number)
        else:
            self._raise_for_status(answer)
            if number == batch.last:
                self._is_ours = True
                return
        raise NotATrackerError(
            f"it answered that it has events up to {applied[:20]!r}, to events {batch.first} to {batch.last}"
        )

    def _document_of(self, answer: Answer) -> Any:
        """The JSON of a success that is one: some servers answer 200 to everything, and name the error in the body."""
        self._raise_for_status(answer)
        found = answer.document()
        if isinstance(found, dict) and _names_error(found):
            raise answer.not_a_tracker()
        return found

    def _raise_for_status(self, answer: Answer) -> None:
        if answer.is_success:
            return
        status = answer.status
        if answer.refuses_access:
            raise AccessError(f"it answered {status} and so refuses the credentials of core.{self._credentials}")
        answer.raise_if_busy()
        if status == 413:
            raise TooLargeError("it answered 413")
        # A page refuses nothing, but where a foreign tracker has answered: that one may refuse with a page.
        is_page = answer.content_type == "text/html" and not self._is_foreign
        if status < 200 or status in _OF_THE_WAY or is_page:
            raise answer.not_a_tracker()
        text = " ".join(answer.text[:_EXCERPT].split())
        raise RefusedError(f"it answered {status}" + (f": {text}" if text else ""))


def _names_error(found: dict[str, object]) -> bool:
    is_bad = any(found.get(name) is False for name in _GOOD) or found.get("status") in _BAD_STATES
    return is_bad or any(found.get(name) for name in _ERRORS)
