"""What AlexNet's training step costs: with our normalisation, with torch's and with none; part by part; torchvision's.

    python bench/step.py                                              some minutes on two cores
    python bench/step.py --device cuda --batch-size 128 --steps 20

A step is forward, cross entropy, backward and the update of 2012, with dropout, on a random batch of 224x224 images
of 0..255 minus their mean. The variants differ in the two layers of LRN alone, and share weights and optimiser; what
torch's own leaves out is done around it: it runs once per tower. torchvision's net is trained as its reference does it,
and ours of the same shape beside it. The peers have a process with memory and threads as any torch program, ours one
with the settings of a sweep's job in bf16 (in fp32 it lets threads sleep, and is a tenth slower at most). Printed are
the median images per second and the shares of the step's parts, the ratios (see ratios.py), and LRN's share of the
step.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import ratios
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from alexnet_pl.config.choices import Arch, CompileLrn, Conv1Padding, Dropout, DropoutAt, Init, LrnAlphaConvention
from alexnet_pl.config.schema import Model, Optim
from alexnet_pl.model import lrn
from alexnet_pl.model.build import build_net
from alexnet_pl.training import optim

TORCH, EAGER, COMPILED, WITHOUT = "F.local_response_norm", "ours, eager", "ours, compiled", "without LRN"
KEPT = f"{TORCH}, memory kept"  # in the process of ours, where its temporaries cost no page faults
NCHW, LAST, BF16 = "NCHW fp32", "channels-last fp32", "channels-last bf16"
THEIRS, OURS = "torchvision's AlexNet, NCHW fp32", "the same net by ours, channels-last bf16"
PAIRS = [  # and the least that the ratio must be, on two cores at batch 64
    ((NCHW, EAGER), (NCHW, TORCH), 1.2),
    ((LAST, EAGER), (LAST, TORCH), 1.2),
    ((LAST, EAGER), (NCHW, TORCH), 1.3),
    ((LAST, COMPILED), (NCHW, TORCH), 1.3),
    ((BF16, EAGER), (NCHW, TORCH), 2.5),
    ((BF16, EAGER), (NCHW, KEPT), 2.0),
    ((BF16, COMPILED), (NCHW, TORCH), 2.0),
    ((BF16, OURS), (NCHW, THEIRS), 1.2),
]


class Torchs(nn.Module):
    """torch's own, with the constants of a layer of ours; it knows no towers."""

    def __init__(self, layer: lrn.LocalResponseNorm) -> None:
        super().__init__()
        self.constants = layer.size, layer.alpha * layer.size, layer.beta, layer.k  # it divides alpha by the size

    def forward(self, x: Tensor) -> Tensor:
        return F.local_response_norm(x, *self.constants)


def compiled(layer: lrn.LocalResponseNorm) -> nn.Module:
    return lrn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k, layer.towers, CompileLrn.always)


NORMS: dict[str, Callable[[lrn.LocalResponseNorm], nn.Module]] = {
    TORCH: Torchs,
    KEPT: Torchs,
    EAGER: lambda layer: layer,
    COMPILED: compiled,
    WITHOUT: lambda layer: nn.Identity(),
}


class Steps:
    """A net in one memory layout, its optimiser and its batch, ready to train."""

    def __init__(
        self, net: nn.Module, optimizer: torch.optim.Optimizer, batch_size: int, device: torch.device, last: bool
    ) -> None:
        self.net, self.optimizer, self.device = net, optimizer, device
        layers = {name: layer for name, layer in net.named_children() if isinstance(layer, lrn.LocalResponseNorm)}
        self.norms = {norm: {name: make(layer) for name, layer in layers.items()} for norm, make in NORMS.items()}
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(256, (batch_size, 3, 224, 224), generator=generator).float()
        layout = torch.channels_last if last else torch.contiguous_format
        self.images = (images - images.mean(0)).to(device).contiguous(memory_format=layout)
        self.labels = torch.randint(1000, (batch_size,), generator=generator).to(device)

    def per_second(self, norm: str, steps: int, bf16: bool) -> tuple[float, Counter[str]]:
        """Images per second of so many steps, and the seconds of their parts."""
        parts: Counter[str] = Counter()
        for name, layer in self.norms.get(norm, {}).items():
            setattr(self.net, name, layer)
        began = self.now()
        for _ in range(steps):
            parts.update(self.step(bf16, time.perf_counter))
        seconds = self.now() - began
        if self.device.type == "cuda":  # which a step does not wait for, but its parts
            parts = self.step(bf16, self.now)
        return steps * len(self.images) / seconds, parts

    def step(self, bf16: bool, now: Callable[[], float]) -> Counter[str]:
        """Take a step; return the seconds of its parts."""
        start = now()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(self.net(self.images), self.labels)
        forward = now()
        self.optimizer.zero_grad()
        loss.backward()
        backward = now()
        self.optimizer.step()
        return Counter(forward=forward - start, backward=backward - forward, update=now() - backward)

    def now(self) -> float:
        """When the device is done with what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def alexnet(channels_last: bool) -> Model:
    """The paper's net."""
    return Model(
        name="alexnet",
        arch=Arch.alexnet,
        num_classes=1000,
        towers=2,
        lrn=["conv1", "conv2"],
        lrn_alpha_convention=LrnAlphaConvention.paper,
        dropout=Dropout.mask,
        channels_last=channels_last,
        compile_lrn=CompileLrn.never,
    )


