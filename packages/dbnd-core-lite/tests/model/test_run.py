"""A run, as user code sees it."""

from __future__ import annotations

from dbnd import dbnd_tracking


def test_its_address_goes_by_an_earlier_name_too(home, monkeypatch):
    monkeypatch.setenv("DBND__CORE__DATABAND_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "0")
    with dbnd_tracking("etl/daily #2") as run:
        assert run.place == run.address == f"http://127.0.0.1:9/app/jobs/etl%2Fdaily%20%232/{run.uid}"
