"""The command as people use it: one run, resumed runs, sweeps with failures, signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from alexnet_pl.errors import Disconnected
from alexnet_pl.jobs import launch
from alexnet_pl.report.compare import collect
from alexnet_pl.runs.naming import job_folder_name
from alexnet_pl.runs.run import Run, find_runs
from tests.helpers.commands import Command
from tests.helpers.processes import Process, wait_until
from tests.helpers.runs import TINY, assert_same_training, last_checkpoint


def rows(run: Run) -> int:
    return len(run.metrics)


Result = tuple[int, str, str]


@pytest.fixture(scope="module")
def whole_and_second(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Result]:
    """An uninterrupted run, and how a second one ended that was started in its folder meanwhile."""
    folder = tmp_path_factory.mktemp("whole")
    process = Process(folder, "alexnet_pl.train", *TINY)
    wait_until(lambda: rows(Run(folder / "runs" / "train" / job_folder_name(TINY, 1))) > 3)
    process.send_signal(signal.SIGSTOP)
    second = Process(folder, "alexnet_pl.train", *TINY)
    told = second.communicate(timeout=60)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not err, "and nobody warns of anything"
    assert [line.split()[1] for line in out.splitlines() if "epoch" in line.split()[:1]] == ["1/3", "2/3", "3/3"]
    (run,) = (folder / "runs" / "train").iterdir()
    return Run(run), (second.returncode, *told)


@pytest.fixture(scope="module")
def whole(whole_and_second: tuple[Run, Result]) -> Run:
    return whole_and_second[0]


def test_a_run_leaves_what_is_needed_to_trust_it(whole: Run):
    assert whole.status == "done"
    assert whole.done["metrics"]["images_seen"] == 3 * 16 * 64
    optim = {"lr": 0.002, "momentum": 0.9, "weight_decay": 0.0, "bias_lr_mult": 2.0}
    assert whole.config["optim"] | optim == whole.config["optim"]
    assert whole.identity["overrides"] == list(TINY)
    assert (whole.folder / "train.log").read_text().count("  epoch ") == 3
    assert last_checkpoint(whole)["config"] == whole.config, "the checkpoint carries the configuration"
    assert {p.name for p in whole.folder.iterdir()} == {
        ".lock",
        "checkpoints",
        "config.yaml",
        "done.json",
        "metrics.csv",
        "run.json",
        "train.log",
    }


def test_a_finished_run_is_not_run_again(whole: Run):
    files = [p for p in whole.folder.rglob("*.*") if p.name != "config.yaml"]  # which holds bookkeeping, too
    before = {p: p.stat().st_mtime_ns for p in files}
    process = Process(whole.folder.parents[2], "alexnet_pl.train", *TINY)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "is done already" in out
    assert {p: p.stat().st_mtime_ns for p in files} == before


def test_ctrl_c_in_mid_epoch_saves_and_the_same_command_continues(whole: Run, tmp_path: Path, train: Command):
    """SIGTERM is sent in tests/training/test_resume.py."""
    signum = signal.SIGINT
    run = Run(tmp_path / "runs" / "train" / whole.folder.name)
    process = Process(tmp_path, "alexnet_pl.train", *TINY)
    wait_until(lambda: rows(run) > 20)  # 17 rows an epoch: in the second
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "the same command continues" in err
    assert "Traceback" not in err
    assert run.status == "failed"
    assert 16 < last_checkpoint(run)["global_step"] < 48
    assert last_checkpoint(run)["global_step"] % 16, "the checkpoint is from the middle of an epoch"
    again = train(*TINY)
    assert again.returncode == 0, again.stderr
    assert "continued after" in again.stdout
    assert_same_training(run, whole)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_anew(whole: Run, tmp_path: Path, train: Command):
    run = Run(tmp_path / "runs" / "train" / whole.folder.name)
    process = Process(tmp_path, "alexnet_pl.train", *TINY)
    wait_until(lambda: rows(run) > 3)
    process.kill()
    process.wait()
    assert not run.last.exists()
    again = train(*TINY)
    assert again.returncode == 0, again.stderr
    assert_same_training(run, whole)


def test_another_configuration_in_the_same_folder_is_refused(whole: Run):
    folder = whole.folder
    (folder / "done.json").rename(folder / "done.away")
    try:
        process = Process(folder.parents[2], "alexnet_pl.train", *TINY, "optim.lr=0.1", f"hydra.run.dir='{folder}'")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        (sentence,) = err.strip().splitlines()
        assert "optim.lr was 0.002 and is now 0.1" in sentence
        assert whole.status == "unfinished", "the refused run left no mark in a folder that is not its own"
    finally:
        (folder / "done.away").rename(folder / "done.json")


@pytest.mark.slow
def test_an_epoch_cut_short_and_one_without_validation_leave_true_rows(tmp_path: Path, train: Command):
    """A window that max_steps leaves open is closed; an error is recorded for the epoch it was measured in, only."""
    more = (
        "trainer.max_epochs=4",
        "trainer.check_val_every_n_epoch=2",
        "trainer.max_steps=60",
        "train_error_window=9999",
    )
    result = train(*TINY, *more)
    assert result.returncode == 0, result.stderr
    (run,) = find_runs(tmp_path / "runs" / "train")[0:1]
    epochs = [row for row in run.metrics if "train/epoch_error" in row]
    assert ["val/error" in row for row in epochs[:3]] == [False, True, False]
    windows = [row["images_seen"] for row in run.metrics if "train/error" in row]
    assert windows == [*(16 * 64 * n for n in (1, 2, 3)), 60 * 64]
    assert run.done["metrics"]["images_seen"] == 60 * 64
    assert "nan" not in result.stdout


@pytest.mark.slow
def test_how_finished_runs_are_drawn_may_change(tmp_path: Path, train: Command):
    one = (*TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=2", "name=b")
    for momentum in (0.5, 0.9):
        assert train(*one, f"optim.momentum={momentum}").returncode == 0
    lines = collect(tmp_path / "runs" / "b").panels[0].lines
    assert [line.name for line in lines] == ["optim.momentum=0.5", "optim.momentum=0.9"]
    again = train("-m", *one, "optim.momentum=0.5,0.9", "report.compare=[optim.momentum]")
    assert again.stdout.count("is done already") == 2
    assert [line.name for line in collect(tmp_path / "runs" / "b").panels[0].lines] == ["0.5", "0.9"]


def test_a_changed_sweep_is_refused_before_its_first_job(whole: Run, tmp_path: Path, train: Command):
    """A finished job is skipped only if it is the same: here the sweep's second job stands for another rate."""
    folder = tmp_path / "runs" / "s"
    shutil.copytree(whole.folder, folder / f"seed=2,{whole.folder.name}")
    os.rename(folder / f"seed=2,{whole.folder.name}", folder / job_folder_name(TINY, 2))
    result = train("-m", *TINY, "seed=1,2", "name=s")
    assert result.returncode == 1
    assert "seed was 1 and is now 2" in result.stderr
    assert [p.name for p in folder.iterdir()] == [job_folder_name(TINY, 2)]


