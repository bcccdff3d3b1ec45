"""How much of a bare PyTorch loop's speed training through Lightning keeps, and what the memory layout buys.

    python bench/loop.py                 about a minute on two cores
    python bench/loop.py --rounds 9

Every variant takes the same steps of the convnet on the generated pictures: gather, centre, forward, backward, update.
Rounds are interleaved (each runs every variant once, in turn), so a drift of the machine meets all alike; printed are
the median pictures per second of each variant, and the median over the rounds of its ratio to its peer, with the range.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as alexnet-train does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from alexnet_pl import config, data, logger, model, optim, provenance, runs
from alexnet_pl.module import Classifier


def configuration(channels_last: bool) -> config.Config:
    cfg = config.Config(name="bench", seed=1, window=2500, subset=0)
    cfg.model = config.Model(
        name="convnet", table=config.Table.convnet, num_classes=10, image_size=32, channels_last=channels_last
    )
    cfg.data = config.Data(name=config.DataSet.shapes, num_classes=10)
    cfg.optim = config.Optim(lr=0.002)
    cfg.logger = config.Logger(name=config.LoggerName.csv)
    return cfg


def bare(datamodule: data.Pictures, steps: int) -> float:
    """Pictures per second of a plain loop, channels-last fp32."""
    cfg = configuration(channels_last=True)
    net = model.build(cfg.model, 32, seed=1)
    optimizer = optim.build(net, cfg.optim)
    wrong = torch.zeros(())
    start = time.perf_counter()
    for step, (images, labels, _) in enumerate(datamodule.train_dataloader()):
        if step == steps:
            break
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


def lightning(datamodule: data.Pictures, steps: int, channels_last: bool, precision: str) -> float:
    """Pictures per second through our module, with its running error and metrics.csv."""
    cfg = configuration(channels_last)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        run = runs.Run(Path(folder))
        trainer = pl.Trainer(
            accelerator="cpu",
            precision=precision,  # type: ignore[arg-type]
            max_epochs=1,
            limit_train_batches=steps,
            limit_val_batches=0,
            logger=logger.MetricsCSV(run),
            callbacks=[clock],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(Classifier(cfg, datamodule.image_size), datamodule)
    return steps * cfg.data.batch_size / clock.seconds


VARIANTS: dict[str, Callable[[data.Pictures, int], float]] = {
    "bare loop, channels-last fp32": bare,
    "through Lightning, channels-last fp32": partial(lightning, channels_last=True, precision="32-true"),
    "through Lightning, NCHW fp32": partial(lightning, channels_last=False, precision="32-true"),
    "through Lightning, channels-last bf16": partial(lightning, channels_last=True, precision="bf16-mixed"),
}
PAIRS = [
    ("through Lightning, channels-last fp32", "bare loop, channels-last fp32"),
    ("through Lightning, channels-last fp32", "through Lightning, NCHW fp32"),
    ("through Lightning, channels-last bf16", "through Lightning, NCHW fp32"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds that count, after one to warm up")
    parser.add_argument("--steps", type=int, default=60, help="training steps of each variant in a round, at most 79")
    rounds, steps = vars(parser.parse_args()).values()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    datamodule = data.Pictures(configuration(True))
    datamodule.setup("fit")
    speeds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for i in range(rounds + 1):
        for name, run in VARIANTS.items():
            speed = run(datamodule, steps)
            if i:
                speeds[name].append(speed)
    print(f"\n{provenance.processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {rounds} rounds")
    for name, values in speeds.items():
        print(f"{statistics.median(values):8,.0f} images/s  {name}")
    for ours, peer in PAIRS:
        ratios = [a / b for a, b in zip(speeds[ours], speeds[peer], strict=True)]
        print(f"{statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})  {ours} / {peer}")


if __name__ == "__main__":
    main()
