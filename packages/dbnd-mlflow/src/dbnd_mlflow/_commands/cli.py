"""``dbnd mlflow``: commands for trust in the two sides."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from datetime import datetime, timezone
from typing import Any

import click

from dbnd import Config, DatabandError, UsageError, load_config
from dbnd.plugins import console, mask_url
from dbnd.tracking import TransportError, configured_url, create_reader, create_transport

DIFFERENT = 1


@click.group()
def mlflow() -> None:
    """Compare MLflow's runs with the tracker's; import older ones; print the URI that tracks them."""


_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@mlflow.command()
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID]...")
@click.option("--experiment", metavar="NAME", help="Compare all runs of this experiment.")
@click.option("--record", is_flag=True, help="Keep the result in the tracker, whose web page shows it.")
@_JSON
@click.pass_context
def verify(ctx: click.Context, run_ids: tuple[str, ...], experiment: str | None, record: bool, as_json: bool) -> None:
    """Compare MLflow runs with the tracker: params, tags, every metric point, datasets, models, and facts of the run.

    Without RUN_ID and --experiment, all runs are compared. What people have changed on the tracker's page is meant to
    differ. Exits with 1 if anything else does.
    """
    from .families import Families
    from .mlflow_store import OwnStore, own_tracking_uri
    from .verify import Difference, Verifier

    if run_ids and experiment is not None:
        raise UsageError(f"Name runs or the experiment {experiment!r}, and not both.")
    config = _config()
    store = OwnStore(own_tracking_uri(config))
    runs = [store.run(run_id) for run_id in run_ids] if run_ids else store.runs(experiment)
    found: list[Difference] = []
    with ExitStack() as stack:
        reader = stack.enter_context(closing(create_reader(config)))
        url = _tracker_url(config, "keep the result in") if record else None
        transport = None if url is None else stack.enter_context(closing(create_transport(url, config)))
        verifier = Verifier(store, reader, Families(store, runs), transport)
        try:
            for run in stack.enter_context(_progress(runs, "Comparing")):
                found += verifier.verify(run)
        except TransportError as error:
            raise DatabandError(f"The tracker {reader.name} does not keep the result: {error}.") from None
        where = f"{len(runs)} runs of {store.name} compared with {reader.name}"
    if as_json:
        console.json_result([difference._asdict() for difference in found])
    elif found:
        rows = [(d.run_id[:8], d.what, d.name, _cut(d.mlflow), _cut(d.tracker)) for d in found]
        console.result(console.table(("RUN", "WHAT", "NAME", "MLFLOW", "TRACKER"), rows))
    if found:
        console.error(f"{where}: {len(found)} differences.")
        ctx.exit(DIFFERENT)
    console.success(f"{where}: no difference.")


@mlflow.command("import")
@click.option("--from", "source", required=True, metavar="URI", help="Tracking URI of the MLflow store to import from.")
@click.option("--experiment", metavar="NAME", help="Import the runs of this experiment only.")
@click.option("--since", type=click.DateTime(), help="Import runs that started at this time (UTC) or later.")
@click.option("--recreate", is_flag=True, help="Also import runs that were deleted in the tracker.")
@_JSON
def import_(source: str, experiment: str | None, since: datetime | None, *, recreate: bool, as_json: bool) -> None:
    """Bring MLflow runs into the tracker, with their own ids, times, steps and nesting.

    What the tracker has not got of a run is sent, and what has changed; what only the tracker has stays. So an import
    can be repeated, while runs go on, too, and goes on where it was interrupted. The runs that those asked for are
    nested in are imported as well.
    """
    from .._uri import refuse_composite
    from .families import Families
    from .importer import Importer
    from .mlflow_store import OwnStore

    if not source:  # MLflow would take it for the store that it is set to
        raise UsageError("--from is empty: name the tracking URI of the MLflow store to import from.")
    refuse_composite(source, "--from")
    config = _config()
    url = _tracker_url(config, "import into")
    tracker = mask_url(url)
    store = OwnStore(source)
    earliest = None if since is None else int(since.replace(tzinfo=timezone.utc).timestamp() * 1000)
    asked = store.runs(experiment, earliest)
    families = Families(store, asked)
    runs = families.with_parents(asked)
    imported = 0
    with closing(create_transport(url, config)) as transport:
        try:
            transport.check()  # an embedded tracker is made by that, and only what is there can be read
            with closing(create_reader(config)) as reader, _progress(runs, "Importing") as shown:
                importer = Importer(store, families, transport, reader, tracker, recreate)
                for run in shown:
                    imported += importer.import_run(run)
        except TransportError as error:
            message = (
                f"The tracker {tracker} does not take events ({error}); {imported} of {len(runs)} runs are imported. "
                "Run the command again to go on."
            )
            raise DatabandError(message) from None
    parents, refused = len(runs) - len(asked), len(importer.refused)
    if as_json:
        counts = {"runs": len(runs), "imported": imported, "parents": parents, "refused": refused}
        console.json_result({"store": store.name, "tracker": tracker, **counts})
    there = len(runs) - imported - refused
    rest = f"; the other {there} were there already" if there else ""
    above = f" {parents} of the {len(runs)} are what the runs that you asked for are nested in." if parents else ""
    console.success(f"{imported} of {len(runs)} runs of {store.name} imported into {tracker}{rest}.{above}")
    if refused:
        console.warning(f"{refused} runs were deleted in {tracker}: `--recreate` imports them again.")


@mlflow.command()
@click.argument("store", required=False)
@_JSON
def uri(store: str | None, as_json: bool) -> None:
    """Print the tracking URI by which MLflow logs to the tracker as well as to STORE, your own MLflow tracking URI.

    Without STORE it is mlflow_tracking.duplicate_tracking_to, or what MLflow is set to. In a shell:
    export MLFLOW_TRACKING_URI="$(dbnd mlflow uri http://mlflow-server:5000)"
    """
    from .._settings import DIRECT, MlflowTrackingSettings
    from .._uri import absolute_uri, build_composite_uri
    from .mlflow_store import own_tracking_uri

    config = _config()
    writes = config.settings(MlflowTrackingSettings).store_writes
    own = absolute_uri(store or own_tracking_uri(config))
    made = build_composite_uri(_tracker_url(config, "name"), own, None if writes == DIRECT else writes)
    if as_json:
        console.json_result({"uri": made})
    else:
        console.result(made)


def _config() -> Config:
    config = load_config()
    config.check()
    return config


def _tracker_url(config: Config, purpose: str) -> str:
    url = configured_url(config)
    if url is None:
        raise DatabandError(f"There is no tracker to {purpose}: set core.databand_url, or install dbnd-tracker.")
    return url


def _progress(items: list[Any], label: str) -> Any:
    return click.progressbar(items, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())


def _cut(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
