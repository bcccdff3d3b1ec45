"""Estimate hours, memory and traffic of a run on 1 to 64 devices, from some measured steps.

    python -m alexnet_pl.estimate experiment=alexnet
    python -m alexnet_pl.estimate experiment=alexnet --link 300     links between the devices of 300 GB/s

A step on one device takes a fixed time and a time for each image. A line through three measured
batches gives both. On several devices, each device has a share of both:

                 fixed time                           time of the images
    ddp          whole (each updates all weights)     of its part of the batch
    towers       half (it has half of the weights)    half, of its part of the batch
    owt          its share of the weights             of its part of the batch

Add the bytes that the device sends (`traffic.bytes_per_step`) at the rate of its link, and a delay
for each time it sends (`traffic.collectives_per_step`). The model assumes that nothing overlaps. It
leaves out validation, start-up and checkpoints. `bench/scale.py` compares it with runs of two processes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from alexnet_pl import compose, cpu
from alexnet_pl.config.schema import Config
from alexnet_pl.console import exit_on_error, start_command
from alexnet_pl.data import augment, store
from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.data.length import images_in_run
from alexnet_pl.data.loader import BatchLoader, PackedDataset, Replica
from alexnet_pl.data.pixel_stats import ColorPCA
from alexnet_pl.files import expand
from alexnet_pl.jobs import checks
from alexnet_pl.model.build import build_net, set_arithmetic
from alexnet_pl.model.layers import memory_format
from alexnet_pl.model.specs import LayerSpec, layer_specs
from alexnet_pl.parallel import layouts
from alexnet_pl.parallel.layouts import Layout
from alexnet_pl.parallel.memory import memory_bytes
from alexnet_pl.parallel.traffic import bytes_per_step, collectives_per_step
from alexnet_pl.training import optim
from alexnet_pl.training.fit import silence_lightning

IMAGENET = 1_281_167
"""Training images of ILSVRC-2012, used while there is no store"""
LINKS = {"cpu": 2.0, "cuda": 50.0}
"""Gigabytes per second that a device sends, without --link: through memory by gloo, or about PCIe 5"""
DELAYS = {"cpu": 2.5e-3, "cuda": 30e-6}
"""Seconds until all have met. gloo's is fitted to runs of two processes. NCCL's is the usual order, not measured."""
ENOUGH = 2.0
"""Seconds of measuring steps, or reading a store, after which no further round begins"""


@dataclass(frozen=True)
class Measured:
    """Time that one device needs for a step."""

    fixed: float  # seconds
    per_image: float  # seconds
    batches: dict[int, float]  # images -> seconds of a step, as they were measured
    peak: int = 0  # bytes of GPU memory at the largest batch

    def step(
        self, where: Layout, plan: list[LayerSpec], batch_size: int, link: float, delay: float, precision: str
    ) -> float:
        """Return the seconds of a step in a layout, by the model above.

        Args:
            link: bytes per second that a device sends.
            delay: seconds for each time it sends, besides its bytes.
        """
        parameters = sum(step.parameters for step in plan)
        full = sum(step.parameters for step in plan if step.kind == "full")
        share = 1 / where.towers
        if where.name == "owt":
            share = 1 - full / parameters * (1 - 1 / where.processes)
        own_images = batch_size / (where.processes if where.name == "owt" else where.data) / where.towers
        sending = bytes_per_step(where, plan, batch_size, precision) / link + collectives_per_step(where, plan) * delay
        return self.fixed * share + self.per_image * own_images + sending


def measure(cfg: Config, datamodule: ImageDataModule, fabric: Fabric) -> Measured:
    """Time the steps of a run at its batch size, a half and a quarter of it.

    A step augments, goes forward and backward, and updates."""
    device, size = fabric.device, cfg.data.batch_size
    layout = memory_format(cfg.model.channels_last)
    plain = build_net(cfg.model, cfg.data.input_size, cfg.seed)
    net, optimizer = fabric.setup(plain, optim.build_optimizer(plain, cfg.optim), _reapply_compile=False)
    shape = size, cfg.data.size, cfg.data.size, 3
    images = torch.randint(256, shape, dtype=torch.uint8, generator=augment.stream(1)).to(device)
    labels = torch.zeros(size, dtype=torch.int64, device=device)

    def step(count: int) -> float:
        began = _now(device)
        draws = datamodule.train_draws(0, Replica().slice_of(count)).to(device)
        inputs = datamodule.train_input(images[:count], draws).contiguous(memory_format=layout)
        loss = F.cross_entropy(net(inputs), labels[:count])
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        return _now(device) - began

    taken: dict[int, list[float]] = {max(1, size // part): [] for part in (1, 2, 4)}
    for count in taken:
        step(count)
    began = time.perf_counter()
    while len(taken[size]) < 3 or (time.perf_counter() - began < ENOUGH and len(taken[size]) < 100):
        for count, seconds in taken.items():  # in turn: a drift of the machine meets all alike
            seconds.append(step(count))
    batches = {count: statistics.median(seconds) for count, seconds in taken.items()}
    slope, fixed = np.polyfit(list(batches), list(batches.values()), 1) if len(batches) > 1 else (0.0, 0.0)
    if fixed < 0 or slope <= 0:  # noise, or a batch of one: all of it is the images'
        slope, fixed = batches[size] / size, 0.0
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Measured(float(fixed), float(slope), batches, peak)


def _now(device: torch.device) -> float:
    """Return the time when the device has finished its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def loading_rate(datamodule: ImageDataModule, batch_size: int) -> float | None:
    """Return the images per second that a store's reading threads give; None if the images lie on the device."""
    stored = getattr(datamodule, "train", None)
    if not isinstance(stored, PackedDataset):
        return None
    order = torch.randperm(len(stored), generator=augment.stream(2))
    batches = BatchLoader(stored, lambda: order, len(order), batch_size, lambda images, *_: images, torch.device("cpu"))
    began, count = time.perf_counter(), 0
    for images, *_ in batches:
        count += len(images)
        if time.perf_counter() - began > ENOUGH:
            break
    return count / (time.perf_counter() - began)