def test_two_processes_do_not_train_in_one_folder(whole_and_second: tuple[Run, Result]):
    """The first goes on to its end; other tests compare it with runs that had their folder to themselves."""
    first, (code, _, said) = whole_and_second
    assert code == 75
    assert "another process is training in" in said
    assert first.status == "done"


def test_a_damaged_checkpoint_is_named(whole: Run, tmp_path: Path, train: Command):
    run = Run(tmp_path / "runs" / "train" / whole.folder.name)
    run.last.parent.mkdir(parents=True)
    run.last.write_bytes(whole.last.read_bytes()[:1000])
    result = train(*TINY)
    assert result.returncode == 1
    assert "last.ckpt is damaged" in result.stderr.splitlines()[-1]


@pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="this system has no /dev/full, the disk that is always full"
)
def test_a_full_disk_is_one_sentence(whole: Run, tmp_path: Path, train: Command):
    """train.log on a disk that is always full: its first line cannot be written."""
    folder = tmp_path / "runs" / "train" / whole.folder.name
    folder.mkdir(parents=True)
    (folder / "train.log").symlink_to("/dev/full")
    result = train(*TINY)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith("No space left on device")
    assert "Traceback" not in result.stderr
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.slow
def test_a_sweep_survives_its_jobs(whole: Run, tmp_path: Path):
    """Of three jobs one raises and one is killed in mid-epoch: the last finishes; the second call runs only those two,
    the killed one from its checkpoint to the same end as the uninterrupted run."""
    sweep = ("-m", *TINY, "optim.lr=1e30,0.002,0.004", "name=three")
    folder = tmp_path / "runs" / "three"
    first = Process(tmp_path, "alexnet_pl.train", *sweep)
    wait_until(lambda: (folder / "sweep.json").is_file())
    names = list(json.loads((folder / "sweep.json").read_text()))
    jobs = {lr: Run(folder / next(n for n in names if f"optim.lr={lr}," in n)) for lr in ("1e+30", "0.002", "0.004")}
    wait_until(lambda: rows(jobs["0.002"]) > 20)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 1
    assert {lr: run.status for lr, run in jobs.items()} == {"1e+30": "failed", "0.002": "failed", "0.004": "done"}
    assert "job 1 of 3 failed" in err
    assert "the loss became" in err
    assert "killed by SIGKILL" in err
    assert err.index("job 1 of 3 failed") < err.index("job 2 of 3 failed")
    assert "killed by SIGKILL" in out, "and once more in the closing table"
    mark = (jobs["0.004"].folder / "done.json").stat().st_mtime_ns
    assert last_checkpoint(jobs["0.002"])["global_step"] in (16, 32), "killed after a checkpoint"

    again = Process(tmp_path, "alexnet_pl.train", *sweep)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 1, "the raising job raises again"
    assert {lr: run.status for lr, run in jobs.items()} == {"1e+30": "failed", "0.002": "done", "0.004": "done"}
    assert (jobs["0.004"].folder / "done.json").stat().st_mtime_ns == mark
    assert said.count("is done already") == 1
    assert "continued after" in said
    assert_same_training(jobs["0.002"], whole)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_sweep_stops_it_with_a_checkpoint(tmp_path: Path, signum: int):
    process = Process(tmp_path, "alexnet_pl.train", "-m", *TINY, "seed=1,2", "name=two")
    folder = tmp_path / "runs" / "two"
    wait_until(lambda: (folder / "sweep.json").is_file())
    first, second = (Run(folder / name) for name in json.loads((folder / "sweep.json").read_text()))
    wait_until(lambda: rows(first) > 3)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "sweep stopped at job 1 of 2: the same command continues it" in err
    assert first.last.is_file()
    assert second.status == "missing"


