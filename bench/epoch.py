"""A whole epoch from files: AlexNet from a packed store, against torchvision's reference and timm's loader.

    python bench/epoch.py                                        a minute on two cores
    python bench/epoch.py --device cuda --batch-size 128 --steps 40

The same photographs, drawn for the purpose, and the same net (model=torchvision). The reference is what torchvision's
training script does without options: an image folder, RandomResizedCrop and a flip, NCHW, fp32, torch's SGD; its two
reading processes stay from epoch to epoch. timm's loader reads for the same loop where timm is installed. Ours reads
the raw store that `prepare` wrote once, draws crops, flips and the paper's colour noise, and trains through Lightning,
channels-last in bf16.
"""

from __future__ import annotations

import importlib.util
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import photographs
import pytorch_lightning as pl
import ratios
import torch
import torch.nn.functional as F
import torchvision
from loop import Clock
from rich.console import Console
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import alexnet_pl
from alexnet_pl.config.schema import as_dict
from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.prepare.options import Options
from alexnet_pl.prepare.prepare import prepare
from alexnet_pl.runs.run import Run
from alexnet_pl.training import loggers
from alexnet_pl.training.module import ImageClassifier

OURS = "ours from a packed store, bf16"
REFERENCE, TIMM = "torchvision's reference, fp32", "torchvision's loop with timm's loader, fp32"
BAR = 1.5  # on two cores at batch 64, against either


def ours(folder: Path, device: str, batch_size: int) -> Callable[[], float]:
    """Images per second of an epoch, our way."""
    cfg = alexnet_pl.compose(
        "experiment=alexnet",
        "model=torchvision",
        "optim=sgd_2012",
        "optim.lr=0.01",
        "data=imagenet",
        "data.color_noise=released_2012",
        f"data.root='{folder / 'store'}'",
        f"data.batch_size={batch_size}",
        "logger=csv",
        "trainer.limit_val_batches=0",
        "test_views=0",
    )
    images = ImageDataModule(cfg)

    def epoch() -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as place:
            run = Run(Path(place))
            run.start(as_dict(cfg), [])
            trainer = pl.Trainer(
                accelerator=device,
                devices=1,
                precision="bf16-mixed",
                max_epochs=1,
                limit_val_batches=0,
                logger=loggers.MetricsCSV(run),
                callbacks=[clock],
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
            )
            trainer.fit(ImageClassifier(cfg, images.input_size), images)
        return len(images.train) / clock.seconds

    return epoch


def torchvisions(folder: Path, batch_size: int) -> Iterable[Any]:
    """Batches as its reference reads them."""
    to_floats = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    normalize = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    transform = v2.Compose(
        [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), *to_floats, normalize]
    )
    images = torchvision.datasets.ImageFolder(str(folder / "source"), transform)
    return DataLoader(images, batch_size, shuffle=True, num_workers=2, persistent_workers=True)


def timms(folder: Path, batch_size: int) -> Iterable[Any]:
    """Batches as timm reads them, without augmentation beyond the reference's."""
    from timm.data import ImageDataset, create_loader

    images = ImageDataset(str(folder / "source"))
    options = {"is_training": True, "use_prefetcher": False, "num_workers": 2, "color_jitter": 0.0}
    return create_loader(images, (3, 224, 224), batch_size, **options)


def reference(
    loader: Callable[[Path, int], Iterable[Any]], folder: Path, device: str, batch_size: int
) -> Callable[[], float]:
    """Images per second of an epoch of torchvision's own loop."""
    batches = loader(folder, batch_size)
    net = torchvision.models.alexnet().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def epoch() -> float:
        seen = 0
        start = time.perf_counter()
        for images, labels in batches:
            loss = F.cross_entropy(net(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            seen += len(images)
        return seen / (time.perf_counter() - start)

    return epoch


def way(name: str, folder: Path, device: str, batch_size: int) -> Callable[[], float]:
    """In a process of its own."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if name == OURS:
        return ours(folder, device, batch_size)
    return reference(timms if name == TIMM else torchvisions, folder, device, batch_size)


def main() -> None:
    parser = ratios.arguments(__doc__, rounds=3, steps=6)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    given = parser.parse_args()
    names = [OURS, REFERENCE]
    if importlib.util.find_spec("timm"):
        names.append(TIMM)
    else:
        print(f"{TIMM}: left out, as timm is not installed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs.draw(folder / "source", given.steps * given.batch_size)
        prepare(folder / "source", folder / "store", Options(form="raw"), Console(quiet=True))
        ways = {
            name: ratios.Apart(
                partial(way, name, folder, given.device, given.batch_size), "bf16-mixed" if name == OURS else None
            )
            for name in names
        }
        speeds = ratios.interleaved(ways, given.rounds)
    print(f"\n{ratios.machine(given.device)}, epochs of {given.steps} batches of {given.batch_size}")
    for name, values in speeds.items():
        print(f"{statistics.median(values):8,.1f} images/s  {name}")
    bar = BAR if given.device == "cpu" else None
    rows = [ratios.ratio(speeds[OURS], speeds[peer], f"an epoch: {OURS} / {peer}", bar) for peer in names[1:]]
    ratios.print_rows(rows, given.json)


if __name__ == "__main__":
    main()
