"""The page of an artifact: what can be shown of it, and all of it to download."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlencode, urlsplit

from markupsafe import Markup

from dbnd.plugins import web_url
from dbnd_tracker._access.places import Places
from dbnd_tracker._content.local_files import open_local
from dbnd_tracker._content.markdown import LONGEST, markdown_html
from dbnd_tracker._content.mlflow_files import is_served, open_served
from dbnd_tracker._content.opened import MOST_BYTES, ArtifactError, Content, Folder
from dbnd_tracker._content.previews import Rows, parquet_rows, table_of_json, text_rows
from dbnd_tracker._queries.artifacts import FoundArtifact

IMAGES: Final = {
    **{name: f"image/{name}" for name in ("png", "gif", "webp", "bmp", "avif", "jpeg")},
    "jpg": "image/jpeg",
    "svg": "image/svg+xml",
    "ico": "image/x-icon",
}
"""Media types of the images that browsers show, by the ends of names."""
PAGES: Final = frozenset({"html", "htm"})
_TABLES: Final = {"csv": None, "tsv": "\t"}
_MARKDOWN: Final = frozenset({"md", "markdown"})
_JSON: Final = frozenset({"json", "ipynb", "geojson"})
_TEXTS: Final = frozenset(
    "txt log yaml yml toml ini cfg conf py r sql sh xml jsonl tex rst env dockerfile mlmodel mlproject license "
    "readme".split()
)
_TEXT_BYTES: Final = 1 << 18
_PARSED_BYTES: Final = 1 << 20
_EMBEDDED_BYTES: Final = 1 << 25


def open_artifact(artifact: FoundArtifact, inside: str, places: Places) -> Content | Folder:
    """Open what stands at an artifact's place, or ``inside`` it; ArtifactError where it cannot, or may not, be."""
    if is_served(artifact.place):
        return open_served(artifact.place, inside, artifact.links, places)
    path = _local_path(artifact.place)
    if path is None:
        raise ArtifactError(404, "The tracker opens files of its machine, and of MLflow servers: this is elsewhere.")
    return open_local(path, inside, places)


def _local_path(place: str) -> str | None:
    """The path of this machine that a place is."""
    if place.startswith("/"):
        return place
    try:
        parts = urlsplit(place)
    except ValueError:  # such as an address in brackets that do not close
        return None
    return unquote(parts.path) if parts.scheme == "file" and parts.netloc in {"", "localhost"} else None


def artifact_url(task_run_uid: str, name: str, place: str) -> str | None:
    """Where an artifact is opened: its page, or where it is on the web; None if only its place can be said."""
    if is_served(place) or _local_path(place):
        return f"/app/artifacts/{task_run_uid}?{urlencode({'name': name})}"
    return web_url(place)


def thumbnail_url(task_run_uid: str, name: str, place: str) -> str | None:
    """Where a page gets the content of an artifact that is an image; None if it is none that the tracker opens."""
    url = artifact_url(task_run_uid, name, place) if kind_of(place) in IMAGES else None
    return f"{url.replace('?', '/file?', 1)}&small=1" if url and url.startswith("/") else None


def kind_of(name: str) -> str:
    """The end of a file's name, which alone tells what it is; what it holds is never asked."""
    return (PurePosixPath(name).suffix[1:] or name).lower()


class Crumb(NamedTuple):
    """A folder on the way to what is shown."""

    name: str
    url: str


class ArtifactPage:
    """An artifact, or what is ``inside`` one that is a folder, as its page shows it.

    If it ``runs_scripts``, HTML may do so, in its sandbox.
    """

    def __init__(
        self,
        artifact: FoundArtifact,
        inside: str,
        opened: Content | Folder | ArtifactError,
        *,
        runs_scripts: bool = False,
    ) -> None:
        self.artifact = artifact
        self.inside = inside
        self.runs_scripts = runs_scripts
        self.problem: str | None = None
        self.is_cut = False
        self.text: str | None = None
        self.html: Markup | None = None
        self.table: Rows | None = None
        self.image = self.frame = False
        self.folder = opened if isinstance(opened, Folder) else None
        self.size: int | None = None
        self.is_file = isinstance(opened, Content)
        self.url = f"/app/artifacts/{artifact.task_run_uid}"
        steps = [step for step in inside.split("/") if step]
        self.crumbs = [Crumb(artifact.name, self.page_url(""))]
        self.crumbs += [Crumb(step, self.page_url("/".join(steps[: i + 1]))) for i, step in enumerate(steps)]
        if isinstance(opened, ArtifactError):
            self.problem = str(opened)
        elif isinstance(opened, Content):
            self.size = opened.size
            try:
                self._show(opened, kind_of(opened.name))
            except ArtifactError as error:
                self.problem = str(error)

    def page_url(self, inside: str) -> str:
        """The page of what is ``inside`` the artifact."""
        return f"{self.url}?{urlencode(self._query(inside))}"

    def entry_url(self, name: str) -> str:
        """The page of what is called ``name`` in the folder that is shown."""
        return self.page_url(f"{self.inside}/{name}".lstrip("/"))

    def file_url(self, **more: str) -> str:
        return f"{self.url}/file?{urlencode({**self._query(self.inside), **more})}"

    @property
    def script_url(self) -> str:
        """This page with the scripts of what it shows, or without."""
        more = {} if self.runs_scripts else {"scripts": "1"}
        return f"{self.url}?{urlencode({**self._query(self.inside), **more})}"

    def _query(self, inside: str) -> dict[str, str]:
        return {"name": self.artifact.name, **({"path": inside} if inside else {})}

    def _show(self, content: Content, kind: str) -> None:
        if content.size is not None and content.size > MOST_BYTES:
            self.is_file = False
            self.problem = f"It is larger than {MOST_BYTES >> 30} GiB: fetch it from its place."
        elif kind in IMAGES or kind in PAGES:
            if content.size is not None and content.size > _EMBEDDED_BYTES:
                self.problem = "It is too large to be shown."
            else:
                self.image, self.frame = kind in IMAGES, kind in PAGES
        elif kind == "parquet":
            self.table = parquet_rows(content)
        elif kind in _MARKDOWN | _JSON | _TEXTS | _TABLES.keys():
            self._show_text(content, kind)

    def _show_text(self, content: Content, kind: str) -> None:
        limit = LONGEST if kind in _MARKDOWN else _TEXT_BYTES if kind in _TEXTS else _PARSED_BYTES
        body, is_whole = content.read(limit)
        text = body.decode("utf-8-sig", "replace")
        self.is_cut = not is_whole
        if kind in _TABLES:
            self.table = text_rows(text, _TABLES[kind], is_whole=is_whole)
        if self.table:
            return
        if kind in _MARKDOWN:
            self.html = markdown_html(text)
        elif kind in _JSON and is_whole and (found := _parsed(text)) is not None:
            self.table = table_of_json(found)
            self._show_start("" if self.table else _indented(found))
        else:
            self._show_start(text)

    def _show_start(self, text: str) -> None:
        self.is_cut |= len(text) > _TEXT_BYTES
        self.text = text[:_TEXT_BYTES] or None


def _indented(found: Any) -> str:
    """JSON on lines, as much as is shown and a little more: nested deep, it is a thousand times as long as before."""
    parts, length = [], 0
    for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(found):
        parts.append(part)
        length += len(part)
        if length > _TEXT_BYTES:
            break
    return "".join(parts)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
