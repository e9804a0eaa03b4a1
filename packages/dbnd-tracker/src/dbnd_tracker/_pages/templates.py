"""What all pages are made of: templates, values as they write them, and static files."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from dbnd.plugins import web_url
from dbnd.tracking import page_path
from dbnd_tracker._content.markdown import markdown_html
from dbnd_tracker._format import bytes_text, counted, duration_text, type_name, value_text
from dbnd_tracker._pages.artifacts import artifact_url
from dbnd_tracker._pages.charts import Written
from dbnd_tracker._queries.language.expressions import Field, as_number
from dbnd_tracker._queries.language.grammar import condition
from dbnd_tracker._storage.states import FINAL_STATES, LOST
from dbnd_tracker._views import MetricView, RunRow

_LOOKS: Final = {
    "success": "success",
    "failed": "failed",
    "upstream_failed": "failed",
    "running": "running",
    "cancelled": "stopped",
    "shutdown": "stopped",
    LOST: "stopped",
}
_LONGEST_CELL: Final = 500
_WIDEST: Final = 30
_LONG: Final = 28
_SHORT_NUMBER: Final = 7
_CHARACTERS_OF_A_UID: Final = 8
_FOUR_DIGITS: Final = 1_000
_MILLION: Final = 1_000_000
_LARGEST_WHOLE: Final = 1e12
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES: Final = {
    path.name: path.read_bytes()
    for path in sorted(files("dbnd_tracker").joinpath("_static").iterdir(), key=lambda path: path.name)
    if path.name.rpartition(".")[2] in _TYPES
}
_HASH: Final = hashlib.blake2b(b"\0".join(_FILES.values()), digest_size=6).hexdigest()


def _make_templates() -> Environment:
    """The environment of all pages: everything is escaped, and a missing value is an error."""
    environment = Environment(
        loader=PackageLoader("dbnd_tracker", "_templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "time": time_element,
        "ago": ago_element,
        "duration": duration_text,
        "value": value_text,
        "number": number_element,
        "digits": number_text,
        "web_url": web_url,
        "look": state_look,
        "bytes": bytes_text,
        "anchor": anchor,
        "type_name": type_name,
        "markdown": markdown_html,
        "shape": shape_text,
        "fact": schema_fact,
        "columns": columns_of,
        "written": Written,
        "short": short_uid,
        "thousands": "{:,}".format,
        "counted": counted,
    }
    environment.globals |= {
        "static": static_url,
        "run_url": run_url,
        "task_url": task_url,
        "row_url": row_url,
        "job_url": job_url,
        "experiment_url": experiment_url,
        "elapsed": elapsed_element,
        "state": state_element,
        "artifact_url": artifact_url,
        "metric_cells": metric_cells,
        "compared_cells": compared_cells,
        "value_cells": value_cells,
    }
    return environment


def short_uid(uid: str) -> str:
    """The first characters of a uid, which tell it from others nearby."""
    return uid[:_CHARACTERS_OF_A_UID]


def job_url(job: str | None) -> str:
    # Browsers take a path's "." and ".." for steps from folder to folder.
    return f"/?{urlencode({'job': job})}" if job in {".", ".."} else page_path(job)


def experiment_url(name: str) -> str:
    return f"/?{urlencode({'where': condition('experiment', '=', name)})}"


def run_url(job: str | None, run_uid: str) -> str:
    """Address of a run's page; its uid decides, whatever stands for the job."""
    return page_path(job, run_uid)


def task_url(job: str | None, run_uid: str, task_run_uid: str, **query: object) -> str:
    asked = f"?{urlencode(query, doseq=True)}" if query else ""
    return f"{page_path(job, run_uid, task_run_uid)}{asked}"


def row_url(row: RunRow) -> str:
    """Address of the page of a run, or of the nested task run that a row is."""
    return "/".join((_job_path(row.job_name), *row.place))


_job_path: Final = functools.lru_cache(page_path)


def state_element(state: str | None) -> Markup:
    """A state with its colour and shape."""
    return _html(f'<span class="state {state_look(state)}">{escape(state or "unknown")}</span>')


def state_look(state: str | None) -> str:
    """Which of the few ways of showing states is that of ``state``: each has a colour and a shape."""
    return _LOOKS.get(state or "", "waiting")


