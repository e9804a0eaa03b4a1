"""Reading: the SQL behind the read API, the page and the terminal."""

from dbnd_tracker._queries.comparison import compare_runs as compare_runs
from dbnd_tracker._queries.datasets import dataset_operations as dataset_operations
from dbnd_tracker._queries.datasets import lineage as lineage
from dbnd_tracker._queries.details import client_errors as client_errors
from dbnd_tracker._queries.details import logging_task_runs as logging_task_runs
from dbnd_tracker._queries.details import run_detail as run_detail
from dbnd_tracker._queries.details import task_run_detail as task_run_detail
from dbnd_tracker._queries.details import task_run_documents as task_run_documents
from dbnd_tracker._queries.details import task_run_log as task_run_log
from dbnd_tracker._queries.expressions import QueryError as QueryError
from dbnd_tracker._queries.listing import metric_list as metric_list
from dbnd_tracker._queries.metrics import find_series as find_series
from dbnd_tracker._queries.metrics import metric_history as metric_history
from dbnd_tracker._queries.run_table import RunFilter as RunFilter
from dbnd_tracker._queries.run_table import list_runs as list_runs
from dbnd_tracker._queries.runs import Condition as Condition
