"""Files are written whole; a lock keeps others out and touches nothing but its own file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from socket import AF_UNIX, socket

import pytest

from alexnet_pl import compose, files
from alexnet_pl.errors import ConfigError
from alexnet_pl.evaluate.settings import Settings, find_members
from alexnet_pl.jobs import checks, gpu_locks
from alexnet_pl.model.weights import read_weights
from alexnet_pl.runs.run import Run, find_checkpoint
from alexnet_pl.runs.sweep import record_sweep
from tests.helpers.fuzz import STRANGE
from tests.helpers.reports import settings


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


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: socket(AF_UNIX).bind(str(path))])
def test_a_lock_that_is_no_file_is_named(
    make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    make(Path(".lock"))
    with pytest.raises(ConfigError, match=r"\.lock is a (folder|pipe or device|socket), and must be a file"):
        files.lock(tmp_path)


def test_only_what_a_killed_writer_left_is_swept_up(tmp_path: Path):
    """A user's own file may end with .tmp as well."""
    for name in ("plan.json.123.tmp", "mine.tmp", "draft.1.tmp.txt", "v2.tmp"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.7.tmp").mkdir()
    files.sweep_up(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draft.1.tmp.txt", "folder.7.tmp", "mine.tmp", "v2.tmp"]


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


def test_a_claim_follows_no_link_and_trusts_no_folder_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_locks.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    folder, victim = tmp_path / f"alexnet_pl-{os.getuid()}", tmp_path / "victim"
    victim.write_text("precious")
    for build in (
        lambda: folder.symlink_to(tmp_path / "nowhere"),
        lambda: folder.symlink_to(victim),
        lambda: folder.write_text("a file"),
        lambda: (folder.mkdir(), folder.chmod(0o777)),
    ):
        build()
        with pytest.raises(ConfigError, match="not this user's own folder"):
            gpu_locks.claim_gpus(1, ExitStack())
        folder.rmdir() if folder.is_dir() and not folder.is_symlink() else folder.unlink()
    (folder / "gpu-0").mkdir(parents=True)
    folder.chmod(0o700)
    (folder / "gpu-0" / ".lock").symlink_to(victim)
    with pytest.raises(ConfigError, match=r"\.lock is a link"):
        gpu_locks.claim_gpus(1, ExitStack())
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("number", sorted(set(files.NO_LOCKS)), ids=os.strerror)
def test_a_file_system_without_locks_has_none(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No folder is refused; jobs of one process still have GPUs of their own."""

    def flock(file: object, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    monkeypatch.setattr(gpu_locks.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a/1/0,3")
    assert files.lock(tmp_path) is None
    record_sweep(tmp_path / "sweep", {"a": ["x=1"]})
    Run(tmp_path / "run").start(settings(), [])
    with ExitStack() as first, ExitStack() as second:
        assert gpu_locks.claim_gpus(1, first) == {"CUDA_VISIBLE_DEVICES": "MIG-a/1/0"}
        assert gpu_locks.claim_gpus(1, second) == {"CUDA_VISIBLE_DEVICES": "3"}
        first.close()
        assert gpu_locks.claim_gpus(1, first) == {"CUDA_VISIBLE_DEVICES": "MIG-a/1/0"}


def test_another_fault_of_a_lock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def flock(file: object, how: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"):
        files.lock(tmp_path)


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_json_is_damaged(kind: str, tmp_path: Path):
    STRANGE[kind](tmp_path / "a.json")
    with pytest.raises(ConfigError, match=r"a\.json is damaged: .*; do this"):
        files.read_json(tmp_path / "a.json", advice="do this")


def test_json_of_another_shape_is_damaged(tmp_path: Path):
    shape = {"id": str, "words": [str], "git": {"commit": str}}

    def read(text: str) -> str:
        (tmp_path / "a.json").write_text(text)
        try:
            files.read_json(tmp_path / "a.json", shape, needs="id")
        except ConfigError as error:
            return str(error)
        return ""

    assert read('{"id": "a", "words": ["b"], "git": {"commit": "c", "more": 1}, "other": 2}') == ""
    assert read('{"id": "a"}') == ""
    assert "it has no id" in read("{}")
    assert "id should be a str and is a int" in read('{"id": 5}')
    assert "words should be a list and is a str" in read('{"id": "", "words": "abc"}')
    assert "words.1 should be a str and is nothing" in read('{"id": "", "words": ["a", null]}')
    assert "git.commit should be a str and is a list" in read('{"id": "", "git": {"commit": []}}')
    assert files.read_json(tmp_path / "none.json", shape, needs="id") == {}


def test_a_full_disk_names_the_file(tmp_path: Path):
    """Whatever a library makes of it, and whether the system's word for it names a part or nothing."""
    for raised in (OSError(errno.ENOSPC, "No space left on device"), OSError("3072 requested and 0 written")):
        with pytest.raises(OSError, match=r"No space left|3072 requested") as error, files.atomic_path(tmp_path / "a"):
            raise raised
        assert error.value.filename == str(tmp_path / "a")
        assert "None" not in str(error.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory") as error:
        files.write(tmp_path / "file" / "b", "text")
    assert error.value.filename == str(tmp_path / "file" / "b")


@pytest.mark.parametrize(
    "use",
    [find_checkpoint, read_weights, lambda word: checks.check(compose(f"data.root={word}", "data=cifar10")),
     lambda word: find_members([Path(word)], Settings())],
    ids=["run", "weights", "data", "evaluate"],
)  # fmt: skip
def test_a_path_of_a_user_that_is_not_there_is_a_mistake_as_any(use: Callable[[str], object]):
    assert files.expand("~") == Path.home()
    with pytest.raises(ConfigError, match="~no-such-user/here"):
        use("~no-such-user/here")
