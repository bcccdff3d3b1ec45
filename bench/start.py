"""How long a job takes to start, and what a sweep gains from several jobs at once.

    python bench/start.py                                  a minute on two cores
    python bench/start.py --steps 78                       jobs of a whole epoch

By the clock: a job of a sweep that trains one batch, from its command to its end, and what of that are the imports;
then a sweep of two jobs of so many batches, one after the other with all threads, and both at once with half of them
(`hydra/launcher=joblib hydra.launcher.n_jobs=2`).
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

TORCH, LIGHTNING = "import torch", "import pytorch_lightning"
HELP, JOB = "--help", "a job of one batch"
IN_TURN, AT_ONCE = "two jobs, one after the other", "two jobs at once"
JOBS = [
    "logger=csv",
    "train_error_window=1000",
    "train_eval_images=0",
    "trainer.limit_val_batches=0",
    "trainer.max_epochs=1",
]
TWO = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


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


def main() -> None:
    given = ratios.arguments(__doc__, rounds=3, steps=40).parse_args()
    cores = cpu.count()
    jobs = ["-m", *JOBS, f"trainer.limit_train_batches={given.steps}", "seed=1,2"]
    ways: dict[str, Callable[[], float]] = {
        TORCH: partial(python, TORCH),
        LIGHTNING: partial(python, LIGHTNING),
        HELP: partial(command, cores, HELP),
        JOB: partial(command, cores, *JOBS, "trainer.limit_train_batches=1"),
        IN_TURN: partial(command, cores, *jobs),
        AT_ONCE: partial(command, max(1, cores // 2), *jobs, *TWO),
    }
    taken = ratios.interleaved(ways, given.rounds)
    print(f"\n{ratios.machine()}, {given.rounds} rounds")
    for name, values in taken.items():
        print(f"{statistics.median(values):8.2f} s  {name}")
    rows = [
        ratios.ratio(taken[LIGHTNING], taken[JOB], f"{JOB} / {LIGHTNING}", 0.65),
        ratios.ratio(taken[IN_TURN], taken[AT_ONCE], f"a sweep: {AT_ONCE} / {IN_TURN}", 1.1),
    ]
    ratios.print_rows(rows, given.json)


if __name__ == "__main__":
    main()
