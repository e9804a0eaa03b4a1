"""What holds for the repository as a whole."""

from __future__ import annotations

import ast
import re
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))


def metadata(package):
    return (package / "pyproject.toml").read_text()


def test_the_packages_are_those_of_the_design():
    assert [p.name for p in PACKAGES] == ["databand", "dbnd-core-lite", "dbnd-examples", "dbnd-mlflow", "dbnd-tracker"]


def test_one_version_for_all():
    versions = {
        package.name: re.search(r'^version = "(.+)"$', metadata(package), re.MULTILINE)[1] for package in PACKAGES
    }
    (one,) = set(versions.values())
    pins = {
        pin
        for package in PACKAGES
        for pin in re.findall(r'"(?:dbnd-[\w-]+|databand\[[\w,]+\])==([^"]+)"', metadata(package))
    }
    assert pins == {one}
    sources = [path for path in ROOT.glob("packages/*/src/*/__init__.py") if "__version__" in path.read_text()]
    assert len(sources) == 4
    for source in sources:
        assert f'__version__ = "{one}"' in source.read_text(), source
    for name in versions:
        assert version(name) == one
    assert f"## {one}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_each_package_is_complete(package):
    text = metadata(package)
    assert f'name = "{package.name}"' in text
    assert 'license = "Apache-2.0"' in text
    assert 'requires-python = ">=3.10"' in text
    assert (package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert len((package / "README.md").read_text()) > 200
    for source in package.glob("src/*"):
        assert (source / "py.typed").exists()


def test_every_command_hook_and_key_is_documented():
    from dbnd._context import hooks as hooks
    from dbnd._context.plugins import plugins

    text = "".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("packages/*/README.md")])
    for found in plugins().call("dbnd_commands"):
        for command in found:
            assert f"dbnd {command.name}" in text, command.name
    tree = ast.parse(Path(hooks.__file__).read_text())
    for function in [node for node in tree.body if isinstance(node, ast.FunctionDef)]:
        arguments = ", ".join(argument.arg for argument in function.args.args)
        assert f"`{function.name}({arguments})`" in text, function.name
    for found in plugins().call("dbnd_settings"):
        for section in found:
            for key in section.model_fields:
                assert f"`{section.section}.{key}`" in text, f"{section.section}.{key}"


def test_docstrings_stand_on_every_public_name_of_the_packages():
    missing = []
    for path in ROOT.glob("packages/*/src/**/*.py"):
        tree = ast.parse(path.read_text())
        if path.name != "__init__.py" and ast.get_docstring(tree) is None:
            missing.append(str(path.relative_to(ROOT)))
    assert missing == []


def test_what_contributing_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (table,) = re.findall(r"^\| I want to.*?\n\n", text, re.MULTILINE | re.DOTALL)
    sources = {
        "core": ROOT / "packages/dbnd-core-lite/src/dbnd",
        "tracker": ROOT / "packages/dbnd-tracker/src/dbnd_tracker",
        "mlflow": ROOT / "packages/dbnd-mlflow/src/dbnd_mlflow",
    }
    rows = [row.split(" | ") for row in table.strip().splitlines()[2:]]
    assert len(rows) >= 20
    for _, places, tests in rows:
        for name in re.findall(r"`(\w+)/([\w./]*)`", places):
            folder = sources.get(name[0])
            assert folder is None or (folder / name[1]).exists(), name
        for name in re.findall(r"`([\w/]+\.py|[\w/]+/)`", tests):
            folders = [ROOT, *ROOT.glob("packages/*/tests")]
            assert any((folder / name).exists() for folder in folders), name
