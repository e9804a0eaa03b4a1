"""A package of somebody else extends dbnd by what is public, as the documentation shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs/how-to/write-a-plugin.md"


def test_the_transport_of_the_documentation_carries_a_run(cold_python, cold_dbnd, tmp_path):
    site, events = tmp_path / "site", tmp_path / "events.ndjson"
    (site / "greeter").mkdir(parents=True)
    greeting, transport = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (site / "greeter/plugin.py").write_text(f"{greeting}\n\n{transport}")
    info = site / "greeter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
        .replace("project.entry-points.", "")
        .replace('"', "")
    )
    env = {"PYTHONPATH": str(site), "DBND__CORE__DATABAND_URL": f"ndjson://{events}"}

    listed = cold_dbnd("plugins", **env)
    assert re.search("greeter.*1.0.*dbnd_on_new_context, dbnd_transports", listed.stdout), listed.stdout
    code = "from dbnd import dbnd_tracking, log_metric\nwith dbnd_tracking('job'): log_metric('a', 1)"
    done = cold_python(code, **env)

    assert done.stdout == f"tracking to ndjson://{events}\n", done.stderr
    calls = [call for call, _ in map(json.loads, events.read_text().splitlines())]
    assert calls[0] == "init_run"
    assert calls[-1] == "set_run_state"
    assert "log_metrics" in calls
