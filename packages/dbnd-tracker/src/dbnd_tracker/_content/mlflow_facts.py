"""What only an MLflow server knows of a run, asked when its page is looked at: versions, prompts, and traces."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from dbnd_tracker._access.places import MlflowServer, Places
from dbnd_tracker._content.mlflow_files import ask_json, understanding
from dbnd_tracker._content.opened import ArtifactError

_PAGE: Final = re.compile(r"/experiments/([0-9A-Za-z_-]{1,64})/runs/([0-9A-Za-z_-]{1,64})/?$")
_MOST: Final = 100
_MAX_MODELS: Final = 10
_PROMPTS_TAG: Final = "mlflow.linkedPrompts"


class Version(NamedTuple):
    """A version of a registered model that was made of a run, or of a prompt that it used."""

    name: str
    version: str
    aliases: list[str]
    url: str


class MlflowFacts(NamedTuple):
    """What MLflow's server says of a run, beside what is tracked."""

    versions: list[Version]
    prompts: list[Version]
    traces: int
    has_more_traces: bool
    assessments: int
    traces_url: str


def mlflow_facts(links: Sequence[str], places: Places) -> MlflowFacts | None:
    """What the server says of the run whose page is one of ``links``; None where there is none that may be asked.

    Raises:
        ArtifactError: The server does not answer, or not as one of MLflow's.
    """
    for link in links:
        page, server = _PAGE.search(link), places.server_of([link])
        if page and server:
            with understanding(server):
                return _facts(server, *page.groups())
    return None


def _facts(server: MlflowServer, experiment_id: str, run_id: str) -> MlflowFacts:
    versions, prompts = _versions(server, run_id), _prompts(server, run_id)
    traces, more = _traces(server, experiment_id, run_id)
    assessments = sum(len(trace.get("assessments", ())) for trace in traces)
    url = f"{server}/#/experiments/{experiment_id}/runs/{run_id}/traces"
    return MlflowFacts(versions, prompts, len(traces), more, assessments, url)


def _versions(server: MlflowServer, run_id: str) -> list[Version]:
    wanted = quote(f"run_id='{run_id}'", safe="")
    answer = ask_json(server, f"/api/2.0/mlflow/model-versions/search?filter={wanted}&max_results={_MOST}")
    found = [(str(each["name"]), str(each["version"])) for each in answer.get("model_versions", [])]
    aliases: dict[tuple[str, str], list[str]] = {}
    for name in list(dict.fromkeys(name for name, _ in found))[:_MAX_MODELS]:
        model = ask_json(server, f"/api/2.0/mlflow/registered-models/get?name={quote(name, safe='')}")
        for each in model.get("registered_model", {}).get("aliases", []):
            aliases.setdefault((name, str(each["version"])), []).append(str(each["alias"]))
    page = f"{server}/#/models"
    return [
        Version(name, version, aliases.get((name, version), []), f"{page}/{quote(name, safe='')}/versions/{version}")
        for name, version in found
    ]


def _prompts(server: MlflowServer, run_id: str) -> list[Version]:
    """The prompts that a run has loaded or registered, which MLflow keeps as a tag of it."""
    answer = _ask_for(server, f"/api/2.0/mlflow/runs/get?run_id={quote(run_id, safe='')}")
    tags = {each["key"]: each["value"] for each in answer.get("run", {}).get("data", {}).get("tags", [])}
    try:
        found = [(str(each["name"]), str(each["version"])) for each in json.loads(tags.get(_PROMPTS_TAG, "[]"))[:_MOST]]
    except (ValueError, RecursionError, KeyError, TypeError):  # anybody can set a tag
        return []
    return [Version(name, version, [], f"{server}/#/prompts/{quote(name, safe='')}") for name, version in found]


def _traces(server: MlflowServer, experiment_id: str, run_id: str) -> tuple[list[Any], bool]:
    """The traces of a run, and whether there are more; none of a server that is older than they are."""
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
    asked = {"locations": [place], "filter": f"run_id = '{run_id}'", "max_results": _MOST}
    answer = _ask_for(server, "/api/3.0/mlflow/traces/search", asked)
    return list(answer.get("traces", [])), bool(answer.get("next_page_token"))


def _ask_for(server: MlflowServer, path: str, body: object = None) -> Any:
    """The JSON that a server answers; an empty object where it has none such."""
    try:
        return ask_json(server, path, body)
    except ArtifactError as error:
        if error.status == 404:
            return {}
        raise
