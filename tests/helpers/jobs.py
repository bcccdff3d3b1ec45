"""Sweeps of a small AlexNet on several processes: their overrides, their jobs, and what is left of them."""

from __future__ import annotations

import json
import time
from pathlib import Path

from alexnet_pl.runs.run import Run

NET = [
    "model=alexnet", "model.input_size=67", "data.resize=72", "data.crop_size=67", "train_eval_images=0",
    "train_error_window=150",
    "model.widths={conv1: 4, conv2: 4, conv3: 4, conv4: 4, conv5: 4, fc6: 8, fc7: 8}", "trainer.accelerator=cpu",
    "data.batch_size=50", "trainer.limit_val_batches=1",
]  # fmt: skip

SLURM = {
    "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "31234", "SLURM_STEP_NODELIST": "gpu[03-05,9],big1",
}  # fmt: skip
"""What srun tells the last of four tasks on two machines"""
TORCHRUN = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "15000"}
"""What torchrun tells the second of two processes"""


def processes_in(folder: Path) -> list[int]:
    """Return the processes that were started in a folder and still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").resolve() == folder.resolve() and process.joinpath("cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def jobs(folder: Path) -> dict[str, Run]:
    """Return the jobs of a sweep by the overrides that tell them apart."""
    asked = json.loads((folder / "sweep.json").read_text())
    return {
        " ".join(o for o in overrides if o.startswith("trainer=")): Run(folder / name)
        for name, overrides in asked.items()
    }


def assert_none_left(folder: Path) -> None:
    """Wait for the end of W&B's own process, a moment after the one it served."""
    deadline = time.monotonic() + 10
    while left := processes_in(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def check_run(run: Run, processes: int, epochs: int = 1) -> None:
    """Check a finished run: of the right size, with one W&B run, and each image counted once."""
    (wandb,) = run.folder.glob("wandb/offline-run-*")
    assert wandb.name.endswith(run.identity["id"])
    log = (run.folder / "train.log").read_text()
    assert (f"on {processes} devices" in log) is (processes > 1)
    rows = run.metrics
    seen = [row["images_seen"] for row in rows if "train/epoch_error" in row]
    assert seen == [400 * epoch for epoch in range(1, epochs + 1)]
    assert run.done["metrics"]["images_seen"] == 400 * epochs
