"""A forked child of a process whose other threads are busy."""

from __future__ import annotations

import os
import sys
import threading
from types import SimpleNamespace

import pytest
from kit.progress import wait_until

import dbnd._base.forks  # noqa: F401  what it registers is tested

SLOW = """
import builtins, time
builtins.slow.is_importing = True
while not builtins.slow.is_over:
    time.sleep(0.01)
value = 3
"""


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_imports_what_a_thread_of_its_parent_was_importing(tmp_path, monkeypatch):
    (tmp_path / "slowly_imported.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    slow = SimpleNamespace(is_importing=False, is_over=False)
    monkeypatch.setattr("builtins.slow", slow, raising=False)
    thread = threading.Thread(target=__import__, args=["slowly_imported"])
    thread.start()
    wait_until(lambda: slow.is_importing, lambda: "the thread does not import")
    child = os.fork()
    if not child:
        threading.Timer(60, os._exit, [1]).start()
        slow.is_over = True
        import slowly_imported

        os._exit(0 if slowly_imported.value == 3 else 2)
    _, status = os.waitpid(child, 0)
    slow.is_over = True
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
    assert sys.modules.pop("slowly_imported").value == 3
