"""Several jobs at once on one machine, each with GPUs of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alexnet_pl.jobs import gpu_locks
from alexnet_pl.runs.run import find_runs
from tests.helpers.commands import start
from tests.helpers.jobs import NET


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Of three GPUs, 2, 5 and 7, whose claims lie in a folder of their own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpu_locks.tempfile, "tempdir", None)
    monkeypatch.setattr(gpu_locks, "ASK_EVERY", 0.05)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    return monkeypatch


def test_each_job_has_gpus_of_its_own_and_waits_for_them(
    machine: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with gpu_locks.acquire_gpus(2) as first:
        assert first == {"CUDA_VISIBLE_DEVICES": "2,5"}
        with gpu_locks.acquire_gpus(1) as second:
            assert second == {"CUDA_VISIBLE_DEVICES": "7"}
        third: list[dict[str, str]] = []

        def wait() -> None:
            with gpu_locks.acquire_gpus(2) as visible:
                third.append(visible)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        assert not third, "one is free, two are asked for"
    waiting.join(5)
    assert third == [{"CUDA_VISIBLE_DEVICES": "2,5"}]
    assert capsys.readouterr().out.count("waiting for 2 free GPUs") == 1
    with gpu_locks.acquire_gpus(0) as none:
        assert none == {}


def test_a_claim_ends_with_its_process(machine: pytest.MonkeyPatch):
    code = "from alexnet_pl.jobs import gpu_locks\nwith gpu_locks.acquire_gpus(3): print('has', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout
    assert other.stdout.readline() == "has\n"
    timer = threading.Timer(0.5, other.kill)
    timer.start()
    began = time.monotonic()
    with gpu_locks.acquire_gpus(1) as visible:
        assert visible["CUDA_VISIBLE_DEVICES"] in ("2", "5", "7"), "whichever lock is gone first"
    assert time.monotonic() - began > 0.4
    other.wait()


@pytest.mark.slow
def test_a_sweep_runs_several_jobs_at_once(tmp_path: Path):
    """In a real process: joblib's workers end with the interpreter, which a fork of multiprocessing leaves out."""
    over = ["trainer.max_epochs=1", "trainer.limit_train_batches=8", "logger=csv", "name=at_once", "seed=1,2"]
    sweep = start(tmp_path, "-m", *NET, *over, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    out, err = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, err
    assert "2 of 2 jobs done" in out
    first, second = (run.metrics for run in find_runs(tmp_path / "runs" / "at_once"))
    assert [row["images_seen"] for row in first] == [row["images_seen"] for row in second]
    assert first != second