def layouts_for(cfg: Config, plan: list[LayerSpec]) -> Iterator[Layout]:
    """Return the layouts on 1 to 64 devices that net and batch allow."""
    for devices in (1, 2, 4, 8, 16, 32, 64):
        for strategy in ("ddp", "towers", "owt"):
            asked = deepcopy(cfg)
            asked.trainer.devices, asked.trainer.num_nodes, asked.trainer.strategy = devices, 1, strategy
            if not list(layouts.layout_rules(asked, plan)):
                yield layouts.layout(asked.trainer)
            if devices == 1:
                break


def open_images(cfg: Config) -> tuple[ImageDataModule, int]:
    """Return the run's images and the number of those to train on; ImageNet's number while there is no store."""
    trained_only = replace(cfg, test_views=0, trainer=replace(cfg.trainer, limit_val_batches=0))
    images = ImageDataModule(trained_only)
    if cfg.data.packed and not store.read(expand(cfg.data.root or ".")):
        images.mean = torch.zeros(cfg.data.input_size, cfg.data.input_size, 3)
        images.colors = ColorPCA(torch.eye(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
        return images, IMAGENET
    images.setup("fit")
    return images, len(images.train)


def show(cfg: Config, link: float | None = None, console: Console | None = None) -> None:
    """Measure, and print the table.

    Args:
        link: gigabytes per second that a device sends; None: as in LINKS.
    Raises:
        ConfigError: the dataset cannot be read.
    """
    console = console or Console(highlight=False)
    size, precision = cfg.data.batch_size, layouts.resolve_precision(cfg.trainer)
    fabric = Fabric(accelerator=layouts.resolve_accelerator(cfg.trainer), devices=1, precision=precision)  # type: ignore[arg-type]
    set_arithmetic(cfg.trainer.benchmark is True)
    images, count = open_images(cfg)
    images.mean = images.mean.to(fabric.device)
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        measured = measure(cfg, images, fabric)
    kind = fabric.device.type
    link, delay = link or LINKS.get(kind, LINKS["cuda"]), DELAYS.get(kind, DELAYS["cuda"])
    name = torch.cuda.get_device_name(fabric.device) if kind == "cuda" else cpu.name()
    console.print(
        f"measured model={cfg.model.name} on one device ({name}, {precision}): "
        + ", ".join(f"{n} images {1000 * s:,.1f} ms" for n, s in measured.batches.items())
        + f"; as a line, {1000 * measured.fixed:,.1f} ms and {1e6 * measured.per_image:,.0f} µs per image"
        + (f"; GPU memory at most {measured.peak / 1e9:,.1f} GB" if measured.peak else ""),
        soft_wrap=True,
    )
    rate, total = loading_rate(images, size), images_in_run(cfg, count)
    out = _table(cfg, images, measured, total, rate, link, delay)
    console.width = max(console.width, Measurement.get(console, console.options.update(max_width=1000), out).maximum)
    console.print(out)
    lines = [
        f"links of {link:g} GB/s (--link GB_PER_S) and {1e3 * delay:g} ms each time; nothing overlaps; "
        f"batches of {size} over all devices"
    ]
    if total:
        lines.append(f"{total:,} images to see; validation, checkpoints and start-up are left out")
    if cfg.data.packed and not hasattr(images, "train"):
        lines.append(f"no store in data.root={cfg.data.root} yet: taken are ImageNet's {IMAGENET:,} images, raw")
    if rate:
        lines.append(f"the store gives {rate:,.0f} images/s to this machine")
    for line in lines:
        console.print(line, soft_wrap=True)


def _table(
    cfg: Config,
    images: ImageDataModule,
    measured: Measured,
    total: int | None,
    rate: float | None,
    link: float,
    delay: float,
) -> Table:
    """Return a row for each layout that net and batch allow; the arguments are `show`'s."""
    plan, size = layer_specs(cfg.model, cfg.data.input_size), cfg.data.batch_size
    precision = layouts.resolve_precision(cfg.trainer)
    out = Table(box=box.SIMPLE)
    reads = ["reads, MB/s"] if cfg.data.packed else []
    for title in ("devices", "layout", "images/s", "time", "sends, MB a step", "keeps, GB in fp32", *reads):
        out.add_column(title, justify="left" if title == "layout" else "right", no_wrap=True)
    for where in layouts_for(cfg, plan):
        speed = size / measured.step(where, plan, size, link * 1e9, delay, precision)
        keeps = sum(memory_bytes(where, cfg.model, plan, size)) / 1e9
        sends = bytes_per_step(where, plan, size, precision) / 1e6
        row = [str(where.processes), where.name, f"{speed:,.0f}", _long(total / speed) if total else "open"]
        row += [f"{sends:,.1f}", f"{keeps:,.2f}"]
        if reads:
            slower = " (the store is slower)" if rate and rate < speed else ""
            row.append(f"{_bytes(images, cfg) * speed / 1e6:,.0f}{slower}")
        out.add_row(*row)
    return out


def _long(seconds: float) -> str:
    """Return a length of time in a fitting unit."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} s"


def _bytes(images: ImageDataModule, cfg: Config) -> float:
    """Return the bytes of an image in its store; without a store, those of a raw square."""
    stored = getattr(images, "train", None)
    if isinstance(stored, PackedDataset):
        return float(stored.places[:, 2].mean())
    return 3.0 * cfg.data.size**2


def main() -> None:
    """Run the command. Exit code 0: the table was shown; 1: a mistake, in one sentence."""
    start_command()
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.estimate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    overrides = "GROUP=CHOICE or KEY=VALUE, as for python -m alexnet_pl.train"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=overrides)
    link = "gigabytes per second that a device sends (default: a rate for the kind of device)"
    parser.add_argument("--link", type=float, metavar="GB_PER_S", help=link)
    arguments = parser.parse_intermixed_args()
    if arguments.link is not None and not 0 < arguments.link < float("inf"):
        parser.error("--link must be a rate above 0, in gigabytes per second")
    with exit_on_error():
        silence_lightning()
        cfg = compose(*arguments.overrides)
        checks.check_device(cfg)
        show(cfg, arguments.link)


if __name__ == "__main__":
    main()
