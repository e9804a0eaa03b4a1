"""databand: tracking of runs, tasks, params and metrics.

Everything that a user needs stands here; modules whose names start with an underscore are private.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbnd._config import Config as Config
    from dbnd._config import config as config
    from dbnd._context import DatabandContext as DatabandContext
    from dbnd._context import get_databand_context as get_databand_context
    from dbnd._context import new_dbnd_context as new_dbnd_context
    from dbnd._errors import ConfigError as ConfigError
    from dbnd._errors import DatabandError as DatabandError
    from dbnd._errors import TaskNotFoundError as TaskNotFoundError
    from dbnd._errors import TaskParameterError as TaskParameterError
    from dbnd._errors import TrackingError as TrackingError
    from dbnd._errors import UsageError as UsageError
    from dbnd._hooks import Command as Command
    from dbnd._hooks import hookimpl as hookimpl
    from dbnd._inplace import dbnd_tracking as dbnd_tracking
    from dbnd._logging_api import log_artifact as log_artifact
    from dbnd._logging_api import log_metric as log_metric
    from dbnd._logging_api import log_metrics as log_metrics
    from dbnd._run import TaskRun as TaskRun
    from dbnd._run import current_task_run as current_task_run
    from dbnd._settings import Settings as Settings
    from dbnd._task import task as task
    from dbnd._tracking.client import TrackingAPIClient as TrackingAPIClient
    from dbnd._tracking.transport import Batch as Batch
    from dbnd._tracking.transport import Transport as Transport

# Imported on first use: `dbnd --help` and `import mlflow` must not pay for pydantic and the tracker's client.
_HOME = {
    "Batch": "dbnd._tracking.transport",
    "Command": "dbnd._hooks",
    "Config": "dbnd._config",
    "ConfigError": "dbnd._errors",
    "DatabandContext": "dbnd._context",
    "DatabandError": "dbnd._errors",
    "Settings": "dbnd._settings",
    "TaskNotFoundError": "dbnd._errors",
    "TaskParameterError": "dbnd._errors",
    "TaskRun": "dbnd._run",
    "TrackingAPIClient": "dbnd._tracking.client",
    "TrackingError": "dbnd._errors",
    "Transport": "dbnd._tracking.transport",
    "UsageError": "dbnd._errors",
    "config": "dbnd._config",
    "current_task_run": "dbnd._run",
    "dbnd_tracking": "dbnd._inplace",
    "get_databand_context": "dbnd._context",
    "hookimpl": "dbnd._hooks",
    "log_artifact": "dbnd._logging_api",
    "log_metric": "dbnd._logging_api",
    "log_metrics": "dbnd._logging_api",
    "new_dbnd_context": "dbnd._context",
    "task": "dbnd._task",
}

__version__ = "2.0.0"
__all__ = sorted(_HOME)  # noqa: PLE0605  the table above is the one list of names


def __getattr__(name: str) -> Any:  # noqa: ANN401  the type is the name's own
    if name not in _HOME:
        msg = f"module 'dbnd' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