@pytest.mark.slow
@pytest.mark.parametrize("told", ["", str(Disconnected("closed")), "stopped by SIGTERM; the checkpoint is written"])
def test_processes_that_are_stopped_as_they_start_are_told_as_stopped(
    told: str, tmp_path: Path, train: Command, monkeypatch: pytest.MonkeyPatch
):
    def stopped(start: object) -> tuple[launch.Ending, launch.Stop]:
        stop = launch.Stop()
        stop.signum = signal.SIGTERM
        if told:
            (run,) = find_runs(tmp_path / "runs" / "train")
            run.fail(told)
        return launch.Ending(1, ""), stop

    monkeypatch.setattr(launch, "run", stopped)
    result = train(*TINY, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert result.returncode == 128 + signal.SIGTERM
    assert result.stderr == f"error: {told if 'checkpoint' in told else 'stopped by SIGTERM'}\n"


LEFT = {
    "RANK": "1", "LOCAL_RANK": "x", "LOCAL_WORLD_SIZE": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "?", "MASTER_PORT": "x",
    "SLURM_JOB_ID": "x", "SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "", "JSM_NAMESPACE_RANK": "3",
    "PL_TRAINER_FAST_DEV_RUN": "1", "PL_TRAINER_MAX_EPOCHS": "9", "PL_SEED_WORKERS": "x", "PL_GLOBAL_SEED": "x",
    "ALEXNET_PL_JOB": "7 of 9", "ALEXNET_PL_JOBS": "x", "FORCE_COLOR": "1", "TERM": "dumb", "LC_ALL": "C",
    "CUDA_VISIBLE_DEVICES": "x", "GLOO_SOCKET_IFNAME": "x", "TMPDIR": "/nowhere",
}  # fmt: skip


def test_what_is_left_in_the_environment_changes_nothing(
    tmp_path: Path, train: Command, monkeypatch: pytest.MonkeyPatch
):
    """One process is the first of its run, whatever an earlier program has left."""
    for name, value in LEFT.items():
        monkeypatch.setenv(name, value)
    result = train(*TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    assert result.returncode == 0, result.stderr
    assert "7 of 9" not in result.stdout
    assert "\x1b" not in result.stdout
    (run,) = find_runs(tmp_path / "runs" / "train")
    assert run.status == "done"
    assert run.metrics
    assert last_checkpoint(run)["global_step"] == 1
