"""Claims on GPUs: each job has its own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from alexnet_pl.jobs import gpu_locks


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Of three GPUs, 2, 5 and 7, whose claims lie in a folder of their own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpu_locks.tempfile, "tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    return monkeypatch


def test_each_job_has_gpus_of_its_own(machine: pytest.MonkeyPatch):
    with ExitStack() as first, ExitStack() as second:
        assert gpu_locks.claim_gpus(2, first) == {"CUDA_VISIBLE_DEVICES": "2,5"}
        assert gpu_locks.claim_gpus(2, second) is None, "one is free, two are asked for"
        assert gpu_locks.claim_gpus(1, second) == {"CUDA_VISIBLE_DEVICES": "7"}, "a claim in vain keeps none"
        first.close()
        assert gpu_locks.claim_gpus(2, first) == {"CUDA_VISIBLE_DEVICES": "2,5"}


def test_a_claim_ends_with_its_process(machine: pytest.MonkeyPatch):
    code = "from contextlib import ExitStack\nfrom alexnet_pl.jobs import gpu_locks\nheld = ExitStack()\n"
    code += "print(gpu_locks.claim_gpus(3, held), flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout
    assert other.stdout.readline() == "{'CUDA_VISIBLE_DEVICES': '2,5,7'}\n"
    with ExitStack() as held:
        assert gpu_locks.claim_gpus(1, held) is None
        other.kill()
        other.wait()
        assert gpu_locks.claim_gpus(1, held) == {"CUDA_VISIBLE_DEVICES": "2"}


def test_small_jobs_share_gpus_once_each_has_one(machine: pytest.MonkeyPatch):
    with ExitStack() as held:
        given = [gpu_locks.claim_gpus(1, held, 2) for _ in range(6)]
        assert [each and each["CUDA_VISIBLE_DEVICES"] for each in given] == ["2", "5", "7"] * 2
        assert gpu_locks.claim_gpus(1, held, 2) is None
        assert gpu_locks.claim_gpus(1, held, 3) == {"CUDA_VISIBLE_DEVICES": "2"}


def test_a_job_of_two_gpus_has_no_place_twice_on_one(machine: pytest.MonkeyPatch):
    with ExitStack() as held:
        assert gpu_locks.claim_gpus(2, held, 2) == {"CUDA_VISIBLE_DEVICES": "2,5"}
        assert gpu_locks.claim_gpus(2, held, 2) == {"CUDA_VISIBLE_DEVICES": "7,2"}
        assert gpu_locks.claim_gpus(2, held, 2) == {"CUDA_VISIBLE_DEVICES": "5,7"}
