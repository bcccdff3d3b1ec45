"""Jobs of a sweep on this machine: several at once, with GPUs and cores of their own, and stopped together."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from alexnet_pl.errors import Disconnected
from alexnet_pl.jobs import gpu_locks, launch, local, sweep
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.run import Run, find_runs
from tests.helpers.commands import Command, start
from tests.helpers.processes import Process, wait_until
from tests.helpers.runs import TINY, assert_same_training, run_config


def test_a_job_waits_for_a_free_gpu_and_gives_it_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Three jobs, three at once, on two GPUs: the third one starts when one of the others has ended."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpu_locks.tempfile, "tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(layouts, "resolve_accelerator", lambda trainer: "cuda")
    code = "open(os.environ['CUDA_VISIBLE_DEVICES'] + '-' + os.environ['ALEXNET_PL_JOB'], 'x'); time.sleep(0.2)"
    monkeypatch.setattr(local, "WORDS", ["tests.helpers.script", code])
    monkeypatch.chdir(tmp_path)
    jobs = [local.Job(Run(tmp_path / str(n)), run_config(f"seed={n}"), [], f"{n} of 3") for n in (1, 2, 3)]
    local.run_jobs(jobs, at_once=3)
    assert {path.name for path in tmp_path.glob("*of 3")} in [
        {"4-1 of 3", "6-2 of 3", f"{third}-3 of 3"} for third in (4, 6)
    ]
    assert capsys.readouterr().out.count("job 3 of 3 waits for 1 free GPU") == 1


@pytest.mark.parametrize(("n_jobs", "at_once"), [(1, 1), (3, 3), (9, 4), ("auto", 4)])
def test_auto_is_as_many_as_there_are_cores_and_none_is_without_a_job(
    monkeypatch: pytest.MonkeyPatch, n_jobs: int | str, at_once: int
):
    monkeypatch.setattr(sweep.cpu, "count", lambda: 8)
    assert sweep.count_at_once(n_jobs, [run_config("trainer=cpu", f"seed={n}") for n in range(4)]) == at_once


@pytest.mark.parametrize(("trainer", "at_once"), [("trainer=cpu", 4), ("trainer=ddp", 2)])
def test_auto_counts_the_devices_of_a_job(monkeypatch: pytest.MonkeyPatch, trainer: str, at_once: int):
    monkeypatch.setattr(sweep.cpu, "count", lambda: 4)
    jobs = [run_config(trainer, "trainer.accelerator=cpu", f"seed={n}") for n in range(9)]
    assert sweep.count_at_once("auto", jobs) == at_once


LOST = str(Disconnected("connection closed"))
KILLED = launch.Ending(-signal.SIGABRT, "process 1 of 0..1 was killed by SIGABRT")


@pytest.mark.parametrize(
    ("ending", "told", "reason"),
    [
        (KILLED, "", KILLED.killed),
        (KILLED, LOST, KILLED.killed),
        (KILLED, "the loss became nan", f"the loss became nan; {KILLED.killed}"),
        (launch.Ending(1, ""), LOST, LOST),
        (launch.Ending(1, ""), "the loss became nan", "the loss became nan"),
        (launch.Ending(3, ""), "", "exit code 3"),
    ],
)
def test_a_reason_that_a_process_gave_is_kept(ending: launch.Ending, told: str, reason: str, tmp_path: Path):
    """Unless it is only that it lost another one."""
    run = Run(tmp_path)
    if told:
        run.fail(told)
    assert local.failure_reason(ending, run, failed_before=0) == reason
    assert run.failure == reason


def test_a_number_of_jobs_that_is_none_is_refused(train: Command, tmp_path: Path):
    for number in ("0", "-1", "many"):
        result = train("-m", *TINY, "seed=1,2", f"hydra.sweeper.n_jobs={number}")
        assert result.returncode == 1
        assert result.stderr == f"error: hydra.sweeper.n_jobs={number} must be at least 1 job at once, or auto\n"
        result = train("-m", *TINY, "seed=1,2", f"hydra.sweeper.jobs_per_gpu={number}")
        assert result.stderr == f"error: hydra.sweeper.jobs_per_gpu={number} must be at least 1 job\n"
    assert not (tmp_path / "runs").exists()


def test_jobs_that_share_a_gpu_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layouts, "gpu_count", lambda: 2)
    monkeypatch.setattr(layouts, "resolve_accelerator", lambda trainer: "cuda")
    jobs = [run_config("trainer=cpu", f"seed={n}") for n in range(9)]
    assert [sweep.count_at_once("auto", jobs, share) for share in (1, 3)] == [2, 6]


@pytest.mark.slow
def test_a_signal_while_the_server_still_imports_is_no_traceback(tmp_path: Path):
    """It goes to the whole group, as that of a terminal or of timeout."""
    sweep = start(tmp_path, "-m", *TINY, "seed=1,2", "name=early")
    wait_until(lambda: list(tmp_path.glob("runs/early/*/run.json")))
    time.sleep(1)
    os.killpg(sweep.pid, signal.SIGTERM)
    out, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + signal.SIGTERM, err
    assert "Traceback" not in err + out
    assert "sweep stopped at job 1 of 2: the same command continues it" in err


@pytest.mark.slow
def test_ctrl_c_saves_all_jobs_that_run_and_the_same_command_continues_them(tmp_path: Path, train: Command):
    """To the ends that they have one after the other. As a terminal does, the signal goes to the whole group."""
    arguments = ("-m", *TINY, "seed=1,2,3", "hydra.sweeper.n_jobs=2", "name=at_once")
    first = Process(tmp_path, "alexnet_pl.train", *arguments)
    wait_until(lambda: len(list(tmp_path.glob("runs/at_once/*/metrics.csv"))) == 2)
    os.killpg(first.pid, signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGINT
    assert "Traceback" not in err
    assert re.search(r"sweep stopped at job (1 of 3 and 2|2 of 3 and 1) of 3: the same command continues it", err)
    runs = find_runs(tmp_path / "runs" / "at_once")
    assert [run.last.is_file() for run in runs] == [True, True, False]
    again = train(*arguments)
    assert again.returncode == 0, again.stderr
    assert "at_once: 3 jobs, 2 at a time" in again.stdout
    assert sum("continued after" in (run.folder / "train.log").read_text() for run in runs) == 2
    assert train(*arguments[:-2], "name=in_turn").returncode == 0
    for run, other in zip(runs, find_runs(tmp_path / "runs" / "in_turn"), strict=True):
        assert_same_training(run, other)
