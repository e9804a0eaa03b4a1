"""Transports, readers, batches, runs and points: what carries and reads what is tracked.

A package that brings a transport or reader of its own, or logs for another library, needs nothing else of dbnd.
"""

from __future__ import annotations

from dbnd._base.clock import EARLIEST, LATEST, micros, monotonic, time_of, utc_now
from dbnd._base.names import new_uid
from dbnd._context.registry import (
    configured_url,
    create_reader,
    create_transport,
    current_config,
    destination_of,
    embedded_url,
    get_client,
)
from dbnd._http.answer import Answer
from dbnd._http.session import Session
from dbnd._model import wire
from dbnd._model.addresses import page_path, page_url
from dbnd._model.error_info import ErrorInfo
from dbnd._model.points import (
    EDITED_TAG,
    LARGEST_STEP,
    VERIFIED_TAG,
    Group,
    Mark,
    Source,
    deleted_point,
    group,
    point,
    points_of,
    text_point,
)
from dbnd._model.run import ParentTaskRun, Run, RunState, TaskDefinition, TaskRunState
from dbnd._model.values import MAX_TEXT, storable
from dbnd._model.wire import DatasetOperation
from dbnd._tracking.contracts import (
    AccessError,
    Batch,
    BusyError,
    Destination,
    NotATrackerError,
    PartlyAppliedError,
    Reader,
    ReaderFactory,
    RefusedError,
    TooLargeError,
    Transport,
    TransportError,
    TransportFactory,
    UnreachableError,
)
from dbnd._tracking.outbox import Outbox, close_all

__all__ = [
    "EARLIEST",
    "EDITED_TAG",
    "LARGEST_STEP",
    "LATEST",
    "MAX_TEXT",
    "VERIFIED_TAG",
    "AccessError",
    "Answer",
    "Batch",
    "BusyError",
    "DatasetOperation",
    "Destination",
    "ErrorInfo",
    "Group",
    "Mark",
    "NotATrackerError",
    "Outbox",
    "ParentTaskRun",
    "PartlyAppliedError",
    "Reader",
    "ReaderFactory",
    "RefusedError",
    "Run",
    "RunState",
    "Session",
    "Source",
    "TaskDefinition",
    "TaskRunState",
    "TooLargeError",
    "Transport",
    "TransportError",
    "TransportFactory",
    "UnreachableError",
    "close_all",
    "configured_url",
    "create_reader",
    "create_transport",
    "current_config",
    "deleted_point",
    "destination_of",
    "embedded_url",
    "get_client",
    "group",
    "micros",
    "monotonic",
    "new_uid",
    "page_path",
    "page_url",
    "point",
    "points_of",
    "storable",
    "text_point",
    "time_of",
    "utc_now",
    "wire",
]