def anchor(text: str) -> str:
    """An id made of ``text``, whatever is in it; the same text always gives the same one."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def is_live(state: str | None) -> bool:
    """Whether something in this state may still change."""
    return state not in FINAL_STATES


def _texts(time: datetime) -> tuple[str, str]:
    """``time`` for scripts, and for people."""
    utc = time if time.tzinfo is timezone.utc else time.astimezone(timezone.utc)
    text = utc.isoformat(timespec="milliseconds")
    return text, f"{text[:10]} {text[11:19]} UTC"


def _html(text: str) -> Markup:
    """HTML in which all is escaped that has to be; to format ``Markup`` takes ten times as long."""
    return Markup(text)  # noqa: S704


def time_element(time: datetime | None) -> Markup:
    """``time`` in UTC, in an element that scripts turn into local time."""
    if time is None:
        return Markup()
    return _html('<time datetime="{}">{}</time>'.format(*_texts(time)))


def ago_element(time: datetime | None) -> Markup:
    """``time`` in UTC, in an element that scripts turn into how long ago it was, with local time in its title."""
    if time is None:
        return Markup()
    return _html('<time class="ago" datetime="{}">{}</time>'.format(*_texts(time)))


def elapsed_element(start: datetime | None, end: datetime | None, state: str | None) -> Markup:
    """How long something took; of what goes on since when, in an element in which scripts count."""
    if start is not None and end is None and is_live(state) and state != LOST:
        return _html('<span class="elapsed" data-since="{}">since {}</span>'.format(*_texts(start)))
    return escape(duration_text(None if start is None or end is None else end - start))


def number_text(value: object) -> str:
    """A value of a metric, numbers to four significant digits, of large ones all before the point."""
    if not isinstance(value, float):
        return value_text(value)
    is_whole = value.is_integer() and abs(value) < _LARGEST_WHOLE
    return f"{value:.0f}" if is_whole or _FOUR_DIGITS <= abs(value) < _MILLION else f"{value:.4g}"


def number_element(value: object) -> Markup:
    """A value of a metric, numbers to four significant digits, with all of them in the title."""
    text = number_text(value)
    if not isinstance(value, float) or float(text) == value:
        return Markup("{}").format(text)
    return Markup('<span title="{}">{}</span>').format(value, text)


def metric_cells(metric: MetricView) -> Markup:
    """The cells of a metric in the table of a run's metrics, whose style aligns numbers: last value, step, bounds."""
    return _html("".join(map(_metric_cell, (metric.last_value, metric.last_step, metric.min, metric.max))))


def _metric_cell(value: object) -> str:
    text = number_text(value)
    if isinstance(value, float) and float(text) != value:
        return f'<td title="{value}">{text}</td>'
    look = "" if isinstance(value, (int, float)) else ' class="long"' if len(text) > _LONG else ' class="text"'
    return f"<td{look}>{escape(text)}</td>"


def compared_cells(values: Iterable[tuple[object, object]]) -> Markup:
    """The cells of a row of a comparison, made of values and of which is best in its column or row, if any."""
    return _html("".join([_compared_cell(value, best) for value, best in values]))


def _compared_cell(value: object, best: object) -> str:
    if value is None:
        return '<td class="quiet">&ndash;</td>'
    return _value_cell(value, " best" if best is not None and value == best else "")


def value_cells(values: Mapping[Field, Any], columns: Sequence[Field]) -> Markup:
    """The cells of a row, one for each column: numbers are right-aligned, and what is cut is whole in its title."""
    return _html("\n".join([_value_cell(values.get(column)) for column in columns]))


def _value_cell(value: object, look: str = "") -> str:
    number = as_number(value)
    if number is None:
        text = value_text(value, _LONGEST_CELL)
        cell = escape(text)
        return f'<td class="value" title="{cell}">{cell}</td>' if len(text) > _WIDEST else f"<td>{cell}</td>"
    if isinstance(value, str):
        # A param is text: one that is short stays as it was written, and so do digits, which may be an id.
        stays = len(value) <= _SHORT_NUMBER or (len(value) <= _WIDEST and value.isdigit())
        text, whole = value if stays else number_text(number), value
    else:
        text, whole = number_text(value), str(value)
    is_whole = text == whole or (isinstance(value, float) and float(text) == value)
    title = "" if is_whole else f' title="{escape(whole)}"'
    return f'<td class="value number{look}"{title}>{escape(text)}</td>'


def shape_text(dimensions: Sequence[int | None] | None) -> str:
    """Sizes such as 300 and 2, with a sign of multiplication between; one that is not known is a question mark."""
    return " \u00d7 ".join("?" if size is None else f"{size:,}" for size in dimensions or ())


def schema_fact(schema: Any, name: str) -> str:
    """What a schema says under ``name``, such as the ``digest`` of a dataset."""
    value = _object(schema).get(name)
    return value if isinstance(value, str) else ""


def columns_of(schema: Any) -> list[tuple[str, str]]:
    """Names and types of the columns that a schema tells; a type that it does not tell is empty."""
    schema = _object(schema)
    dtypes = schema.get("dtypes")
    types = dtypes if isinstance(dtypes, dict) else {}
    columns = schema.get("columns")
    names = columns if isinstance(columns, list) else list(types)
    return [(str(name), str(types.get(str(name), ""))) for name in names]


def _object(schema: Any) -> dict[str, Any]:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError:  # anything may be sent
            return {}
    return schema if isinstance(schema, dict) else {}


def static_url(name: str) -> str:
    """The address of a static file; it changes with the files, so that a browser never mixes versions."""
    if name not in _FILES:
        raise FileNotFoundError(name)
    return f"/static/{_HASH}/{name}"


static_files = APIRouter(include_in_schema=False)
"""The routes of static files; they hold nothing that a token would have to guard."""


@static_files.get("/favicon.ico")
def favicon() -> Response:
    # Browsers ask for it beside what is no page, such as a log.
    return Response(_FILES["icon.svg"], media_type=_TYPES["svg"], headers={"Cache-Control": "max-age=86400"})


@static_files.get("/static/{version}/{name}")
def static(version: str, name: str) -> Response:
    if name not in _FILES:
        return PlainTextResponse("There is no such file.", 404)
    # Any version gets the present files, but only the present version may be kept.
    kept = "public, max-age=31536000, immutable" if version == _HASH else "no-store"
    headers = {"Cache-Control": kept, "X-Content-Type-Options": "nosniff"}
    media_type = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
    return Response(_FILES[name], media_type=media_type, headers=headers)


TEMPLATES: Final = _make_templates()
