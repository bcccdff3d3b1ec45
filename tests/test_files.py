"""Files are written whole; a lock keeps others out and touches nothing but its own file."""

from __future__ import annotations

import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from alexnet_pl import files
from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs import gpu_locks


def test_a_folder_is_locked_once(tmp_path: Path):
    held = files.lock(tmp_path)
    assert held
    with pytest.raises(BlockingIOError):
        files.lock(tmp_path)
    held.close()
    again = files.lock(tmp_path)
    assert again
    again.close()


def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path):
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("precious")
    folder.mkdir()
    (folder / ".lock").symlink_to(victim)
    with pytest.raises(ConfigError, match=r"\.lock is a link"):
        files.lock(folder)
    assert victim.read_text() == "precious"


def test_a_lock_empties_no_file(tmp_path: Path):
    (tmp_path / ".lock").write_text("precious")
    held = files.lock(tmp_path)
    assert held
    held.close()
    assert (tmp_path / ".lock").read_text() == "precious"


def test_claims_of_gpus_lie_in_a_folder_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_locks.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with ExitStack() as held:
        assert gpu_locks.claim_gpus(1, held)
        (folder,) = tmp_path.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    moved = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(moved)
    with pytest.raises(ConfigError, match="not this user's own folder"):
        gpu_locks.claim_gpus(1, ExitStack())
