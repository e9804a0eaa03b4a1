"""Scenarios about traces, their assessments, and the evaluation of generated answers."""

from __future__ import annotations

import contextlib
import io

import mlflow
from mlflow import MlflowClient

from parity.scenario import (
    all_of,
    flush_traces,
    has,
    installed,
    outcome,
    scenario,
    takes,
    trace_id_of,
)


def trace_facts(trace):
    info = trace.info
    tags = {key: value for key, value in info.tags.items() if key != "mlflow.trace.sizeBytes"}
    spans = [[s.name, str(s.span_type), s.inputs, s.outputs, str(s.status.status_code)] for s in trace.data.spans]
    return [str(getattr(info, "state", None) or info.status), sorted(tags), spans, len(trace.data.spans)]


@scenario(has("trace", "start_span"))
def tracing(side):
    @mlflow.trace(span_type="CHAIN", attributes={"k": "v"})
    def answer(question):
        with mlflow.start_span("look up") as span:
            span.set_inputs({"q": question})
            span.set_outputs([1, 2])
        if question == "bad":
            raise ValueError("no answer")
        return question.upper()

    with mlflow.start_run(run_name="r") as run:
        answer("why")
    with contextlib.suppress(ValueError):
        answer("bad")
    flush_traces()
    client = MlflowClient()
    traces = sorted(client.search_traces(experiment_ids=[side.experiment_id]), key=lambda t: t.info.timestamp_ms)
    ids = [trace_id_of(t) for t in traces]
    client.set_trace_tag(ids[0], "mine", "yes")
    client.delete_trace_tag(ids[0], "mine")
    client.set_trace_tag(ids[0], "other", "yes")
    fetched = client.get_trace(ids[0])
    of_run = client.search_traces(
        experiment_ids=[side.experiment_id], filter_string=f"metadata.`mlflow.sourceRun` = '{run.info.run_id}'"
    )
    filtered = client.search_traces(experiment_ids=[side.experiment_id], filter_string="tags.other = 'yes'")
    deleted = client.delete_traces(
        side.experiment_id, **{"trace_ids" if takes(client.delete_traces, "trace_ids") else "request_ids": [ids[1]]}
    )
    left = len(client.search_traces(experiment_ids=[side.experiment_id]))
    found = mlflow.search_traces(experiment_ids=[side.experiment_id])  # a list where pandas is missing
    return (
        [trace_facts(t) for t in traces],
        trace_facts(fetched),
        [len(of_run), len(filtered), deleted, left],
        [type(found).__name__, len(found), *sorted(getattr(found, "columns", ()))],
    )


@scenario(has("log_feedback", "log_expectation", "start_span"))
def assessments(side):
    with mlflow.start_span("root") as span:
        span.set_outputs("x")
    flush_traces()
    (trace,) = MlflowClient().search_traces(experiment_ids=[side.experiment_id])
    trace_id = trace_id_of(trace)
    results = [
        outcome(lambda: mlflow.log_feedback(trace_id=trace_id, name="good", value=True, rationale="because").name),
        outcome(lambda: mlflow.log_expectation(trace_id=trace_id, name="is", value={"a": 1}).name),
        outcome(lambda: mlflow.log_feedback(trace_id=trace_id, name="score", value=0.5).name),
        outcome(lambda: mlflow.log_feedback(trace_id="tr-nothing", name="good", value=True).name),
    ]
    found = {a.name: a for a in MlflowClient().get_trace(trace_id).info.assessments or []}
    if "score" in found and hasattr(mlflow, "delete_assessment"):
        results.append(outcome(mlflow.delete_assessment, trace_id=trace_id, assessment_id=found["score"].assessment_id))
        results.append(
            outcome(
                lambda: (
                    mlflow.override_feedback(
                        trace_id=trace_id, assessment_id=found["good"].assessment_id, value=False
                    ).name
                )
            )
        )
    after = MlflowClient().get_trace(trace_id).info.assessments or []
    return results, sorted(
        [a.name, str(a.feedback and a.feedback.value), str(a.expectation and a.expectation.value), str(a.rationale)]
        for a in after
    )


@scenario(all_of(has("evaluate", "scorer", of=getattr(mlflow, "genai", None)), installed("pandas")))
def genai_evaluation(side):
    @mlflow.genai.scorer
    def exact(outputs, expectations):
        return outputs == expectations["is"]

    data = [{"inputs": {"q": n}, "outputs": str(n), "expectations": {"is": "1"}} for n in range(2)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = outcome(mlflow.genai.evaluate, data=data, scorers=[exact])
    if isinstance(result, list):  # older MLflows want a package of Databricks'
        return result
    flush_traces()
    run = MlflowClient().get_run(result.run_id)
    found = MlflowClient().search_traces(experiment_ids=[side.experiment_id])
    values = sorted((a.name, str(a.value)) for trace in found for a in trace.info.assessments)
    return result.metrics, run.data.metrics, run.info.status, len(found), values


@scenario(has("make_judge", of=getattr(mlflow, "genai", None)))
def scorers(side):
    from mlflow.genai.scorers import delete_scorer, get_scorer, list_scorers

    def custom():
        @mlflow.genai.scorer
        def length(outputs):
            return len(outputs)

        return length.register(name="length").name

    def judge(text):
        made = mlflow.genai.make_judge(name="polite", instructions=text, model="openai:/none")
        return made.register().name

    return [
        outcome(judge, "Is {{ outputs }} polite?"),
        outcome(judge, "Is {{ outputs }} really polite?"),
        outcome(custom),
        outcome(lambda: sorted(s.name for s in list_scorers())),
        outcome(lambda: get_scorer(name="polite", version=1).instructions),
        outcome(lambda: get_scorer(name="polite").instructions),
        outcome(delete_scorer, name="polite", version="all"),
        outcome(lambda: sorted(s.name for s in list_scorers())),
        outcome(lambda: get_scorer(name="polite").name),
    ]
