"""The web application: routers and middleware over one database."""

from __future__ import annotations

import os
from typing import Final

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from dbnd import __version__
from dbnd_tracker._access.callers import AccessMiddleware, identity_of
from dbnd_tracker._access.hosts import HostMiddleware
from dbnd_tracker._access.places import Places
from dbnd_tracker._access.tokens import ANYONE, Keyring, ThrottledError
from dbnd_tracker._api import artifacts, auth, charts, details, finding, health, pages, runs, saved_views, tracking
from dbnd_tracker._api.openapi import describe_calls
from dbnd_tracker._content.opened import ArtifactError
from dbnd_tracker._errors import MissingError, PayloadError, StorageError, TooMuchError, UnknownCallError
from dbnd_tracker._middleware.answers import HeadMiddleware, LargeMiddleware, answer_other_method
from dbnd_tracker._middleware.bodies import BodyMiddleware, UnreadMiddleware
from dbnd_tracker._middleware.limits import CapacityMiddleware, TimeoutMiddleware
from dbnd_tracker._middleware.observing import ObservingMiddleware, ServerMetrics, access_log
from dbnd_tracker._middleware.replica import ReplicaMiddleware
from dbnd_tracker._original import routes as original
from dbnd_tracker._pages.templates import static_files
from dbnd_tracker._queries.language.expressions import QueryError
from dbnd_tracker._queries.points.arrays import SeriesCache
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.replica import Replica


def create_app(database: Database, settings: TrackerSettings | None = None, *, guarded: bool = False) -> FastAPI:
    """The tracker as an ASGI application; the database that ``settings`` name is not looked at.

    If it is ``guarded``, every request must carry a token of the database also where the settings have none.
    """
    settings = settings or TrackerSettings()
    token = settings.token.get_secret_value() if settings.token else None
    metrics = ServerMetrics()
    keyring = Keyring(token) if guarded or token else None
    app = FastAPI(
        title="databand tracker",
        version=__version__,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.database = database
    app.state.metrics = metrics
    app.state.keyring = keyring
    app.state.cache = SeriesCache()
    app.state.places = Places(settings, guarded=guarded)
    app.state.artifact_threads = CapacityLimiter(_ARTIFACT_THREADS)
    # More calls than the database writes at once would only wait for it, and take the interpreter from one another.
    app.state.calling_threads = CapacityLimiter(database.writers)
    app.state.health_thread = CapacityLimiter(1)  # of its own: where all others are busy, it answers no later for that
    app.exception_handlers |= dict.fromkeys(_STATUSES, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(ThrottledError, _answer_throttled)
    app.add_exception_handler(ArtifactError, artifacts.answer_closed)
    app.add_exception_handler(404, finding.answer_missing)
    app.add_exception_handler(405, answer_other_method)
    for router in _ROUTERS:
        app.router.routes.extend(router.routes)  # as they are: FastAPI would analyse those it includes once more
    describe_calls(app)
    if settings.read_database:
        app.state.replica = Replica(settings.read_database, settings)
        app.add_middleware(ReplicaMiddleware, database=database, replica=app.state.replica)
    # The one added last is the outermost: every answer is marked, counted and logged, and a body is not read before it
    # is known who asks.
    app.add_middleware(LargeMiddleware)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(
        BodyMiddleware, max_received=settings.max_request_bytes, max_unpacked=settings.max_unpacked_bytes
    )
    if keyring is not None:
        app.add_middleware(AccessMiddleware, database=database, keyring=keyring)
    app.add_middleware(HostMiddleware, host=settings.host, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(TimeoutMiddleware, seconds=settings.request_timeout_s)
    app.add_middleware(CapacityMiddleware, most=settings.max_connections)
    app.add_middleware(ExceptionMiddleware, handlers=app.exception_handlers)  # what those above raise is answered
    app.add_middleware(UnreadMiddleware)
    app.add_middleware(ObservingMiddleware, metrics=metrics, log=access_log(settings.access_log))
    if settings.allowed_hosts:  # there is a proxy; without one, anybody on this machine could give himself any address
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"))
    return app


# Of their own: an MLflow server that is slow keeps nobody waiting but those who look at what it has.
_ARTIFACT_THREADS: Final = 4

_ROUTERS: Final = (
    *(auth.router, tracking.router, runs.router, details.task_runs, details.datasets, saved_views.router),
    *(original.router, health.router, auth.forms, static_files, artifacts.router, charts.router, finding.router),
    *(saved_views.page_router, pages.router),
)

_STATUSES: Final = {
    MissingError: 404,
    UnknownCallError: 404,
    TooMuchError: 413,
    PayloadError: 400,
    QueryError: 400,
    StorageError: 503,
}


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    status = next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    detail = str(error)
    if isinstance(error, StorageError) and request.app.state.keyring and identity_of(request.scope) == ANYONE:
        detail = "The database cannot be used now."  # a stranger need not know where it is
    return JSONResponse({"detail": detail}, status)


async def _answer_throttled(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ThrottledError)
    headers = {"Retry-After": str(error.seconds)}
    return JSONResponse({"detail": str(error)}, 429, headers)


async def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    place, *path = problem["loc"]
    name = ".".join(str(part) for part in path)
    what = f"The body is wrong at {name or 'its top'}" if place == "body" else f"The {place} parameter {name} is wrong"
    reason = problem["msg"].removeprefix("Value error, ")
    detail = f"{what}: {reason[:1].lower()}{reason[1:]}."
    return JSONResponse({"detail": detail}, 422)
