"""How long a command takes to start, and what a sweep gains from a warm process and from several jobs at once.

    python bench/start.py                                  two minutes on two cores
    python bench/start.py --steps 400                      jobs of five epochs

By the clock: the help; what Python imports for a run; a run that trains one batch, from its command to its end. Then
ten of them as a sweep, and the time until the first of 100 jobs starts, which differ in their seed. At last a sweep of
two jobs of so many batches, one after the other with all threads, and both at once with half of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ratios

from alexnet_pl import cpu

TORCH, LIGHTNING, OPTIMIZER = "import torch", "import pytorch_lightning", "import torch._dynamo"
HELP, RUN = "--help", "a run of one batch"
TEN, FIRST = "a sweep of ten runs of one batch", "the first of 100 jobs starts"
IN_TURN, AT_ONCE = "two jobs, one after the other", "two jobs at once"
JOBS = [
    "logger=csv",
    "train_error_window=1000",
    "train_eval_images=0",
    "trainer.limit_val_batches=0",
    "trainer.max_epochs=1",
]
ONE_BATCH = [*JOBS, "trainer.limit_train_batches=1"]


def python(code: str) -> float:
    """Seconds of a program."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def command(threads: int, *words: str) -> float:
    """Seconds of our command."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        ratios.train(Path(folder), threads, *words)
        return time.perf_counter() - start


def first_job(*words: str) -> float:
    """Seconds until the first job of a sweep has its folder; then the sweep is stopped."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        arguments = [sys.executable, "-m", "alexnet_pl.train", *words]
        with subprocess.Popen(arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sweep:
            while not list(Path(folder).glob("runs/*/*/run.json")) and sweep.poll() is None:
                time.sleep(0.01)
            taken = time.perf_counter() - start
            sweep.terminate()
        return taken


def main() -> None:
    given = ratios.arguments(__doc__, rounds=3, steps=80).parse_args()
    cores = cpu.count()
    jobs = ["-m", *JOBS, f"trainer.limit_train_batches={given.steps}", "seed=1,2"]
    ways: dict[str, Callable[[], float]] = {
        TORCH: partial(python, TORCH),
        LIGHTNING: partial(python, LIGHTNING),
        OPTIMIZER: partial(python, f"{LIGHTNING}; {OPTIMIZER}"),
        HELP: partial(command, cores, HELP),
        RUN: partial(command, cores, *ONE_BATCH),
        TEN: partial(command, cores, "-m", *ONE_BATCH, "seed=range(10)"),
        FIRST: partial(first_job, "-m", *ONE_BATCH, "seed=range(100)"),
        IN_TURN: partial(command, cores, *jobs),
        AT_ONCE: partial(command, max(1, cores // 2), *jobs, "hydra.sweeper.n_jobs=2"),
    }
    taken = ratios.interleaved(ways, given.rounds)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    print(f"\n{ratios.machine()}, {given.rounds} rounds")
    for name, seconds in middle.items():
        print(f"{seconds:8.2f} s  {name}")
    print(
        f"of the run of one batch: torch {middle[TORCH]:.2f} s, the rest of Lightning "
        f"{middle[LIGHTNING] - middle[TORCH]:.2f} s, torch._dynamo, which torch's optimisers import, "
        f"{middle[OPTIMIZER] - middle[LIGHTNING]:.2f} s, and all else {middle[RUN] - middle[OPTIMIZER]:.2f} s"
    )
    rows = [
        ratios.ratio(taken[OPTIMIZER], taken[RUN], f"{RUN} / {LIGHTNING}; {OPTIMIZER}", 0.6),
        ratios.ratio([10 * seconds for seconds in taken[RUN]], taken[TEN], f"{TEN} / ten commands of one run", 2),
        ratios.ratio(taken[IN_TURN], taken[AT_ONCE], f"a sweep: {AT_ONCE} / {IN_TURN}", 1.0),
    ]
    ratios.print_rows(rows, given.json)


if __name__ == "__main__":
    main()
