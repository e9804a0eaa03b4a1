"""What calls say of a run, told from their bodies alone, and what the read API answers: the same dicts.

The first is a second reading of the protocol, independent of the tracker's: it takes calls that come once and in order.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from kit.wire.calls import Call

Json = dict[str, Any]
Get = Callable[[str], Any]

_FINAL = {"success", "failed", "cancelled", "upstream_failed", "skipped", "removed"}
_TARGET = ("param_name", "path", "operation_type", "operation_status", "value_preview", "data_dimensions", "data_hash")
_DATASET = (
    *("operation_type", "operation_status", "operation_source", "timestamp", "value_preview", "data_dimensions"),
    *("data_schema", "columns_stats", "query", "dataset_uri", "with_partition"),
)
_TASK = ("name", "task_id", "task_af_id", "is_root", "is_system", "is_reused", "version", "command_line")
_RUN = ("job_name", "project_name", "name", "user", "description")


def _time(text: str | None) -> str | None:
    if text is None:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc).isoformat()


def _millis(text: str) -> int:
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int(time.timestamp()) * 1000 + time.microsecond // 1000


def _readable(value: Any) -> Any:
    """``value`` with the words for numbers that JSON has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, list):
        return [_readable(member) for member in value]
    return {key: _readable(member) for key, member in value.items()} if isinstance(value, dict) else value


def _sorted(found: list[Json]) -> list[Json]:
    return sorted(found, key=lambda each: json.dumps(each, sort_keys=True))


class _Said:
    """What has been said so far."""

    def __init__(self) -> None:
        self.run: Json = {}
        self.tasks: dict[str, Json] = {}
        self.attempts: dict[str, Json] = {}
        self.parents: dict[str, str] = {}
        self.upstreams: dict[str, set[str]] = defaultdict(set)

    def init_run(self, body: Json) -> None:
        args, info = body["init_args"], body["init_args"]["new_run_info"]
        self.run = {name: info[name] for name in _RUN} | {
            "run_uid": args["run_uid"],
            "root_run_uid": args["root_run_uid"],
            "state": info["state"].lower(),
            "start_time": _time(info["start_time"]),
            "execution_date": _time(info["execution_date"]),
            "has_ended": False,
            "driver_task_run_uid": args["driver_task_uid"],
            "source": args["source"].removeprefix("UpdateSource."),
            "sends_heartbeat": bool(info["sends_heartbeat"]),
            "cmd_line": args["task_run_env"]["cmd_line"],
            "dag_id": info["dag_id"],
        }
        self._add(args["task_runs_info"])

    def add_task_runs(self, body: Json) -> None:
        self._add(body["task_runs_info"])

    def _add(self, infos: Json) -> None:
        for info in infos["task_runs"]:
            uid, attempt = info["task_run_uid"], info["task_run_attempt_uid"]
            if uid not in self.tasks:
                self.tasks[uid] = {name: info[name] for name in _TASK} | {"attempt": attempt}
                self.attempts[attempt] = self._new(info["state"].lower())
            params = {p["parameter_name"]: (p["value"], p["value_origin"]) for p in info["task_run_params"]}
            self.attempts[attempt]["params"].update(params)
        self.parents |= {child: parent for parent, child in infos["parent_child_map"]}
        for downstream, upstream in infos["upstreams_map"]:
            self.upstreams[downstream].add(upstream)
        for target in infos["targets"]:
            attempt = self.tasks[target["task_run_uid"]]["attempt"]
            facts = {"param_name": target["parameter_name"], "path": target["path"], "operation_type": "init"}
            self.attempts[attempt]["targets"].append({**dict.fromkeys(_TARGET), **facts, "data_schema": None})

    @staticmethod
    def _new(state: str) -> Json:
        empty = {name: {} for name in ("params", "metrics", "artifacts", "links")}
        times = {"start_time": None, "end_time": None, "error": None, "log": None}
        return {"state": state, **times, **empty, "targets": [], "datasets": []}

    def update_task_run_attempts(self, body: Json) -> None:
        for update in body["task_run_attempt_updates"]:
            attempt = self.attempts[update["task_run_attempt_uid"]]
            attempt["state"] = update["state"].lower()
            if update["state"] == "RUNNING":
                attempt["start_time"] = _time(update["timestamp"])
            elif attempt["state"] in _FINAL:
                attempt["end_time"] = _time(update["timestamp"])
            if update["start_date"]:
                attempt["start_time"] = _time(update["start_date"])
            if update["error"]:
                attempt["error"] = update["error"]

    def set_run_state(self, body: Json) -> None:
        self.run["state"] = body["state"].lower()
        self.run["has_ended"] = body["state"] != "RUNNING"

    def set_unfinished_tasks_state(self, body: Json) -> None:
        for attempt in self.attempts.values():
            if attempt["state"] not in _FINAL:
                attempt.update(state=body["state"].lower(), end_time=_time(body["timestamp"]))

    def heartbeat(self, body: Json) -> None:
        self.run["sends_heartbeat"] = True

    def log_metrics(self, body: Json) -> None:
        for info in body["metrics_info"]:
            self.log_metric(info)

    def log_metric(self, info: Json) -> None:
        metric = info["metric"]
        members = (metric.get(name) for name in ("value_float", "value_int", "value_json", "value_str"))
        value = next((member for member in members if member is not None), metric["value"])
        series = self.attempts[info["task_run_attempt_uid"]]["metrics"].setdefault(metric["key"], (info["source"], []))
        series[1].append((_millis(metric["timestamp"]), _readable(value)))

    def log_targets(self, body: Json) -> None:
        for info in body["targets_info"]:
            facts = {name: info["target_path" if name == "path" else name] for name in _TARGET}
            facts["data_schema"] = json.loads(info["data_schema"]) if info["data_schema"] else None
            self.attempts[info["task_run_attempt_uid"]]["targets"].append(facts)

    def log_datasets(self, body: Json) -> None:
        for info in body["datasets_info"]:
            facts = {name: info[name] for name in _DATASET}
            facts |= {
                "path": info["operation_path"],
                "error": info["operation_error"],
                "timestamp": _time(info["timestamp"]),
            }
            self.attempts[info["task_run_attempt_uid"]]["datasets"].append(facts)

    def log_artifact(self, body: Json) -> None:
        self.attempts[body["task_run_attempt_uid"]]["artifacts"][body["name"]] = body["path"]

    def save_external_links(self, body: Json) -> None:
        self.attempts[body["task_run_attempt_uid"]]["links"].update(body["external_links_dict"])

    def save_task_run_log(self, body: Json) -> None:
        self.attempts[body["task_run_attempt_uid"]]["log"] = body["log_body"]

    def log_exception(self, body: Json) -> None:
        """Nothing of it is the run's."""


