"""How much of a bare PyTorch loop's speed training through Lightning keeps, and what memory layout and precision buy.

    python bench/loop.py                 two minutes on two cores
    python bench/loop.py --only-plain    the machine's speed alone, in seconds

First comes the speed of the machine, by which times in docs/results.md are compared: the plain loop on two threads.
Then every variant takes the same steps of the convnet (width 1, batch 128) on the generated images: gather, centre,
forward, backward, update. Those in bf16 are left out where the CPU has none.
The plain loop is what one would write first: a DataLoader over tensors centred beforehand, NCHW, fp32, each activation
right after its convolution, torch's SGD. Each way has a process of its own, ours with the settings of a job of a sweep.
Printed are the median images per second of each variant, and its ratio to its peer (see ratios.py).
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path

import pytorch_lightning as pl
import ratios
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import alexnet_pl
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.model.build import build_net
from alexnet_pl.runs.run import Run
from alexnet_pl.training import loggers, optim
from alexnet_pl.training.module import ImageClassifier

LIGHTNING, LIGHTNING_BF16 = "through Lightning, channels-last fp32", "through Lightning, channels-last bf16"
BARE, BARE_BF16 = "bare loop, channels-last fp32", "bare loop, channels-last bf16"
PLAIN, LIGHTNING_NCHW = "plain loop, NCHW fp32", "through Lightning, NCHW fp32"
MACHINE = "the machine's speed: the plain loop on two threads"
PAIRS = [  # and the least that the ratio must be
    (LIGHTNING, BARE, 0.95),
    (LIGHTNING_BF16, BARE_BF16, 0.9),  # the same millisecond of a shorter step
    (LIGHTNING, PLAIN, 1.2),
    (LIGHTNING_BF16, PLAIN, 2.0),
    (LIGHTNING, LIGHTNING_NCHW, 1.2),
]


def configuration(channels_last: bool, *more: str) -> Config:
    """One of Figure 1's curves, without what a run does beside its steps."""
    layout = f"model.channels_last={str(channels_last).lower()}"
    fixed = ["model.width=1", "data.batch_size=128", "optim.lr=0.004", "train_error_window=2500", "train_eval_images=0"]
    return alexnet_pl.compose("experiment=figure1", "logger=csv", layout, *fixed, *more)


def plain(datamodule: ImageDataModule, steps: int) -> float:
    """Images per second of what one would write first."""
    cfg = configuration(False, "model.order={conv1: act_lrn_pool}")
    net = build_net(cfg.model, 32, seed=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=cfg.optim.lr, momentum=0.9)
    images = (datamodule.train.images - datamodule.mean).permute(0, 3, 1, 2).contiguous()  # float (N, 3, 32, 32)
    batches = DataLoader(TensorDataset(images, datamodule.train.labels), cfg.data.batch_size, shuffle=True)
    running_loss = 0.0
    start = time.perf_counter()
    for inputs, labels in islice(batches, steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(inputs), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    return steps * cfg.data.batch_size / (time.perf_counter() - start)


def plain_on_two_threads(datamodule: ImageDataModule, steps: int) -> float:
    """Images per second of the plain loop, the same on every machine."""
    torch.set_num_threads(2)
    return plain(datamodule, steps)


def bare(datamodule: ImageDataModule, steps: int, bf16: bool) -> float:
    """Images per second of our parts without Lightning, counting errors as a run does."""
    cfg = configuration(channels_last=True)
    net = build_net(cfg.model, 32, seed=1)
    optimizer = optim.build_optimizer(net, cfg.optim)
    wrong = torch.zeros(())
    start = time.perf_counter()
    for step, (images, labels, _) in enumerate(datamodule.train_dataloader()):
        if step == steps:
            break
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            logits = net(images)
            loss = F.cross_entropy(logits, labels)
        wrong += (logits.argmax(1) != labels).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return steps * cfg.data.batch_size / (time.perf_counter() - start)


class Clock(pl.Callback):
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.start


def lightning(images: ImageDataModule, steps: int, channels_last: bool, precision: str) -> float:
    """Images per second through our module, with its running error and metrics.csv."""
    cfg = configuration(channels_last)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        run.start(as_dict(cfg), [])
        trainer = pl.Trainer(
            accelerator="cpu",
            precision=precision,  # type: ignore[arg-type]
            max_epochs=1,
            limit_train_batches=steps,
            limit_val_batches=0,
            logger=loggers.MetricsCSV(run),
            callbacks=[clock],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(ImageClassifier(cfg, images.input_size), images)
    return steps * cfg.data.batch_size / clock.seconds


WAYS: dict[str, tuple[Callable[[ImageDataModule, int], float], str | None]] = {  # and the precision of ours
    PLAIN: (plain, None),
    BARE: (partial(bare, bf16=False), "32-true"),
    LIGHTNING: (partial(lightning, channels_last=True, precision="32-true"), "32-true"),
    LIGHTNING_NCHW: (partial(lightning, channels_last=False, precision="32-true"), "32-true"),
    BARE_BF16: (partial(bare, bf16=True), "bf16-mixed"),
    LIGHTNING_BF16: (partial(lightning, channels_last=True, precision="bf16-mixed"), "bf16-mixed"),
}


def has_bf16() -> bool:
    """Whether the CPU multiplies in bf16; elsewhere it is emulated, many times as slowly as fp32."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and bool({"avx512_bf16", "amx_bf16", "bf16"} & set(info.read_text().split()))


def prepare(way: str, steps: int) -> Callable[[], float]:
    """In the process of one way."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    images = ImageDataModule(configuration(True))
    images.setup("fit")
    return partial(plain_on_two_threads if way == MACHINE else WAYS[way][0], images, steps)


def main() -> None:
    parser = ratios.arguments(__doc__, rounds=5, steps=40)
    parser.add_argument("--only-plain", action="store_true", help="print the machine's speed and stop there")
    given = parser.parse_args()
    speed = ratios.interleaved({MACHINE: ratios.Apart(partial(prepare, MACHINE, given.steps), None)}, given.rounds)
    print(f"{statistics.median(speed[MACHINE]):,.0f} images/s  {MACHINE}", flush=True)
    if given.only_plain:
        return
    names = [way for way in WAYS if has_bf16() or way not in (BARE_BF16, LIGHTNING_BF16)]
    ways = {way: ratios.Apart(partial(prepare, way, given.steps), WAYS[way][1]) for way in names}
    speeds = ratios.interleaved(ways, given.rounds)
    print(f"\n{ratios.machine()}, {given.rounds} rounds")
    for way, values in speeds.items():
        print(f"{statistics.median(values):8,.0f} images/s  {way}")
    pairs = [(ours, peer, bar) for ours, peer, bar in PAIRS if {ours, peer} <= set(names)]
    rows = [ratios.ratio(speeds[ours], speeds[peer], f"{ours} / {peer}", bar) for ours, peer, bar in pairs]
    ratios.print_rows(rows, given.json)


if __name__ == "__main__":
    main()
