"""What is public: names that other packages may rely on."""

from __future__ import annotations

import types

import pytest

import dbnd
import dbnd.plugins
import dbnd.tracking


@pytest.mark.parametrize("module", [dbnd, dbnd.tracking, dbnd.plugins])
def test_all_that_is_public_is_listed_and_there(module):
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("module", [dbnd.tracking, dbnd.plugins])
def test_nothing_is_public_that_is_not_listed(module):
    found = {name for name, value in vars(module).items() if not (name.startswith("_") or name == "annotations")}
    modules = {name for name in found if isinstance(vars(module)[name], types.ModuleType)}
    assert found - set(module.__all__) - modules == set()
