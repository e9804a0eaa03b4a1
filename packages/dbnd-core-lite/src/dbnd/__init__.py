"""databand: tracking of runs, tasks, params and metrics.

Everything that a user needs stands here; modules whose names start with an underscore are private.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbnd._base.errors import ConfigError as ConfigError
    from dbnd._base.errors import DatabandError as DatabandError
    from dbnd._base.errors import TaskNotFoundError as TaskNotFoundError
    from dbnd._base.errors import TrackingError as TrackingError
    from dbnd._base.errors import UsageError as UsageError
    from dbnd._config.config import Config as Config
    from dbnd._config.settings import Settings as Settings
    from dbnd._context.current import DatabandContext as DatabandContext
    from dbnd._context.current import current_task_run as current_task_run
    from dbnd._context.current import get_databand_context as get_databand_context
    from dbnd._context.hooks import Command as Command
    from dbnd._context.hooks import hookimpl as hookimpl
    from dbnd._context.registry import config as config
    from dbnd._context.registry import load_config as load_config
    from dbnd._model.run import TaskRun as TaskRun
    from dbnd._run.log import log_artifact as log_artifact
    from dbnd._run.log import log_metric as log_metric
    from dbnd._run.log import log_metrics as log_metrics
    from dbnd._run.session import dbnd_tracking as dbnd_tracking
    from dbnd._run.session import new_dbnd_context as new_dbnd_context
    from dbnd._run.task import task as task
    from dbnd._tracking.client import TrackingAPIClient as TrackingAPIClient
    from dbnd._tracking.contracts import Batch as Batch
    from dbnd._tracking.contracts import Transport as Transport

# Imported on first use: `dbnd --help` and `import mlflow` must not pay for pydantic and the tracker's client.
_HOMES = {
    "dbnd._base.errors": "ConfigError DatabandError TaskNotFoundError TrackingError UsageError",
    "dbnd._config.config": "Config",
    "dbnd._config.settings": "Settings",
    "dbnd._context.current": "DatabandContext current_task_run get_databand_context",
    "dbnd._context.hooks": "Command hookimpl",
    "dbnd._context.registry": "config load_config",
    "dbnd._model.run": "TaskRun",
    "dbnd._run.log": "log_artifact log_metric log_metrics",
    "dbnd._run.session": "dbnd_tracking new_dbnd_context",
    "dbnd._run.task": "task",
    "dbnd._tracking.client": "TrackingAPIClient",
    "dbnd._tracking.contracts": "Batch Transport",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__version__ = "2.0.0"
__all__ = sorted(_HOME)  # noqa: PLE0605  the table above is the one list of names


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dbnd' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
