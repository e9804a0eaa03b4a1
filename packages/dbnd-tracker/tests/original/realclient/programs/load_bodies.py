"""Load recorded bodies, a JSON list of [call, body] in the file that is named, by the released client's own schemas."""

import json
import sys

from dbnd.api import tracking_api as api

SCHEMAS = {
    "init_run": api.InitRunSchema,
    "add_task_runs": api.AddTaskRunsSchema,
    "update_task_run_attempts": api.UpdateTaskRunAttemptsSchema,
    "set_run_state": api.SetDatabandRunStateSchema,
    "set_unfinished_tasks_state": api.SetUnfinishedTasksStateShcmea,
    "save_task_run_log": api.SaveTaskRunLogSchema,
    "save_external_links": api.SaveExternalLinksSchema,
    "log_metrics": api.LogMetricsSchema,
    "log_artifact": api.LogArtifactSchema,
    "log_targets": api.LogTargetsSchema,
    "log_datasets": api.LogDatasetsSchema,
    "heartbeat": api.HeartbeatSchema,
}

if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        bodies = json.load(file)
    findings = []
    for number, (call, body) in enumerate(bodies):
        try:
            errors = SCHEMAS[call](strict=False).load(body).errors
        except Exception as error:
            errors = repr(error)
        if errors:
            findings.append("%s %s: %s" % (number, call, errors))
    print(json.dumps({"loaded": len(bodies), "calls": sorted({call for call, _ in bodies}), "findings": findings}))
