"""Scenarios about models: of runs, logged ones, the model registry and its prompts."""

from __future__ import annotations

import mlflow
from mlflow import MlflowClient

from parity.scenario import has, installed, outcome, scenario, stored, takes


def fitted():
    """A fitted model, and what it was fitted to."""
    import numpy as np
    from sklearn.linear_model import LinearRegression

    x = np.arange(12.0).reshape(6, 2)
    return LinearRegression().fit(x, x.sum(axis=1)), x


def log_sklearn(model, name, **more):
    """Requirements are given: to infer them, MLflow would load the model in a process of its own."""
    key = "name" if takes(mlflow.sklearn.log_model, "name") else "artifact_path"
    return mlflow.sklearn.log_model(model, **{key: name}, pip_requirements=["scikit-learn"], **more)


@scenario(installed("sklearn"))
def models_of_runs(side):
    import mlflow.sklearn

    model, x = fitted()
    with mlflow.start_run(run_name="r") as run:
        info = log_sklearn(model, "m", input_example=None, signature=mlflow.models.infer_signature(x))
    uri = f"runs:/{run.info.run_id}/m"
    predicted = [
        mlflow.sklearn.load_model(uri).predict(x).round(6).tolist(),
        mlflow.pyfunc.load_model(info.model_uri).predict(x).round(6).tolist(),
    ]
    about = mlflow.models.get_model_info(uri)
    return info.model_uri, sorted(about.flavors), str(about.signature), predicted, stored(run.info.run_id)


@scenario(installed("pandas"))
def python_models(side):
    import pandas as pd

    class Doubler(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return [2 * v for v in model_input["a"]]

    key = "name" if takes(mlflow.pyfunc.log_model, "name") else "artifact_path"
    with mlflow.start_run(run_name="r"):
        info = mlflow.pyfunc.log_model(**{key: "d"}, python_model=Doubler(), pip_requirements=["mlflow-skinny"])
    return mlflow.pyfunc.load_model(info.model_uri).predict(pd.DataFrame({"a": [1, 2]})), sorted(info.flavors)


@scenario(installed("sklearn"))
def registered_models(side):
    import mlflow.sklearn

    client = MlflowClient()
    model, x = fitted()
    with mlflow.start_run(run_name="r") as run:
        log_sklearn(model, "m", registered_model_name="registered_models")
    second = mlflow.register_model(f"runs:/{run.info.run_id}/m", "registered_models", tags={"k": "v"})
    client.set_registered_model_alias("registered_models", "champion", second.version)
    client.set_model_version_tag("registered_models", "1", "quality", "poor")
    client.update_registered_model("registered_models", "described")
    loaded = [
        mlflow.pyfunc.load_model(uri).predict(x).round(6).tolist()
        for uri in ("models:/registered_models/1", "models:/registered_models@champion")
    ]
    versions = client.search_model_versions("name='registered_models'")
    download = client.get_model_version_download_uri("registered_models", "1")
    client.delete_registered_model_alias("registered_models", "champion")
    return (
        loaded,
        download,
        [vars(version) for version in sorted(versions, key=lambda v: int(v.version))],
        [m.name for m in client.search_registered_models("name LIKE 'registered_m%'")],
        outcome(client.get_model_version_by_alias, "registered_models", "champion"),
        outcome(client.get_model_version, "registered_models", "7"),
        outcome(client.get_registered_model, "nothing"),
        outcome(client.create_registered_model, "registered_models"),
        outcome(mlflow.pyfunc.load_model, "models:/nothing/1"),
    )


@scenario(has("initialize_logged_model", "search_logged_models"))
def logged_models(side):
    model = mlflow.initialize_logged_model(name="external", params={"p": "1"}, tags={"t": "v"}, model_type="agent")
    mlflow.set_active_model(model_id=model.model_id)
    with mlflow.start_run(run_name="r") as run:
        mlflow.log_metric("m", 0.5, step=1, model_id=model.model_id)
        mlflow.log_model_params({"q": "2"}, model_id=model.model_id)
        mlflow.set_logged_model_tags(model.model_id, {"u": "w"})
    mlflow.finalize_logged_model(model.model_id, "READY")
    mlflow.delete_logged_model_tag(model.model_id, "t")
    mlflow.clear_active_model()
    found = mlflow.search_logged_models(experiment_ids=[side.experiment_id], output_format="list")
    return (
        mlflow.get_logged_model(model.model_id).to_dictionary(),
        [m.name for m in found],
        outcome(mlflow.get_logged_model, "m-nothing"),
        stored(run.info.run_id),
    )


def _prompts():
    genai = getattr(mlflow, "genai", None)
    return genai if hasattr(genai, "register_prompt") else mlflow


@scenario(lambda: hasattr(_prompts(), "register_prompt"))
def prompts(side):
    api = _prompts()

    def version(call, *args, **kwargs):
        found = outcome(call, *args, **kwargs)
        return found if found is None or isinstance(found, list) else [found.name, found.version, found.template]

    return [
        version(api.register_prompt, name="prompts", template="Say {{a}}", commit_message="first"),
        version(api.register_prompt, name="prompts", template="Tell {{a}}", tags={"k": "v"}),
        version(api.load_prompt, "prompts:/prompts/1"),
        outcome(api.set_prompt_alias, "prompts", alias="prod", version=2),
        version(api.load_prompt, "prompts:/prompts@prod"),
        outcome(api.delete_prompt_alias, "prompts", alias="prod"),
        version(api.load_prompt, "prompts:/prompts@prod"),
        version(api.load_prompt, "prompts:/none/1"),
    ]
