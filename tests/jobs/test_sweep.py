"""Jobs of a sweep: composed as Hydra composes each of them, and as a task of Slurm sees one, without Slurm.

tests/jobs/test_slurm.py has a real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from alexnet_pl import ROOT, compose
from alexnet_pl.jobs import launch, local, sweep
from alexnet_pl.jobs.compose import register, to_config
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.run import Run

JOBS = [
    ["experiment=figure1", "model.activation=tanh", "optim.lr=0.016", "seed=2"],
    ["experiment=figure1", "model.activation=relu", "optim.lr=0.001", "seed=3"],
    ["experiment=figure1_unit", "model.activation=relu", "optim.lr=1e-3", "seed=3"],
    ["model=alexnet", "data.size=256", "data.crop_size=224", "model.widths={conv1: 8, fc6: 16}", "model.lrn=[]"],
    ["model=alexnet", "data.size=256", "data.crop_size=224", "model.widths={conv1: 4}", "model.lrn=[conv1]"],
    ["model=alexnet", "data.size=256", "data.crop_size=224", "model.widths={}", "model.lrn=[conv1,conv2]"],
    ["+trainer.accumulate_grad_batches=2", "seed=1"],
    ["seed=1", "++seed=2", "model.widths={conv1: 8}", "++model.widths.conv1=4"],
    ["trainer.max_epochs=3", "~trainer.max_epochs", "++trainer.max_steps=4"],
    ["logger=csv", "name='a b'", "stop_at_train_error=null"],
    ["scale=smoke", "logger=csv", "name=c", "stop_at_train_error=0.3"],
]
"""Of one sweep or of several: plain values, groups, dictionaries, lists, words with spaces, keys that are added"""
TASK = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "31234"}


@pytest.fixture
def hydra_loader() -> Iterator[tuple[DictConfig, ConfigLoader]]:
    """What Hydra gives to a sweeper: the configuration of the sweep as a whole, and the loader of those of its jobs."""
    register()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield loader.load_configuration("config", [], RunMode.MULTIRUN), loader


@pytest.mark.slow
def test_jobs_that_share_a_composition_are_what_hydra_composes(hydra_loader: tuple[DictConfig, ConfigLoader]):
    composed, loader = hydra_loader
    composer, parser = sweep.Composer(composed, loader), OverridesParser.create()
    theirs_of = {str(job): loader.load_sweep_config(composed, job) for job in JOBS}
    for job in JOBS + JOBS[::-1]:
        ours, theirs = composer.compose(parser.parse_overrides(job)), theirs_of[str(job)]
        assert to_config(ours) == to_config(theirs), job
        assert ours.hydra.sweep.subdir == theirs.hydra.sweep.subdir, job
        assert list(ours.hydra.overrides.task) == job
    assert len(composer.shared) == 5


def test_a_folder_named_by_hydras_own_words_is_each_jobs(hydra_loader: tuple[DictConfig, ConfigLoader]):
    composed, loader = hydra_loader
    composed = loader.load_configuration(
        "config", ["hydra.sweep.subdir=${hydra.job.override_dirname}"], RunMode.MULTIRUN
    )
    composer, parser = sweep.Composer(composed, loader), OverridesParser.create()
    jobs = [composer.compose(parser.parse_overrides(["logger=csv", f"seed={seed}"])) for seed in (1, 2)]
    assert [job.hydra.sweep.subdir for job in jobs] == ["logger=csv,seed=1", "logger=csv,seed=2"]


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
    local.run_jobs([local.Job(run, compose("trainer=ddp", "trainer.devices=2"), [], "1 of 1")], at_once=1)
    assert run.status == "failed"
    assert run.failure.startswith("trainer.devices=2 asks for 2 GPUs and 1 is here")
    assert run.failure in capsys.readouterr().err


@pytest.mark.parametrize(("tasks", "threads"), [("1", {"OMP_NUM_THREADS": "4"}), ("2", {})], ids=["one", "two"])
def test_processes_share_the_cores_of_their_task(
    task: pytest.MonkeyPatch, tmp_path: Path, tasks: str, threads: dict[str, str]
):
    """A lone task starts all processes of a run; of several, each starts one and has cores of its own."""
    task.setenv("SLURM_STEP_NUM_TASKS", tasks)
    task.setattr(local.cpu, "count", lambda: 8)
    seen: list[dict[str, str]] = []
    task.setattr(launch, "Group", lambda words, where, env, *more: seen.append(env))
    local.start(Run(tmp_path / "job"), compose("trainer=ddp", "trainer.accelerator=cpu"), {}, 0)
    assert [{key: value for key, value in env.items() if key == "OMP_NUM_THREADS"} for env in seen] == [threads]
