"""The one way into the database: what each tracking call does to it."""

from dbnd_tracker._ingest.calls import CALLS as CALLS
from dbnd_tracker._ingest.calls import Applied as Applied
from dbnd_tracker._ingest.calls import BatchId as BatchId
from dbnd_tracker._ingest.calls import apply_batch as apply_batch
from dbnd_tracker._ingest.calls import apply_call as apply_call
from dbnd_tracker._ingest.calls import apply_points as apply_points
from dbnd_tracker._ingest.calls import apply_raw as apply_raw
from dbnd_tracker._ingest.calls import parse_json as parse_json
from dbnd_tracker._ingest.edits import edit_run as edit_run
from dbnd_tracker._ingest.runs import stop_runs as stop_runs
