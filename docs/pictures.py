"""Makes the pictures of the documentation from real runs: ``nox -s pictures``.

It runs the examples in an empty home, in a real terminal of 110 columns, serves what was tracked, and takes pictures of
the terminal's last screen and of the web page with Chromium.
"""

from __future__ import annotations

import html
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pyte
from playwright.sync_api import Browser, sync_playwright
from ptyprocess import PtyProcess

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.servers import free_port, server_process

PICTURES: Final = Path(__file__).parent / "pictures"
_COLUMNS: Final = 110
_SWITCH: Final = ["--set-config", "mlflow_tracking.databand_tracking=True"]
_FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
_COLOURS: Final = {
    "default": "#d8dee9", "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff",
    "magenta": "#d2a8ff", "cyan": "#76e3ea", "white": "#f0f6fc", "black": "#6e7681",
}  # fmt: skip


def main() -> None:
    """Make every picture anew."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("The pictures are taken with Chromium, and there is none: install your system's package chromium.")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ada-") as home, sync_playwright() as playwright:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("DBND", "MLFLOW", "CI"))}
        env |= {"HOME": home, "DBND_HOME": f"{home}/dbnd", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        env |= {"PYTHONWARNINGS": "ignore", "USER": "ada", "LOGNAME": "ada", "DBND_USER": "ada"}
        # Runs show the command line: it is to name this home, and not the folder of whoever makes the pictures.
        (Path(home) / "bin").mkdir()
        (Path(home) / "bin/dbnd").symlink_to(Path(sysconfig.get_path("scripts")) / "dbnd")
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        for rate in ("0.05", "0.1", "0.2"):
            _screen(["run", "task_with_mflow", "--epochs", "60", "--learning-rate", rate, *_SWITCH], home, env)
        _screen(["run", "sklearn_autolog_example", *_SWITCH], home, env)
        _terminal(browser, "run", ["run", "task_with_mflow", "--epochs", "60", *_SWITCH], home, env)
        _terminal(browser, "runs", ["runs", "list"], home, env)
        _screen(["mlflow", "verify", "--record"], home, env)
        with _tracker(home, env) as url:
            _pages(browser, url, env)
        browser.close()


def _command(*args: str) -> list[str]:
    return [str(Path(sysconfig.get_path("scripts")) / "dbnd"), *args]


def _screen(args: list[str], home: str, env: dict[str, str]) -> pyte.Screen:
    """What a terminal shows when the command has ended."""
    screen = pyte.Screen(_COLUMNS, 200)
    stream = pyte.ByteStream(screen)
    process = PtyProcess.spawn([f"{home}/bin/dbnd", *args], cwd=home, env=env, dimensions=(50, _COLUMNS))
    while True:
        try:
            stream.feed(process.read(65536))
        except EOFError:
            break
    process.wait()
    if process.exitstatus:
        text = "\n".join(line.rstrip() for line in screen.display).strip()
        sys.exit(f"dbnd {' '.join(args)} has ended with {process.exitstatus}:\n{text}")
    return screen


def _terminal(browser: Browser, name: str, args: list[str], home: str, env: dict[str, str]) -> None:
    screen = _screen(args, home, env)
    rows = [number for number, line in enumerate(screen.display) if line.strip()]
    lines = [f"<b>$ dbnd {html.escape(' '.join(args))}</b>"]
    lines += ["".join(_spans(screen.buffer[number])) for number in range(rows[-1] + 1)]
    page = browser.new_page(viewport={"width": 1100, "height": 200}, device_scale_factor=2)
    page.set_content(
        "<style>body{margin:0;background:#0d1117;color:#d8dee9}"
        "pre{font:14px/1.35 'DejaVu Sans Mono',monospace;margin:0;padding:16px 20px;display:inline-block}</style>"
        f"<pre>{chr(10).join(lines)}</pre>"
    )
    page.locator("pre").screenshot(path=PICTURES / f"terminal-{name}.png")
    page.close()


def _spans(row: dict[int, pyte.screens.Char]) -> Iterator[str]:
    for column in range(_COLUMNS):
        char = row[column]
        colour = _COLOURS.get(char.fg.removeprefix("bright"), f"#{char.fg}")
        style = f"color:{colour};" + ("font-weight:bold" if char.bold else "")
        yield f'<span style="{style}">{html.escape(char.data)}</span>'


def _tracker(home: str, env: dict[str, str]) -> AbstractContextManager[str]:
    port = free_port()
    command = _command("tracker", "start", "--port", str(port))
    return server_process(command, f"http://127.0.0.1:{port}", "/api/v1/auth/ping", Path(home), env)


def _pages(browser: Browser, url: str, env: dict[str, str]) -> None:
    done = subprocess.run(_command("runs", "list", "--json"), env=env, capture_output=True, text=True, check=True)
    runs = json.loads(done.stdout)
    examples = [run for run in runs if run["job_name"] == "task_with_mflow"]
    nested = next(run for run in runs if run["job_name"] == "train_wine_classifier")
    compared = "&".join(f"run={run['run_uid']}" for run in examples)
    addresses = {
        "runs": "/",
        "run": f"/app/jobs/{examples[0]['job_name']}/{examples[0]['run_uid']}",
        "tasks": f"/app/jobs/{nested['job_name']}/{nested['run_uid']}",
        "compare": f"/app/compare?{compared}",
        "charts": f"/app/jobs/{examples[0]['job_name']}?charts=beside",
        "overview": "/app/jobs",
    }
    for scheme, mark in (("light", ""), ("dark", "-dark")):
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
        for name, address in addresses.items():
            page.goto(url + address)
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(500)  # charts draw once more when their fonts are there
            page.screenshot(path=PICTURES / f"page-{name}{mark}.png")
        page.close()


if __name__ == "__main__":
    main()
