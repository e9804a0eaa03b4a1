from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from kit.clock import processor_time

from dbnd_tracker._access.places import Places, mlflow_server
from dbnd_tracker._api import artifacts as artifact_routes
from dbnd_tracker._content import mlflow_files, opened, previews
from dbnd_tracker._content.markdown import markdown_html
from dbnd_tracker._settings import TrackerSettings

SCRIPT = "<script>parent.hacked = 1</script>"


@pytest.fixture
def log(tracker: Any) -> Callable[..., str]:
    """Logs an artifact and returns the address of its page."""
    _, task = tracker.started()

    def make(name: str, place: object, link: str | None = None) -> str:
        tracker.call("log_artifact", {"task_run_attempt_uid": task.attempt, "name": name, "path": str(place)})
        if link:
            links = {"task_run_attempt_uid": task.attempt, "external_links_dict": {"mlflow": link}}
            tracker.call("save_external_links", links)
        return f"/app/artifacts/{task.uid}?name={quote(name, safe='')}"

    return make


def _file(page: str) -> str:
    return page.replace("?", "/file?")


def _problem(answer: Any) -> str:
    found = re.search(r'<p class="alert">([^<]*)</p>', answer.text)
    return found[1] if found else ""


def test_the_page_of_a_task_links_its_artifacts(tracker: Any, server: Any, tmp_path: Path) -> None:
    run, task = tracker.started()
    places = {
        "a & b.txt": tmp_path / "a.txt",
        "web": "https://example.com/x",
        "bucket": "s3://bucket/x",
        "bad": "javascript:x",
        "none": "file://[",
    }
    for name, place in places.items():
        tracker.call("log_artifact", {"task_run_attempt_uid": task.attempt, "name": name, "path": str(place)})
    for path in (f"/app/jobs/x/{run.uid}", f"/app/jobs/x/{run.uid}/{task.uid}"):
        page = server.get(path).text
        assert f'<a href="/app/artifacts/{task.uid}?name=a+%26+b.txt">a &amp; b.txt</a>' in page
        assert '<a href="https://example.com/x">web</a>' in page
        assert "<td>bucket</td>" in page
        assert "<td>bad</td>" in page
        assert "<td>none</td>" in page
    assert server.get(f"/app/artifacts/{task.uid}?name=none").status_code == 404


def test_images_among_artifacts_have_thumbnails_where_the_tracker_opens_them(
    tracker: Any, server: Any, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, task = tracker.started()
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    places = {"a & b": tmp_path / "a.png", "c.svg": "mlflow-artifacts:/0/c.svg", "far.png": "s3://bucket/far.png"}
    places |= {"web.png": "https://example.com/web.png", "notes.png": tmp_path / "notes.txt"}
    for name, place in places.items():
        tracker.call("log_artifact", {"task_run_attempt_uid": task.attempt, "name": name, "path": str(place)})
    path = f"/app/jobs/x/{run.uid}"
    images = [html.unescape(url) for url in re.findall('<img src="([^"]*)"[^>]* loading="lazy"', server.get(path).text)]
    assert images == [f"/app/artifacts/{task.uid}/file?name={name}&small=1" for name in ("a+%26+b", "c.svg")]
    assert server.get(images[0]).content == b"\x89PNG"
    assert server.get(images[0]).headers["Content-Type"] == "image/png"
    monkeypatch.setattr(artifact_routes, "_SMALL_BYTES", 3)
    assert server.get(images[0]).status_code == 413
    assert server.get(images[0].removesuffix("&small=1")).status_code == 200
    closed = serve(tracker.database, settings=TrackerSettings(artifact_places=[]))
    assert "<img" not in closed.get(path).text


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("notes.txt", "one <b>\n", "one &lt;b&gt;\n</pre>"),
        ("Dockerfile", "FROM x", "FROM x</pre>"),
        ("facts.json", '{"a":[1,NaN,"é"]}', "{\n  &#34;a&#34;: [\n    1,\n    NaN,\n    &#34;é&#34;\n  ]\n}</pre>"),
        ("broken.json", '{"a":', "{&#34;a&#34;:</pre>"),
        ("deep.json", "[" * 100_000, "[[[[</pre>"),
        ("table.json", '{"columns":["q","<a>"],"data":[["x",1]]}', "q|&lt;a&gt;||x|1"),
        ("rows.csv", '\ufeffa,b\n1,"x, <y>"\n', "a|b||1|x, &lt;y&gt;"),
        ("rows.tsv", "a;b\tc\n1\t2\n", "a;b|c||1|2"),
        ("one.csv", "x" * 200_000, "xxxx</pre>"),
        ("report.md", f"# A\n{SCRIPT}\n\n[l](javascript:x) ![i](http://x/y.png)", "<h1>A</h1>\n<p>&lt;script&gt;"),
        ("model.pkl", "\x80", "There is no way to show this kind"),
    ],
)  # fmt: skip
def test_what_is_known_by_its_name_is_shown(
    log: Any, server: Any, tmp_path: Path, name: str, text: str, shown: str
) -> None:
    (tmp_path / name).write_text(text)
    page = log(name, tmp_path / name)
    answer = server.get(page)
    assert answer.status_code == 200
    assert _problem(answer) == ""
    row = "</t[hd]></tr>(</thead>)?\n?(<tbody>)?<tr><t[hd][^>]*>"
    as_text = re.sub(r"</t[hd]><t[hd][^>]*>", "|", re.sub(row, "||", answer.text))
    assert shown in as_text
    assert "<script>parent" not in answer.text
    assert "javascript:" not in re.findall(r'href="([^"]*)"', answer.text)

    file = server.get(_file(page))
    assert file.content == (tmp_path / name).read_bytes()
    assert file.headers["Content-Type"] == "application/octet-stream"
    assert file.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{name}"
    assert file.headers["X-Content-Type-Options"] == "nosniff"


