"""Sweeps as jobs of a real Slurm, of one node, on this machine: pytest -m slurm.

It needs Slurm's programs, or root on Debian to install them; see tests/helpers/slurm_cluster.sh.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_pl import ROOT
from tests.helpers.commands import start
from tests.helpers.jobs import NET, assert_none_left, check_run, jobs
from tests.helpers.processes import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=20", "hydra.launcher.cpus_per_task=1"]


@pytest.fixture(scope="module", params=["linuxproc", "cgroup"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment variables of the cluster; cgroup signals as most do, linuxproc the children of tasks as well."""
    folder = tmp_path_factory.mktemp("s")
    script = str(ROOT / "tests" / "helpers" / "slurm_cluster.sh")
    env = os.environ | {"PROCTRACK": request.param}
    begun = subprocess.run([script, "start", str(folder)], env=env, capture_output=True, text=True)
    if begun.returncode == 3:
        pytest.skip(begun.stderr.strip())
    assert begun.returncode == 0, begun.stderr
    try:
        yield {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin"}
    finally:
        subprocess.run([script, "stop", str(folder)], check=True)


def job_id(number: int) -> str:
    """Of a job of the sweep, from its place; with its place, as the bare number of an array means all of its jobs."""
    lines = subprocess.run(["squeue", "-h", "-o", "%K %F_%K"], capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in lines.splitlines())[str(number)]


def test_a_sweep_of_two_jobs_one_of_them_preempted(
    cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The job with two processes gets the signal that announces preemption, and goes on from its checkpoint."""
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    over = ["trainer=auto,towers", "trainer.limit_train_batches=8", "trainer.max_epochs=40", "name=cluster"]
    sweep = start(tmp_path, "-m", *NET, *SLURM, *over)
    try:
        wait_until((tmp_path / "runs/cluster/sweep.json").is_file, 60, "the sweep's start")
        found = jobs(tmp_path / "runs" / "cluster")
        wait_until(
            (found["trainer=towers"].folder / "metrics.csv").is_file, 90, "the start of the job with two processes"
        )
        number = job_id(1)
        subprocess.run(["scancel", "--signal=USR2", number], check=True)
        wait_until(lambda: found["trainer=towers"].failure, 30, "the end of the job with two processes")
        assert "the checkpoint is written" in found["trainer=towers"].failure
        out, err = sweep.communicate(timeout=240)
    finally:
        sweep.kill()
    print(out, err, sep="\n")
    print((found["trainer=towers"].folder / "train.log").read_text())
    assert sweep.returncode == 0, err
    assert "2 of 2 jobs done" in out
    check_run(found["trainer=auto"], 1, epochs=40)
    towers = found["trainer=towers"]
    assert len(towers.identity["continued"]) == 1
    assert ", continued after " in (towers.folder / "train.log").read_text()
    folders = [wandb.name.rpartition("-")[2] for wandb in towers.folder.glob("wandb/offline-run-*")]
    assert folders == [towers.identity["id"]] * 2, "both sittings are one W&B run"
    seen = [row["images_seen"] for row in towers.metrics if "train/epoch_error" in row]
    assert seen == [400 * epoch for epoch in range(1, 41)], "no epoch is lost, and none counted twice"
    restarts = subprocess.run(["scontrol", "-o", "show", "job", number], capture_output=True, text=True).stdout
    assert "Restarts=1" in restarts
    assert "NumTasks=2" in restarts
    assert_none_left(tmp_path)
