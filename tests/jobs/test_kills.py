"""Killed with SIGKILL at random moments, a run and a sweep end bit for bit as if nobody had touched them."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from alexnet_pl.runs.run import Run, find_runs
from tests.helpers.jobs import processes_in
from tests.helpers.processes import Process, wait_until
from tests.helpers.runs import TINY, assert_same_training

pytestmark = pytest.mark.slow

KILLS = 3
"""Of a run, and as many of a sweep of three jobs; 20 of each have been tried as well"""
ROWS = 9
"""Rows of metrics.csv in an epoch: of eight windows, and its own"""
SMALL = (*TINY, "model.width=0.25", "train_eval_images=0", "trainer.limit_train_batches=8", "name=a")
RUN, SWEEP = (*SMALL, "seed=1"), ("-m", *SMALL, "seed=1,2,3")


def start(folder: Path, arguments: tuple[str, ...]) -> Process:
    return Process(folder, "alexnet_pl.train", *arguments, f"trainer.max_epochs={2 * KILLS + 1}")


def finish(folder: Path, arguments: tuple[str, ...]) -> list[Run]:
    """Run a command to its end; its runs, in the order of their seeds."""
    process = start(folder, arguments)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "Traceback" not in out + err
    return sorted(find_runs(folder / "runs" / "a"), key=lambda run: run.identity["seed"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Three runs that nobody has touched."""
    return finish(tmp_path_factory.mktemp("whole"), SWEEP)


def kill(folder: Path, arguments: tuple[str, ...], seed: int, chance: random.Random) -> None:
    """Start a command, and kill all its processes once the run of this seed has begun, at most 1.5 epochs later."""

    def found() -> Run | None:
        return next((Run(path.parent) for path in folder.glob(f"runs/a/*seed={seed},*/run.json")), None)

    def sittings() -> int:
        return 1 + len(run.identity.get("continued", [])) if (run := found()) else 0

    before = found()
    aim = len(before.metrics) // ROWS * ROWS if before else 0
    aim += chance.randrange(ROWS + ROWS // 2)
    sitting = sittings() + 1
    process = start(folder, arguments)
    wait_until(lambda: sittings() == sitting and (run := found()) and len(run.metrics) >= aim)
    time.sleep(chance.uniform(0, 0.05))  # between two rows, or in the midst of one
    assert process.returncode is None
    os.kill(process.pid, signal.SIGSTOP)  # a sweep would go on to its next job
    for number in processes_in(folder):
        os.kill(number, signal.SIGKILL)
    process.wait(timeout=60)
    wait_until(lambda: not processes_in(folder))


@pytest.mark.parametrize("arguments", [RUN, SWEEP], ids=["run", "sweep"])
def test_the_same_command_leads_to_the_same_end(arguments: tuple[str, ...], whole: list[Run], tmp_path: Path):
    chance = random.Random(2012)
    seeds = [1] if arguments is RUN else [1, 2, 3]
    for number in range(KILLS):
        kill(tmp_path, arguments, seeds[number * len(seeds) // KILLS], chance)
    for run, untouched in zip(finish(tmp_path, arguments), whole, strict=False):
        assert_same_training(run, untouched)
        assert run.done["metrics"] == untouched.done["metrics"]
        assert not list(run.folder.rglob("*.tmp")), "and nothing is left of what was half written"
