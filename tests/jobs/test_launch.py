"""Processes of a run: started together, ended together; sweeps that mix layouts; what torchrun and Slurm start."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_pl.files import lock
from alexnet_pl.jobs import launch, local
from alexnet_pl.parallel.layouts import Layout
from alexnet_pl.runs.run import JOB_VARIABLE, find_runs
from tests.helpers.commands import Command, start
from tests.helpers.jobs import NET, SLURM, assert_none_left, check_run, jobs, processes_in
from tests.helpers.processes import Process

TWO, FOUR = Layout("ddp", 2), Layout("towers_ddp", 4, 1, 2)


def run(code: str, where: Layout, *arguments: str, more: dict[str, str] | None = None, **how: Any) -> Any:
    """Run code in the processes of a layout; how they ended, and what asked them to."""
    return launch.run(lambda: launch.Group(["tests.helpers.script", code, *arguments], where, more or {}, **how))


def test_processes_know_each_other(tmp_path: Path):
    code = f"open(f'{tmp_path}/{{rank}}', 'w').write(str({{k: os.environ[k] for k in sys.argv[2:]}}))"
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "ALEXNET_PL_JOB"]
    ending, stop = run(code, FOUR, *names, more={JOB_VARIABLE: "1 of 1"})
    assert (ending, stop.count) == (launch.Ending(0, ""), 0)
    told = [eval((tmp_path / str(rank)).read_text()) for rank in range(4)]
    assert [t["RANK"] for t in told] == [t["LOCAL_RANK"] for t in told] == ["0", "1", "2", "3"]
    assert {(t["WORLD_SIZE"], t["MASTER_ADDR"], t["ALEXNET_PL_JOB"]) for t in told} == {("4", "127.0.0.1", "1 of 1")}
    assert len({t["MASTER_PORT"] for t in told}) == 1


def test_a_rank_left_in_the_environment_is_not_passed_on(fresh: pytest.MonkeyPatch):
    fresh.setenv("RANK", "1")
    ending, _ = run("sys.exit('RANK' in os.environ)", Layout("single"))
    assert ending.code == 0


def test_a_signal_that_is_ignored_at_the_start_stays_ignored(monkeypatch: pytest.MonkeyPatch):
    """As nohup has it, and a shell for what it starts in the background."""
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGHUP, signal.SIGINT)}
    try:
        with launch.passing_on_signals(lambda signum: None) as stop:
            for signum in before:
                signal.raise_signal(signum)
            assert stop.count == 0
            signal.raise_signal(signal.SIGTERM)
            assert (stop.count, stop.signum) == (1, signal.SIGTERM)
        assert {signal.getsignal(signum) for signum in before} == {signal.SIG_IGN}
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@pytest.mark.parametrize(("kills", "told"), [([3, 4], True), ([3, 3], False)])
def test_one_that_is_killed_for_lack_of_memory_says_so(
    kills: list[int], told: bool, fresh: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
):
    counts = iter(kills)
    monkeypatch.setattr(launch.cpu, "oom_kills", lambda: next(counts))
    ending, _ = run("os.kill(os.getpid(), 9)", Layout("single"))
    assert ending.killed.startswith("killed by SIGKILL")
    assert ("memory ran out" in ending.killed) is told


def test_one_that_is_killed_ends_the_others(monkeypatch: pytest.MonkeyPatch):
    """Which hang, as those do that wait for it on a GPU."""
    monkeypatch.setattr(launch, "GRACE", 0.5)
    monkeypatch.setattr(launch, "GRACE_OF_OTHERS", 0.2)
    began = time.monotonic()
    ending, _ = run("os.kill(os.getpid(), 9) if rank == 1 else time.sleep(60)", TWO)
    assert ending.code == -signal.SIGKILL
    assert ending.killed == "process 1 of 0..1 was killed by SIGKILL"
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("looks", "code"),
    [([False, True], -signal.SIGKILL), pytest.param([True, False], 0, marks=pytest.mark.slow)],
)
def test_a_failure_elsewhere_ends_it(
    looks: list[bool], code: int, fresh: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
):
    """On another machine of a Slurm job, unless it is told no more at the next look."""
    for name, value in SLURM.items():
        fresh.setenv(name, value)
    monkeypatch.setattr(launch, "GRACE", 0.5)
    monkeypatch.setattr(launch, "LOOK_EVERY", 0.1)
    told = iter(looks)
    ending, _ = run("time.sleep(1.5)", Layout("ddp", 2, 2), failed=lambda: next(told, looks[-1]))
    assert ending.code == code


def when_ready(folder: Path, do: Callable[[], object]) -> None:
    """Act once both processes have written their files."""

    def wait() -> None:
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.02)
        do()

    threading.Thread(target=wait).start()


def test_signals_are_passed_on(tmp_path: Path):
    code = f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); open(f'{tmp_path}/{{rank}}', 'w'); time.sleep(60)"
    when_ready(tmp_path, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    before = signal.getsignal(signal.SIGUSR2)
    ending, stop = run(code, TWO)
    assert ending == launch.Ending(7, "")
    assert (stop.signum, stop.handler) == (signal.SIGUSR2, before)
    assert signal.getsignal(signal.SIGUSR2) is before


def test_asked_twice_those_that_hang_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "GRACE", 0.5)
    monkeypatch.setattr(launch, "GRACE_OF_OTHERS", 0.5)
    code = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); open(f'{tmp_path}/{{rank}}', 'w'); time.sleep(60)"

    def twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)

    when_ready(tmp_path, twice)
    ending, stop = run(code, TWO)
    assert (ending.code, stop.signum, stop.count) == (-signal.SIGKILL, signal.SIGTERM, 2)


def test_tasks_that_a_job_does_not_need_end_at_once(fresh: pytest.MonkeyPatch):
    for name, value in SLURM.items():
        fresh.setenv(name, value)
    for where in (Layout("ddp", 2), Layout("single")):  # this is the second machine
        assert launch.Group(["tests.helpers.script", "sys.exit(1)"], where, {}).processes == []
    fresh.setenv("SLURM_NODEID", "0")
    ending, _ = run("sys.exit(int(os.environ['WORLD_SIZE']) * 10 + rank)", Layout("ddp", 2))
    assert ending.code == 21


# ------------------------------------------------------------------------------------------------ the whole command


@pytest.mark.slow
def test_a_sweep_mixes_layouts_and_a_job_that_fails_stops_no_other(tmp_path: Path):
    """The job in the middle finds its folder in use."""
    over = ["trainer.max_epochs=1", "trainer.limit_train_batches=8", "trainer=auto,ddp,towers", "name=mixed"]
    sweep = Process(tmp_path, "alexnet_pl.train", "-m", *NET, *over)
    wait_for(tmp_path, "runs/mixed/sweep.json")
    one, middle, two = jobs(tmp_path / "runs" / "mixed").values()
    middle.folder.mkdir()
    held = lock(middle.folder)
    out, err = sweep.communicate(timeout=100)
    assert held
    held.close()
    assert sweep.returncode == 1
    assert "2 of 3 jobs done" in out
    assert f"job 2 of 3 failed: {middle.folder.name}: another process is training in {middle.folder}: wait" in err
    assert err.count("another process is training") == 1
    assert "Traceback" not in err
    assert [run.status for run in (one, middle, two)] == ["done", "missing", "done"]
    check_run(one, 1)
    check_run(two, 2)
    losses = [[row["train/loss"] for row in run.metrics if "train/loss" in row] for run in (one, two)]
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-4, atol=0)
    assert_none_left(tmp_path)


@pytest.mark.slow
def test_a_killed_process_fails_its_own_job_only(tmp_path: Path):
    """ddp, towers, ddp: the third is the first one, and runs once."""
    over = ["trainer.max_epochs=12", "trainer.limit_train_batches=8"]
    sweep = Process(tmp_path, "alexnet_pl.train", "-m", *NET, *over, "trainer=ddp,towers,ddp", "name=killed")
    try:
        wait_for(tmp_path, "runs/killed/sweep.json")
        found = jobs(tmp_path / "runs" / "killed")
        wait_for(found["trainer=towers"].folder, "metrics.csv")  # both processes have met
        _, victim = children(sweep.pid, tmp_path)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        out, err = sweep.communicate(timeout=100)
    finally:
        sweep.kill()
    assert time.monotonic() - killed < 60
    assert sweep.returncode == 1
    assert "Traceback" not in err
    assert found["trainer=towers"].failure == "process 1 of 0..1 was killed by SIGKILL"
    assert "1 of 2 jobs done" in out
    check_run(found["trainer=ddp"], 2, epochs=12)
    assert_none_left(tmp_path)


def wait_for(folder: Path, pattern: str) -> Path:
    """The file that a pattern names, once it is there."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        for path in folder.glob(pattern):
            return path
        time.sleep(0.05)
    raise AssertionError(f"{pattern} did not appear")


