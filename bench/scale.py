"""Whether `alexnet_pl.estimate` is right: runs of two processes against what it says of them from steps of one.

    python bench/scale.py                                  a minute on two cores

One thread for each process. The convnet trains data parallel, AlexNet with a quarter of its kernels (images of 112
pixels) as two towers. The estimate is `estimate.measure` in one process and the model in `estimate.py`, with its usual
link; the run is the command's, in its own windows, the first left out. Printed is how well both agree: the smaller over
the larger, 1 at best. The delay of an exchange was fitted to runs like these two; the rest was not.
"""

from __future__ import annotations

import csv
import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import ratios
from lightning_fabric import Fabric

import alexnet_pl
from alexnet_pl import estimate
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.parallel import layouts

RUNS = {
    "the convnet, ddp": ["experiment=figure1", "trainer=ddp"],
    "a quarter of AlexNet, towers": [
        "experiment=alexnet",
        "model=released_2012",
        "model.width=0.25",
        "model.input_size=112",
        "data.resize=128",
        "data.batch_size=32",
        "data.color_noise=off",
        "optim=sgd_2012",
        "optim.lr=0.001",
        "test_views=0",
        "trainer=towers",
    ],
}
BAR = 0.6
SMALL = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=0",
    "train_eval_images=0",
    "logger=csv",
]


def estimated(overrides: list[str]) -> float:
    """Images per second, from steps of one process."""
    cfg = alexnet_pl.compose(*overrides, *SMALL)
    images, _ = estimate.open_images(cfg)
    precision = layouts.resolve_precision(cfg.trainer)
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
    measured = estimate.measure(cfg, images, fabric)
    plan = layer_specs(cfg.model, cfg.data.input_size)
    where, link, delay = layouts.layout(cfg.trainer), estimate.LINKS["cpu"] * 1e9, estimate.DELAYS["cpu"]
    return cfg.data.batch_size / measured.step(where, plan, cfg.data.batch_size, link, delay, precision)


def run(overrides: list[str], steps: int) -> float:
    """Images per second of the command, in two processes."""
    batch_size = alexnet_pl.compose(*overrides, *SMALL).data.batch_size
    batches = [f"trainer.limit_train_batches={steps}", f"train_error_window={max(1, steps // 4) * batch_size}"]
    with tempfile.TemporaryDirectory() as folder:
        ratios.train(Path(folder), 1, *overrides, *SMALL, *batches)
        (metrics,) = Path(folder).glob("runs/*/*/metrics.csv")
        rows = [row for row in csv.DictReader(metrics.open()) if row["train/loss"]]
    return statistics.median(float(row["images_per_second"]) for row in rows[1:] or rows)


def main() -> None:
    given = ratios.arguments(__doc__, rounds=2, steps=24).parse_args()
    ways: dict[tuple[str, str], Callable[[], float]] = {}
    for name, overrides in RUNS.items():
        ways[name, "estimate"] = ratios.Apart(partial(partial, estimated, overrides), "32-true")
        ways[name, "run"] = partial(run, overrides, given.steps)
    speeds = ratios.interleaved(ways, given.rounds)
    print(f"\n{ratios.machine()}, {given.rounds} rounds")
    rows = []
    for name in RUNS:
        said, seen = speeds[name, "estimate"], speeds[name, "run"]
        print(f"{statistics.median(said):8,.0f} images/s estimated, {statistics.median(seen):,.0f} seen  {name}")
        agreement = [min(a / b, b / a) for a, b in zip(said, seen, strict=True)]
        rows.append(
            ratios.row(f"{name}: the run's speed and the estimate's, smaller / larger", agreement, "agreement", BAR)
        )
    ratios.print_rows(rows, given.json)


if __name__ == "__main__":
    main()
