"""What a layout costs the host of a process, beside the same net on one device.

    python bench/layouts.py        half a minute

A net of eight small layers takes a batch of one forward and backward, which is all but host time, in one process that
exchanges with nobody. What is timed is what `parallelize` adds; the time inside torch.distributed is left out. Printed
are the median milliseconds of each layout and the ratio of the plain net's to it (see ratios.py).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import ratios
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from alexnet_pl.config.choices import Arch
from alexnet_pl.config.schema import Model
from alexnet_pl.data.loader import BatchSlice
from alexnet_pl.model.build import build_net
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.parallel.layouts import Layout
from alexnet_pl.parallel.parts import Parts
from alexnet_pl.parallel.shard import CurrentSlice, parallelize

SIDE = 67  # the least that leaves something to conv5
CONVS = dict.fromkeys(("conv1", "conv2", "conv3", "conv4", "conv5"), 2)
NET = Model(name="small", arch=Arch.alexnet, num_classes=8, widths={**CONVS, "fc6": 8, "fc7": 8})
PLAIN = "single"
BAR = 0.5  # at most twice the time


def prepared(name: str) -> tuple[nn.Module, Parts]:
    """The net in a layout, and what it shares."""
    net, current = build_net(NET, SIDE, seed=1), CurrentSlice()
    current.slice = BatchSlice(0, 1, 1, 1)
    mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    return net, parallelize(net, layer_specs(NET, SIDE), Layout(name), mesh, current)


class Exchanges(ExitStack):
    """Measures the seconds inside torch.distributed."""

    seconds = 0.0

    def __enter__(self) -> Exchanges:
        for name in ("all_gather_into_tensor", "reduce_scatter_tensor", "all_to_all_single", "all_reduce"):
            self.enter_context(mock.patch.object(dist, name, partial(self.timed, getattr(dist, name))))
        return self

    def timed(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        began = time.perf_counter()
        call(*args, **kwargs)
        self.seconds += time.perf_counter() - began


def per_second(net: nn.Module, parts: Parts, steps: int) -> float:
    """Steps, forward and backward, with the sum of gradients."""
    images = torch.ones(1, 3, SIDE, SIDE)
    with Exchanges() as exchanges:
        began = time.perf_counter()
        for _ in range(steps):
            net.zero_grad()
            net(images).sum().backward()
            parts.sum_gradients()
        return steps / (time.perf_counter() - began - exchanges.seconds)


def main() -> None:
    given = ratios.arguments(__doc__, rounds=9, steps=50).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            names = (PLAIN, "ddp", "towers", "owt")
            ways: dict[str, Callable[[], float]] = {
                name: partial(per_second, *prepared(name), given.steps) for name in names
            }
            speeds = ratios.interleaved(ways, given.rounds)
        finally:
            dist.destroy_process_group()
    print(f"\n{ratios.machine()}, {given.rounds} rounds")
    for name, values in speeds.items():
        print(f"{1000 / statistics.median(values):8.2f} ms  {name}")
    rows = [
        ratios.ratio(values, speeds[PLAIN], f"host time of a step: {PLAIN} / {name}", BAR)
        for name, values in speeds.items()
        if name != PLAIN
    ]
    ratios.print_rows(rows, given.json)


if __name__ == "__main__":
    main()
