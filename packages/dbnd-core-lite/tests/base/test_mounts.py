"""Which file systems machines share, and what is not put on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbnd._base import mounts
from dbnd._base.mounts import network_file_system
from dbnd._base.paths import journal_folder
from dbnd._context.registry import create_transport, load_config
from dbnd._journal.leftovers import find
from dbnd._run.sync import Sync
from dbnd.tracking import Outbox, UnreachableError


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Folders that are said to be on file systems of certain kinds."""

    def mount(**kinds):
        lines = ["1 1 8:1 / / rw - ext4 /dev/root rw"]
        for name, kind in kinds.items():
            point = str(tmp_path / name.replace("_", " ")).replace(" ", r"\040")
            lines.append(f"2 1 0:1 / {point} rw,nosuid shared:7 - {kind} server:/x rw")
        tmp_path.joinpath("mountinfo").write_text("\n".join(lines) + "\n")
        monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mountinfo")

    return mount


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "9p", "fuse.sshfs"])
def test_a_network_file_system_is_named(mounted, tmp_path, kind):
    mounted(shared_disk=kind)
    assert network_file_system(tmp_path / "shared disk") == kind
    assert network_file_system(tmp_path / "shared disk/not/there") == kind
    assert network_file_system(tmp_path / "shared disks") is None


def test_the_innermost_mount_counts(mounted, tmp_path):
    mounted(a="nfs4", **{"a/scratch": "xfs"})
    assert network_file_system(tmp_path / "a/b") == "nfs4"
    assert network_file_system(tmp_path / "a/scratch/b") is None
    tmp_path.joinpath("link").symlink_to(tmp_path / "a")
    assert network_file_system(tmp_path / "link/b") == "nfs4"


def test_where_mounts_are_not_listed_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(mounts, "MOUNTS", Path("/not/there"))
    assert network_file_system(tmp_path) is None


def test_what_is_for_a_file_on_a_network_file_system_is_kept_and_goes_to_the_configured_tracker(
    mounted, tmp_path, server
):
    mounted(shared="nfs4")
    url = f"sqlite:///{tmp_path}/shared/tracker.db"
    config = load_config(conf={"core.databand_url": url})
    with pytest.raises(UnreachableError, match="it is on nfs4, and SQLite is not safe"):
        create_transport(url, config).check()
    outbox = Outbox(url, config, create_transport)
    outbox.keep("set_run_state", {})
    assert "it is on nfs4" in outbox.close(5)
    assert not Path(tmp_path, "shared").exists()

    report = Sync(journal_folder(), config).deliver(patience=5)
    assert "it is on nfs4" in report.unreachable[f"the tracker {url}"]
    there = load_config(conf={"core": {"databand_url": server.url, "databand_access_token": "t"}})
    assert Sync(journal_folder(), there).deliver(patience=5).is_complete
    assert server.calls() == ["set_run_state"]
    assert find(journal_folder()) == []