def ours(channels_last: bool, batch_size: int, device: torch.device) -> Steps:
    """The paper's net and rule."""
    return _ours(alexnet(channels_last), batch_size, device)


def ours_of_torchvision(batch_size: int, device: torch.device) -> Steps:
    """model=torchvision: the shape of torchvision's net, by our parts."""
    cfg = Model(
        name="torchvision",
        arch=Arch.alexnet,
        num_classes=1000,
        conv1_padding=Conv1Padding.symmetric,
        widths={"conv1": 64, "conv2": 192, "conv4": 256},
        dropout=Dropout.inverted,
        dropout_at=DropoutAt.inputs,
        init=Init.torch,
    )
    return _ours(cfg, batch_size, device)


def _ours(cfg: Model, batch_size: int, device: torch.device) -> Steps:
    net = build_net(cfg, 224, seed=1).to(device)
    optimizer = optim.build_optimizer(net, Optim(lr=1e-5, weight_decay=5e-4))  # noise is not to be learned
    return Steps(net, optimizer, batch_size, device, cfg.channels_last)


def theirs(batch_size: int, device: torch.device) -> Steps:
    """As torchvision's reference trains it."""
    net = torchvision.models.alexnet().to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4)
    return Steps(net, optimizer, batch_size, device, last=False)


def variants(device: torch.device) -> list[tuple[str, str]]:
    """(how it runs, its normalisation), as far as this machine can."""
    norms = list(NORMS)
    if not lrn.compiles(CompileLrn.always, device):
        print(f"{COMPILED}: left out, as this machine has no compiler for it")
        norms.remove(COMPILED)
    every = [(how, norm) for how in (NCHW, LAST, BF16) for norm in norms] + [(NCHW, THEIRS), (BF16, OURS)]
    on_gpus = {(BF16, TORCH)}  # torch's own has no bf16 on CPUs
    on_cpus = {(NCHW, KEPT)}
    left_out = {(how, KEPT) for how in (LAST, BF16)} | (on_cpus if device.type == "cuda" else on_gpus)
    return [pair for pair in every if pair not in left_out]


def prepare(other: str, device: torch.device, batch_size: int) -> Callable[[str, str, int], tuple[float, Counter[str]]]:
    """In the process of the peers, or in that of ours: the nets, to take steps with; `other` is torchvision's shape."""
    nets = {NCHW: ours(False, batch_size, device), LAST: ours(True, batch_size, device)}
    nets[BF16] = nets[LAST]
    nets[other] = {THEIRS: theirs, OURS: ours_of_torchvision}[other](batch_size, device)
    return lambda how, norm, steps: nets.get(norm, nets[how]).per_second(norm, steps, how == BF16)


def main() -> None:
    parser = ratios.arguments(__doc__, rounds=5, steps=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    device, size = torch.device(given.device), given.batch_size
    peers = ratios.Apart(partial(prepare, THEIRS, device, size), None)
    mine = ratios.Apart(partial(prepare, OURS, device, size), "bf16-mixed")
    parts: dict[tuple[str, str], Counter[str]] = {pair: Counter() for pair in variants(device)}

    def per_second(how: str, norm: str) -> float:
        speed, seconds = (peers if norm in (TORCH, THEIRS) else mine)(how, norm, given.steps)
        parts[how, norm].update(seconds)
        return speed

    speeds = ratios.interleaved({pair: partial(per_second, *pair) for pair in parts}, given.rounds)
    print(f"\n{ratios.machine(given.device)}, batches of {size}, {given.rounds} rounds")
    for (how, norm), values in speeds.items():
        total = sum(parts[how, norm].values())
        shares = ", ".join(f"{part} {seconds / total:.0%}" for part, seconds in parts[how, norm].items())
        print(f"{statistics.median(values):8,.1f} images/s  {how}, {norm} ({shares})")
    for (how, norm), values in speeds.items():
        if norm in (EAGER, COMPILED):
            shares_of = [1 - a / b for a, b in zip(values, speeds[how, WITHOUT], strict=True)]
            print(ratios.row(f"{how}, {norm}", shares_of, "of the step is LRN"))
    rows = [
        ratios.ratio(
            speeds[ours],
            speeds[peer],
            f"AlexNet's step: {', '.join(ours)} / {', '.join(peer)}",
            bar if given.device == "cpu" else None,
        )
        for ours, peer, bar in PAIRS
        if ours in speeds and peer in speeds
    ]
    ratios.print_rows(rows, given.json)


if __name__ == "__main__":
    main()