def test_json_nested_deep_is_not_written_out(log: Any, server: Any, tmp_path: Path) -> None:
    """Each of its values would stand behind a thousand blanks."""
    (tmp_path / "deep.json").write_text("[" * 400 + "1," * 100_000 + "1" + "]" * 400)
    answer = server.get(log("deep", tmp_path / "deep.json"))
    assert answer.status_code == 200
    assert len(answer.content) < 1_000_000
    assert "This is its beginning" in answer.text


def test_names_of_any_bytes_are_listed(log: Any, server: Any, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.txt")).write_text("x")
    (tmp_path / "\u3000\u200d.txt").write_text("wide blanks")
    (tmp_path / "link.txt").symlink_to(os.fsdecode(b"a\xff.txt"))
    page = log("folder", tmp_path)
    listed = server.get(page)
    assert (listed.status_code, ">a?.txt</a>" in listed.text) == (200, True)
    assert "wide blanks" in server.get(f"{page}&path={quote(chr(0x3000) + chr(0x200D))}.txt").text
    assert server.get(f"{_file(page)}&path=link.txt").content == b"x"
    assert server.get(f"{page}&path=a%ff.txt").status_code == 404


def test_parquet_is_a_table(log: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "_PARQUET_S", 200)  # on a busy machine
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    table = pa.table({"n": range(1000), "<b>": [None] * 1000})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=300)
    page = server.get(log("t.parquet", tmp_path / "t.parquet")).text
    assert "<td>199</td>" in page
    assert "<td>200</td>" not in page
    assert "&lt;b&gt;" in page
    assert "The first 200 of 1,000 rows, 2 of 2 columns." in page
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + b"\xff" * 1000 + b"PAR1")
    far = pa.table({"day": pa.array([10**7], pa.int32()).cast(pa.date32())})  # in the year 29349
    parquet.write_table(far, tmp_path / "far.parquet")
    for name in ("bad.parquet", "far.parquet"):
        assert "no table that can be read" in _problem(server.get(log(name, tmp_path / name)))
    one = pa.DictionaryArray.from_arrays([0] * 200, ["x" * 1_000_000])  # with 19 others, 4 GB in a few kilobytes
    parquet.write_table(pa.table({str(i): one for i in range(20)}), tmp_path / "large.parquet", store_schema=False)
    assert "too large to be shown" in _problem(server.get(log("large.parquet", tmp_path / "large.parquet")))


