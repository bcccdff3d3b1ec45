"""A job of a sweep as a task of Slurm sees it, without Slurm: tests/jobs/test_slurm.py has a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alexnet_pl import compose
from alexnet_pl.jobs import launch, sweep
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.run import Run

TASK = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "31234"}


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Be the first task of a job."""
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return monkeypatch


def test_a_job_refused_where_it_runs_leaves_the_reason(
    task: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """It was checked where it was typed, and the other tasks look for the reason."""
    task.setenv("SLURM_STEP_NUM_TASKS", "2")
    task.setattr(layouts, "gpu_count", lambda: 1)
    run = Run(tmp_path / "job")
    sweep.run_job(run, compose("trainer=ddp", "trainer.devices=2"), [], 0, at_once=False)
    assert run.status == "failed"
    assert run.failure.startswith("trainer.devices=2 asks for 2 GPUs and 1 is here")
    assert run.failure in capsys.readouterr().err


@pytest.mark.parametrize(("tasks", "threads"), [("1", {"OMP_NUM_THREADS": "4"}), ("2", {})], ids=["one", "two"])
def test_processes_share_the_cores_of_their_task(
    task: pytest.MonkeyPatch, tmp_path: Path, tasks: str, threads: dict[str, str]
):
    """A lone task starts all processes of a run; of several, each starts one and has cores of its own."""
    task.setenv("SLURM_STEP_NUM_TASKS", tasks)
    task.setattr(sweep.cpu, "count", lambda: 8)
    seen: list[dict[str, str]] = []
    task.setattr(launch, "run", lambda command, where, env, *more: seen.append(env))
    run: Any = Run(tmp_path / "job")
    sweep.supervise(run, compose("trainer=ddp", "trainer.accelerator=cpu"), {}, 0)
    assert [{key: value for key, value in env.items() if key == "OMP_NUM_THREADS"} for env in seen] == [threads]
