"""What AlexNet's training step costs with our normalisation, with torch's, and with none.

    python bench/step.py                                              some minutes on two cores
    python bench/step.py --device cuda --batch_size 128 --steps 20

A step is forward, cross entropy, backward and the update of 2012, with dropout, on a random batch of 224x224 pictures
of 0..255 minus their mean. The variants differ in the two layers of LRN alone, and share weights and optimiser; what
torch's own leaves out is done around it: it runs once per tower. Rounds are interleaved (each runs every variant once,
in turn), so a drift of the machine meets all alike; printed are the median pictures per second of each variant, the
median over the rounds of its ratio to its peer, and LRN's share of the step, each with the range.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as alexnet-train does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_pl import config, lrn, model, optim, provenance
from alexnet_pl.config import Compile

TORCH, EAGER, COMPILED, WITHOUT = "F.local_response_norm", "ours, eager", "ours, compiled", "without LRN"
NCHW, LAST, BF16 = "NCHW fp32", "channels-last fp32", "channels-last bf16"


class PerTower(nn.Module):
    """torch's own, with the constants of a layer of ours."""

    def __init__(self, layer: lrn.LocalResponseNorm) -> None:
        super().__init__()
        self.constants = layer.size, layer.alpha * layer.size, layer.beta, layer.k  # it divides alpha by the size
        self.towers = layer.towers

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.local_response_norm(tower, *self.constants) for tower in x.chunk(self.towers, 1)], 1)


def compiled(layer: lrn.LocalResponseNorm) -> nn.Module:
    return lrn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k, layer.towers, Compile.always)


NORMS: dict[str, Callable[[lrn.LocalResponseNorm], nn.Module]] = {
    TORCH: PerTower,
    EAGER: lambda layer: layer,
    COMPILED: compiled,
    WITHOUT: lambda layer: nn.Identity(),
}
PAIRS = [
    ((NCHW, EAGER), (NCHW, TORCH)),
    ((NCHW, COMPILED), (NCHW, TORCH)),
    ((LAST, EAGER), (LAST, TORCH)),
    ((LAST, COMPILED), (LAST, TORCH)),
    ((LAST, EAGER), (NCHW, TORCH)),
    ((LAST, COMPILED), (NCHW, TORCH)),
    ((BF16, EAGER), (NCHW, TORCH)),
    ((BF16, COMPILED), (NCHW, TORCH)),
]


class Steps:
    """AlexNet in one memory layout, ready to train with any of the normalisations."""

    def __init__(self, channels_last: bool, batch_size: int, device: torch.device) -> None:
        cfg = config.Model(
            name="alexnet",
            table=config.Table.alexnet,
            num_classes=1000,
            towers=2,
            lrn=["conv1", "conv2"],
            lrn_scale=config.LrnScale.paper,
            dropout=config.Dropout.mask,
            channels_last=channels_last,
            compile=Compile.never,
        )
        self.device = device
        self.net = model.build(cfg, 224, seed=1).to(device)
        self.optimizer = optim.build(self.net, config.Optim(lr=1e-5, weight_decay=5e-4))  # noise is not to be learned
        layers = {name: layer for name, layer in self.net.named_children() if isinstance(layer, lrn.LocalResponseNorm)}
        self.norms = {norm: {name: make(layer) for name, layer in layers.items()} for norm, make in NORMS.items()}
        layout = torch.channels_last if channels_last else torch.contiguous_format
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(256, (batch_size, 3, 224, 224), generator=generator).float()
        self.images = (images - images.mean(0)).to(device).contiguous(memory_format=layout)
        self.labels = torch.randint(1000, (batch_size,), generator=generator).to(device)

    def per_second(self, norm: str, steps: int, precision: AbstractContextManager[object]) -> float:
        """Pictures per second of so many steps."""
        for name, layer in self.norms[norm].items():
            setattr(self.net, name, layer)
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            with precision:
                loss = F.cross_entropy(self.net(self.images), self.labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.wait()
        seconds = time.perf_counter() - start
        assert loss.isfinite()
        return steps * len(self.images) / seconds

    def wait(self) -> None:
        """Until the device is done with what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def variants(device: torch.device) -> list[tuple[str, str]]:
    """(how it runs, its normalisation), as far as this machine can."""
    norms = list(NORMS)
    if not lrn.compiles(Compile.always, device):
        print(f"{COMPILED}: left out, as this machine has no compiler for it")
        norms.remove(COMPILED)
    every = [(how, norm) for how in (NCHW, LAST, BF16) for norm in norms]
    return [pair for pair in every if pair != (BF16, TORCH) or device.type == "cuda"]  # it has no bf16 on CPUs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds that count, after one to warm up")
    parser.add_argument("--steps", type=int, default=2, help="steps of each variant in a round (one to warm up)")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    rounds, steps, batch_size, name = vars(parser.parse_args()).values()
    device = torch.device(name)
    nets = {last: Steps(last, batch_size, device) for last in (False, True)}
    speeds: dict[tuple[str, str], list[float]] = {pair: [] for pair in variants(device)}
    for i in range(rounds + 1):
        for (how, norm), values in speeds.items():
            precision = torch.autocast(name, torch.bfloat16) if how == BF16 else nullcontext()
            speed = nets[how != NCHW].per_second(norm, steps if i else 1, precision)
            if i:
                values.append(speed)
    where = torch.cuda.get_device_name() if name == "cuda" else provenance.processor()
    print(
        f"\n{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, batches of {batch_size}, "
        f"{rounds} rounds"
    )
    for (how, norm), values in speeds.items():
        print(f"{statistics.median(values):8,.1f} images/s  {how}, {norm}")
    for ours, peer in PAIRS:
        if ours in speeds:
            ratios = [a / b for a, b in zip(speeds[ours], speeds[peer], strict=True)]
            print(f"{spread(ratios)}  {', '.join(ours)} / {', '.join(peer)}")
    for (how, norm), values in speeds.items():
        if norm != WITHOUT:
            shares = [1 - a / b for a, b in zip(values, speeds[how, WITHOUT], strict=True)]
            print(f"{spread(shares)}  of the step is LRN: {how}, {norm}")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