def said(calls: list[Call]) -> Json:
    """The run that ``calls`` tell of: its facts, and its task runs by uid."""
    found = _Said()
    for call in calls:
        getattr(found, call.name)(call.body)
    tasks = {}
    for uid, task in found.tasks.items():
        attempt = found.attempts[task["attempt"]]
        relations = {"parent": found.parents.get(uid), "upstreams": sorted(found.upstreams[uid])}
        logged = {name: _sorted(attempt[name]) for name in ("targets", "datasets")}
        tasks[uid] = {**task, **attempt, **logged, **relations}
    return {**found.run, "tasks": tasks}


def answered(get: Get, run_uid: str) -> Json:
    """The same of the run ``run_uid``, as the read API tells of it.

    Args:
        get: Answers a path of the API with the JSON that stands there.
        run_uid: The run.
    """
    run = get(f"/api/v1/runs/{run_uid}")
    tasks = {}
    for task in run["task_runs"]:
        uid = task["task_run_uid"]
        [attempt] = task["attempts"]
        tasks[uid] = {name: task[name] for name in _TASK} | {
            "attempt": attempt["attempt_uid"],
            "state": task["state"],
            "start_time": _time(task["start_time"]),
            "end_time": _time(task["end_time"]),
            "error": task["error"],
            "log": get(f"/api/v1/task-runs/{uid}/log")["log_body"],
            "params": {param["name"]: (param["value"], param["origin"]) for param in task["params"]},
            "metrics": {m["key"]: (m["source"], _points(get, uid, m["key"])) for m in task["metrics"]},
            "artifacts": {artifact["name"]: artifact["path"] for artifact in task["artifacts"]},
            "links": task["links"],
            "targets": _sorted(task["targets"]),
            "datasets": _sorted([{**each, "timestamp": _time(each["timestamp"])} for each in task["datasets"]]),
            "parent": task["parent_task_run_uid"],
            "upstreams": sorted(task["upstreams"]),
        }
    names = (*_RUN, "run_uid", "root_run_uid", "state", "driver_task_run_uid", "source")
    return {name: run[name] for name in names} | {
        "start_time": _time(run["start_time"]),
        "execution_date": _time(run["execution_date"]),
        "has_ended": run["end_time"] is not None,
        "sends_heartbeat": run["last_heartbeat"] is not None,
        "cmd_line": run["environment"]["cmd_line"],
        "dag_id": run["facts"]["dag_id"],
        "tasks": tasks,
    }


def _points(get: Get, task_run_uid: str, key: str) -> list[tuple[int, Any]]:
    from urllib.parse import quote

    history = get(f"/api/v1/task-runs/{task_run_uid}/metrics/history?key={quote(key, safe='')}")
    assert history["total"] == len(history["data"])
    return [(point["timestamp"], point["value"]) for point in history["data"]]