def children(command: int, folder: Path) -> list[int]:
    """The processes of a job that a command has started, in the order of their ranks: each leads a session."""
    stats = {}
    for number in processes_in(folder):
        _, _, fields = Path(f"/proc/{number}/stat").read_text().rpartition(") ")
        stats[number] = [int(field) for field in fields.split()[1:20]]  # parent, group, session, ..., start
    leads = {number: session == number for number, (_, _, session, *_) in stats.items()}
    servers = {number for number in stats if stats[number][0] == command and not leads[number]}
    leaders = [number for number in stats if stats[number][0] in {command, *servers} and leads[number]]
    return sorted(leaders, key=lambda number: stats[number][18])


@pytest.mark.slow
def test_torchrun_starts_a_run_too(tmp_path: Path):
    over = [*NET, "trainer=ddp", "trainer.limit_train_batches=8", "trainer.max_epochs=1", "name=by_hand"]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "alexnet_pl.train"]
    run = Process(tmp_path, *torchrun, *over)
    out, err = run.communicate(timeout=100)
    assert run.returncode == 0, err
    (found,) = find_runs(tmp_path / "runs" / "by_hand")
    check_run(found, 2)
    assert out.count("done: ") == 1, "the first process speaks"
    assert_none_left(tmp_path)


@pytest.mark.slow
def test_a_folder_is_locked_as_long_as_one_of_its_processes_lives(tmp_path: Path):
    """The one that was typed is killed; its processes stop when they notice, and the same command goes on."""
    over = [*NET, "trainer=ddp", "trainer.max_epochs=2", "trainer.limit_train_batches=200", "logger=csv"]
    over.append("name=orphans")
    first = start(tmp_path, *over)
    metrics = wait_for(tmp_path, "runs/orphans/*/metrics.csv")
    workers = children(first.pid, tmp_path)
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # so that they live until the next command
    first.kill()
    first.wait(timeout=20)  # its output stays open, as its processes have it too
    second = start(tmp_path, *over)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 75, err
    assert "another process is training in" in err
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    assert_none_left(tmp_path)
    assert not (metrics.parent / "done.json").exists()
    third = start(tmp_path, *over)
    out, err = third.communicate(timeout=150)
    assert third.returncode == 0, err
    assert "continued after" in out
    (run,) = find_runs(tmp_path / "runs" / "orphans")
    assert run.status == "done"


HANGS = """
from alexnet_pl.training import fit
from alexnet_pl.training.module import ImageClassifier
step = ImageClassifier.training_step

def fails(self, batch, batch_idx):
    if rank == 1 and batch_idx == 3:
        raise ValueError("no such image")
    return step(self, batch, batch_idx)

ImageClassifier.training_step = fails
sys.argv[1:] = sys.argv[2:]
try:
    fit.main()
finally:
    if rank == 1:
        time.sleep(600)
"""


@pytest.mark.slow
def test_a_process_that_raises_and_never_exits_ends_the_run_with_its_reason(
    train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As NCCL has it: it waits for the others at its exit, and they for it in the next step."""
    for name, seconds in {"GRACE": 3.0, "GRACE_OF_OTHERS": 0.5, "LOOK_EVERY": 0.2}.items():
        monkeypatch.setattr(launch, name, seconds)
    monkeypatch.setattr(local, "WORDS", ["tests.helpers.script", HANGS])
    result = train(*NET, "trainer=ddp", "trainer.max_epochs=1", "logger=csv", "name=hangs")
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == "error: ValueError: no such image"
    (run,) = find_runs(tmp_path / "runs" / "hangs")
    assert run.failure == "ValueError: no such image"
