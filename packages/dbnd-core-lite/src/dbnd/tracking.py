"""Transports, readers, batches, runs and points: what carries and reads what is tracked.

A package that brings a transport or reader of its own, or logs for another library, needs nothing else of dbnd.
"""

from dbnd._base.clock import EARLIEST as EARLIEST
from dbnd._base.clock import LATEST as LATEST
from dbnd._base.clock import micros as micros
from dbnd._base.clock import monotonic as monotonic
from dbnd._base.clock import time_of as time_of
from dbnd._base.clock import utc_now as utc_now
from dbnd._base.names import new_uid as new_uid
from dbnd._context.registry import configured_url as configured_url
from dbnd._context.registry import create_reader as create_reader
from dbnd._context.registry import create_transport as create_transport
from dbnd._context.registry import current_config as current_config
from dbnd._context.registry import destination_of as destination_of
from dbnd._context.registry import embedded_url as embedded_url
from dbnd._context.registry import get_client as get_client
from dbnd._http.answer import Answer as Answer
from dbnd._http.session import Session as Session
from dbnd._model import wire as wire
from dbnd._model.addresses import page_path as page_path
from dbnd._model.addresses import page_url as page_url
from dbnd._model.error_info import ErrorInfo as ErrorInfo
from dbnd._model.points import EDITED_TAG as EDITED_TAG
from dbnd._model.points import LARGEST_STEP as LARGEST_STEP
from dbnd._model.points import VERIFIED_TAG as VERIFIED_TAG
from dbnd._model.points import Group as Group
from dbnd._model.points import Mark as Mark
from dbnd._model.points import Source as Source
from dbnd._model.points import deleted_point as deleted_point
from dbnd._model.points import group as group
from dbnd._model.points import point as point
from dbnd._model.points import points_of as points_of
from dbnd._model.points import text_point as text_point
from dbnd._model.run import ParentTaskRun as ParentTaskRun
from dbnd._model.run import Run as Run
from dbnd._model.run import RunState as RunState
from dbnd._model.run import TaskDefinition as TaskDefinition
from dbnd._model.run import TaskRunState as TaskRunState
from dbnd._model.values import MAX_TEXT as MAX_TEXT
from dbnd._model.values import storable as storable
from dbnd._model.wire import DatasetOperation as DatasetOperation
from dbnd._tracking.contracts import AccessError as AccessError
from dbnd._tracking.contracts import Batch as Batch
from dbnd._tracking.contracts import BusyError as BusyError
from dbnd._tracking.contracts import Destination as Destination
from dbnd._tracking.contracts import NotATrackerError as NotATrackerError
from dbnd._tracking.contracts import PartlyAppliedError as PartlyAppliedError
from dbnd._tracking.contracts import Reader as Reader
from dbnd._tracking.contracts import ReaderFactory as ReaderFactory
from dbnd._tracking.contracts import RefusedError as RefusedError
from dbnd._tracking.contracts import TooLargeError as TooLargeError
from dbnd._tracking.contracts import Transport as Transport
from dbnd._tracking.contracts import TransportError as TransportError
from dbnd._tracking.contracts import TransportFactory as TransportFactory
from dbnd._tracking.contracts import UnreachableError as UnreachableError
from dbnd._tracking.outbox import Outbox as Outbox
from dbnd._tracking.outbox import close_all as close_all

__all__ = sorted(name for name in globals() if name[0] != "_")  # noqa: PLE0605  the imports are the one list of names