def test_nothing_of_an_artifact_runs_as_our_origin(log: Any, server: Any, tmp_path: Path) -> None:
    for name in ("page.html", "image.svg", "image.png"):
        (tmp_path / name).write_text(f"<svg xmlns='http://www.w3.org/2000/svg'>{SCRIPT}</svg>")
    types = {"page.html": "text/html; charset=utf-8", "image.svg": "image/svg+xml", "image.png": "image/png"}
    for name, media_type in types.items():
        page = log(name, tmp_path / name)
        for options in ("", "&scripts=1"):
            shown = server.get(page + options)
            assert "hacked" not in shown.text
            assert shown.headers["Content-Security-Policy"].endswith("; frame-src 'self'")
            assert "unsafe" not in shown.headers["Content-Security-Policy"]
            answer = server.get(_file(page) + options)
            policy = answer.headers["Content-Security-Policy"]
            runs = name == "page.html" and bool(options)
            assert policy.startswith(
                "sandbox allow-scripts; default-src 'none'" if runs else "sandbox; default-src 'none'"
            )
            assert ("script-src" in policy) is runs
            assert "allow-same-origin" not in policy
            assert answer.headers["Content-Type"] == media_type
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    url = log("page.html", tmp_path / "page.html")
    for kind, runs in (("iframe", True), ("document", False)):  # which may lead its visitor anywhere
        policy = server.get(f"{_file(url)}&scripts=1", headers={"Sec-Fetch-Dest": kind}).headers[
            "Content-Security-Policy"
        ]
        assert ("allow-scripts" in policy) is runs
    page = server.get(url).text
    assert re.search(r'<iframe [^>]*sandbox=""', page)
    # What browsers have already is asked for again with the same policy.
    first = server.get(log("notes.txt", __file__))
    again = server.get(log("notes.txt", __file__), headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.headers["Content-Security-Policy"] == first.headers["Content-Security-Policy"]


def test_folders_are_listed_and_their_files_open(log: Any, server: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a model"
    (folder / "in & out").mkdir(parents=True)
    (folder / "in & out" / "100%.txt").write_text("the text")
    (folder / "MLmodel").write_text("flavors: {}")
    for place in (folder, folder.as_uri()):
        page = log("model", place)
        links = [link.replace("&amp;", "&") for link in re.findall(r'data-open href="([^"]*)"', server.get(page).text)]
        assert [parse_qs(urlsplit(link).query)["path"] for link in links] == [["in & out"], ["MLmodel"]]
        below = re.findall(r'data-open href="([^"]*)"', server.get(links[0]).text)
        file = below[0].replace("&amp;", "&")
        assert "the text</pre>" in server.get(file).text
        assert server.get(_file(file)).text == "the text"
        assert server.get(_file(page)).status_code == 400


@pytest.mark.parametrize(
    "path", ["../secret", "sub/../../secret", "/../secret", "..", "sub/..", "./..", "a\\..\\b", "x\1y", "%2e%2e/secret"]
)
def test_no_path_leads_out_of_the_place(log: Any, server: Any, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("the secret")
    (tmp_path / "named" / "sub").mkdir(parents=True)
    page = log("named", tmp_path / "named")
    for address in (page, _file(page)):
        answer = server.get(f"{address}&path={quote(path)}")
        assert answer.status_code == 404
        assert "the secret" not in answer.text


def test_no_link_leads_out_of_the_place(log: Any, server: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "one").write_text("the secret")
    named = tmp_path / "named"
    named.mkdir()
    (named / "file.txt").symlink_to(tmp_path / "secret")
    (named / "folder").symlink_to(tmp_path / "secrets")
    (named / "circle").symlink_to(named / "circle")
    (named / "best.txt").symlink_to("epoch.txt")
    (named / "epoch.txt").write_text("the best")

    page = log("named", named)
    for path, status in (("file.txt", 403), ("folder", 403), ("folder/one", 403), ("circle", 404)):
        answer = server.get(f"{_file(page)}&path={path}")
        assert (path, answer.status_code) == (path, status)
        assert "the secret" not in answer.text
    assert server.get(_file(log("itself", named / "file.txt"))).status_code == 403
    # Links that stay are followed: a checkpoint that is called the best, and a home that stands elsewhere.
    assert server.get(f"{_file(page)}&path=best.txt").text == "the best"
    assert server.get(_file(log("best", named / "best.txt"))).text == "the best"
    (tmp_path / "home").symlink_to(named)
    assert server.get(_file(log("moved", tmp_path / "home" / "epoch.txt"))).text == "the best"


def test_pipes_devices_and_what_grows_keep_nobody_waiting(log: Any, server: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "there").mkdir()
    for name, place in (("pipe", tmp_path / "pipe.txt"), ("null", "/dev/null"), ("zero", "/dev/zero")):
        answer = server.get(log(name, place))
        assert answer.status_code == 403
        assert _problem(answer) == "It is neither a file nor a folder."
        assert server.get(_file(log(name, place))).status_code == 403
    # What has no length of its own, such as what the kernel says of processes, is empty.
    assert server.get(_file(log("environ", "/proc/self/environ"))).content == b""
    assert server.get(log("gone", tmp_path / "gone")).status_code == 404
    assert server.get(log("relative", "a/b.txt")).status_code == 404


def test_a_huge_file_is_not_read(log: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("huge.txt", "huge.png", "huge.parquet", "huge.bin"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(opened.MOST_BYTES + 1)  # a hole, which takes no space
        page = log(name, tmp_path / name)
        assert "larger than 1 GiB" in _problem(server.get(page))
        assert server.get(_file(page)).status_code == 413
    (tmp_path / "long.txt").write_text("x" * 1_000_000)
    page = server.get(log("long.txt", tmp_path / "long.txt")).text
    assert len(page) < 300_000
    assert "This is its beginning" in page
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(1 << 26)
    assert _problem(server.get(log("large.png", tmp_path / "large.png"))) == "It is too large to be shown."
    got = server.get(_file(log("large.png", tmp_path / "large.png")), stream=True)
    assert got.headers["Content-Length"] == str(1 << 26)
    assert sum(len(chunk) for chunk in got.iter_content(1 << 20)) == 1 << 26


def test_where_others_may_name_places_the_tracker_opens_what_it_is_told_to(
    log: Any, tracker: Any, serve: Any, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.txt").write_text("text")
    (tmp_path / "open" / "out").symlink_to(tmp_path)
    (tmp_path / "secret.txt").write_text("the secret")
    inside, outside = log("a", tmp_path / "open" / "a.txt"), log("secret", tmp_path / "secret.txt")
    missing, around = log("missing", tmp_path / "none.txt"), log("around", tmp_path / "open" / ".." / "secret.txt")
    linked = log("linked", tmp_path / "open" / "out" / "secret.txt")
    token = {"Authorization": "Bearer s"}

    closed = serve(tracker.database, token="s")
    assert closed.get(inside).status_code == 401
    assert closed.get(inside, headers=token).status_code == 403
    places = TrackerSettings(artifact_places=[str(tmp_path / "open")])
    for server in (serve(tracker.database, token="s", settings=places), serve(tracker.database, settings=places)):
        assert server.get(_file(inside), headers=token).text == "text"
        for page in (outside, around, linked):
            assert server.get(_file(page), headers=token).status_code == 403
        # Nobody learns which files there are elsewhere.
        answer = server.get(missing, headers=token)
        assert answer.status_code == 403
        assert f"tracker.artifact_places = [&#34;{tmp_path}&#34;]" in _problem(answer)
    nothing = serve(tracker.database, settings=TrackerSettings(artifact_places=[]))
    assert nothing.get(inside).status_code == 403


@pytest.mark.skipif(os.getuid() != 0 or not Path("/proc/net/tcp").exists(), reason="only root can be somebody else")
def test_another_user_of_the_machine_opens_nothing(log: Any, server: Any, tmp_path: Path) -> None:
    page = log("a", __file__)
    code = """import os, socket, sys
os.setuid(int(sys.argv[1]))
with socket.socket() as connection:
    connection.connect(("127.0.0.1", int(sys.argv[2])))
    connection.sendall(f"GET {sys.argv[3]} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n".encode("ascii"))
    print(connection.recv(12).decode("ascii"))
"""
    port = server.url.rpartition(":")[2]
    for user, status in (("65534", "403"), ("0", "200")):
        for address in (page, _file(page)):
            command = [sys.executable, "-I", "-S", "-c", code, user, port, address]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert done.stdout.split() == ["HTTP/1.1", status]


class _Store(BaseHTTPRequestHandler):
    """An MLflow server's artifacts, and some ways not to be one."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []
    released = threading.Event()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.asked.append(self.path)
        path = parts.path.partition("/api/2.0/mlflow-artifacts/artifacts")[2]
        if "moved" in self.path:
            self._answer(302, b"", Location=f"http://{self.headers['Host']}/elsewhere")
        elif "silent" in self.path:
            self.released.wait(60)
        elif "dripping" in self.path:
            self._drip()
        elif "endless" in path:
            self._answer(200, None)
        elif "short" in path:
            self._answer(200, b"x" * 10, **{"Content-Length": "1000"})
        elif parts.query:
            folder = parse_qs(parts.query)["path"][0]
            names = [name for name in self.files if name.startswith(f"{folder}/")]
            files = [{"path": n[len(folder) + 1 :], "is_dir": False, "file_size": len(self.files[n])} for n in names]
            self._answer(200, json.dumps({"files": files}).encode())
        elif (name := path.lstrip("/").replace("%20", " ")) in self.files:
            self._answer(200, self.files[name])
        else:
            self._answer(404, b"{}")

    def _answer(self, status: int, body: bytes | None, **headers: str) -> None:
        self.send_response(status)
        if body is not None:
            headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body is not None:
            self.wfile.write(body)
            return
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            pass

    def _drip(self) -> None:
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
            while not self.released.wait(0.05):
                self.wfile.write(b"x")
        except OSError:
            pass

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def store() -> Iterator[str]:
    _Store.files, _Store.asked, _Store.released = {}, [], threading.Event()
    made = ThreadingHTTPServer(("127.0.0.1", 0), _Store)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    _Store.released.set()
    made.shutdown()
    thread.join()
    made.server_close()


RUN = "0/" + "a" * 32


def test_artifacts_come_through_the_mlflow_server_of_the_run(log: Any, server: Any, store: str) -> None:
    _Store.files = {f"{RUN}/artifacts/notes 1.txt": b"the notes", f"{RUN}/artifacts/b.png": b"png"}
    link = f"{store}/#/experiments/{RUN.replace('/', '/runs/')}"
    page = log("notes", f"mlflow-artifacts:/{RUN}/artifacts/notes 1.txt", link)
    assert "the notes</pre>" in server.get(page).text
    assert server.get(_file(page)).content == b"the notes"
    folder = server.get(log("artifacts", f"mlflow-artifacts:/{RUN}/artifacts")).text
    assert re.findall(r'data-open href="[^"]*">([^<]*)<', folder) == ["b.png", "notes 1.txt"]
    inside = f"{_file(log('artifacts', f'mlflow-artifacts:/{RUN}/artifacts'))}&path=b.png"
    assert (server.get(inside).content, server.get(inside).headers["Content-Type"]) == (b"png", "image/png")
    named = f"mlflow-artifacts://{urlsplit(store).netloc}/{RUN}/artifacts/b.png"
    http = f"{store}/api/2.0/mlflow-artifacts/artifacts/{RUN}/artifacts/b.png"
    for place in (named, http):
        assert server.get(_file(log("b.png", place))).content == b"png"
    gone = server.get(log("gone", f"mlflow-artifacts:/{RUN}/artifacts/gone.txt"))
    assert gone.status_code == 404
    assert "does not have it" in _problem(gone)


@pytest.mark.parametrize("path", ["..", "../../x", f"{RUN}/../../x", "a\\b", "x%0d%0ay", "x\r\nHost: y"])
def test_no_place_leads_out_of_an_mlflow_servers_artifacts(log: Any, server: Any, store: str, path: str) -> None:
    page = log("x", f"mlflow-artifacts:/{path}", f"{store}/#/")
    assert server.get(page).status_code in {403, 404}
    assert all(
        asked.startswith("/api/2.0/mlflow-artifacts/artifacts?path=x%250d%250ay") or "%250d" in asked
        for asked in _Store.asked
    )
    server.get(f"{log('y', 'mlflow-artifacts:/a', f'{store}/#/')}&path={quote(path)}")
    assert not any(".." in asked or "\\" in asked for asked in _Store.asked)


def test_only_servers_that_are_allowed_are_asked(log: Any, tracker: Any, serve: Any, store: str) -> None:
    _Store.files = {f"{RUN}/a.txt": b"text"}
    page = log("a.txt", f"mlflow-artifacts:/{RUN}/a.txt", f"{store}/#/x")
    other = log("b.txt", "mlflow-artifacts://169.254.169.254/latest/b.txt")
    web = log("c.txt", "http://192.0.2.1/api/2.0/mlflow-artifacts/artifacts/c.txt")
    own = serve(tracker.database)
    for address in (other, web):
        assert "does not ask the MLflow server" in _problem(own.get(address))
    elsewhere = serve(tracker.database, settings=TrackerSettings(artifact_places=["http://mlflow.invalid:5000"]))
    guarded = serve(tracker.database, token="s")
    for server in (elsewhere, guarded):
        answer = server.get(page, headers={"Authorization": "Bearer s"})
        assert answer.status_code == 403
        assert f"tracker.artifact_places = [&#34;{store}&#34;]" in _problem(answer)
    assert _Store.asked == []
    allowed = serve(tracker.database, token="s", settings=TrackerSettings(artifact_places=[store]))
    assert "text</pre>" in allowed.get(page, headers={"Authorization": "Bearer s"}).text


def test_an_mlflow_server_that_sends_elsewhere_is_not_followed(log: Any, server: Any, store: str) -> None:
    answer = server.get(log("x", "mlflow-artifacts:/moved", f"{store}/#/"))
    assert answer.status_code == 502
    assert "sends elsewhere" in _problem(answer)
    assert not any("elsewhere" in asked for asked in _Store.asked)


@pytest.mark.parametrize("name", ["silent", "dripping"])
def test_an_mlflow_server_that_is_slow_is_left(
    log: Any, server: Any, store: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(mlflow_files, "_SILENCE_S", 0.3)
    monkeypatch.setattr(mlflow_files, "_ANSWER_S", 1.0)
    answers = []
    page = log("x", f"mlflow-artifacts:/{name}", f"{store}/#/")
    threads = [threading.Thread(target=lambda: answers.append(server.get(page).status_code)) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert server.get("/").status_code == 200  # nobody else waits for it
    for thread in threads:
        thread.join()
    assert answers == [502] * 6


def test_an_mlflow_server_is_read_no_further_than_is_handed_on(
    log: Any, server: Any, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Store.files = {}
    link = f"{store}/#/"
    page = log("endless.txt", "mlflow-artifacts:/endless.txt", link)
    assert "This is its beginning" in server.get(page).text
    monkeypatch.setattr(opened, "MOST_BYTES", 1 << 22)
    with pytest.raises(Exception, match=r"[Ii]ncomplete|ended prematurely|broken"):
        len(server.get(_file(page)).content)
    with pytest.raises(Exception, match=r"[Ii]ncomplete|ended prematurely|broken"):
        len(server.get(_file(log("short.bin", "mlflow-artifacts:/short.bin", link))).content)
    assert server.get("/healthz").status_code == 200


def test_a_client_that_goes_leaves_nothing_open(log: Any, server: Any, tmp_path: Path) -> None:
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(1 << 28)
    for _ in range(3):
        got = server.get(_file(log("large.bin", tmp_path / "large.bin")), stream=True)
        next(got.iter_content(1))
        got.close()
    fds = Path("/proc/self/fd")
    if not fds.exists():
        pytest.skip("this system does not say which files are open")
    deadline = time.monotonic() + 30
    while any(fd.readlink().name == "large.bin" for fd in fds.iterdir() if fd.is_symlink()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://mlflow:5000/#/experiments/1", "http://mlflow:5000"),
        ("https://user:pw@Host/prefix/#/x", "https://host/prefix"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("ftp://x", None), ("http://[", None), ("http://x:99999", None), ("javascript:x", None), ("", None),
    ],
)  # fmt: skip
def test_the_address_of_a_server(url: str, found: str | None) -> None:
    server = mlflow_server(url)
    assert (server and str(server)) == found


@pytest.mark.parametrize(
    ("allowed", "asked", "is_asked"),
    [
        ("http://mlflow", "http://mlflow:80/#/x", True),
        ("http://mlflow", "https://mlflow/", False),
        ("http://mlflow", "http://mlflow.evil/", False),
        ("http://mlflow", "http://mlflow@evil/", False),
        ("http://mlflow/a", "http://mlflow/a/#/x", True),
        ("http://mlflow/a", "http://mlflow/ab/#/x", False),
        ("http://mlflow/a", "http://mlflow/", False),
    ],
)
def test_which_servers_are_allowed(allowed: str, asked: str, is_asked: bool) -> None:
    places = Places(TrackerSettings(artifact_places=[allowed]), guarded=True)
    assert (places.server_of([asked]) is not None) is is_asked


def test_a_place_that_is_none_is_refused_in_one_sentence() -> None:
    with pytest.raises(
        ValueError, match="'data' is neither the absolute path of a folder nor the address of an MLflow"
    ):
        TrackerSettings(artifact_places=["data"])


@pytest.mark.parametrize("text", ["[" * 10_000, "> " * 5_000 + "x", "*a " * 10_000, "`" * 10_000, "|" * 10_000])
def test_hostile_markdown_does_not_take_long(text: str) -> None:
    assert processor_time(lambda: markdown_html(text)) < 10
    assert len(markdown_html(text * 200)) < 2_000_000
