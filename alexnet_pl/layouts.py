"""How a run lies over its processes, one per device: who shares the batch, who shares the net, and what that costs.

    layout       each process has                                  and exchanges in a step
    single       everything                                        nothing
    ddp          the whole net, its part of the batch              gradients
    towers       a tower of the net, the whole batch               maps below conv3, units below fc6, fc7 and fc8
    towers_ddp   a tower of the net, its part of the batch         both
    owt          all convolutions for its part of the batch,       gradients of the convolutions, units
                 its columns of the fully connected layers         for the whole batch

towers is the paper's (section 3.2). owt is "one weird trick for parallelizing convolutional neural networks"
(Krizhevsky, 2014): nearly all arithmetic is in the convolutions, nearly all weights in the fully connected layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from alexnet_pl.config import Config, Model, Trainer
from alexnet_pl.errors import nearest
from alexnet_pl.table import Step, kept

STRATEGIES = {"auto": "ddp", "ddp": "ddp", "towers": "towers", "owt": "owt"}
"""What trainer.strategy can be, and what it means for more than one process"""


@dataclass(frozen=True)
class Layout:
    """`processes` = `data` x `towers`; those of one tower group have neighbouring numbers."""

    name: str  # single, ddp, towers, towers_ddp or owt
    devices: int = 1  # per machine
    nodes: int = 1  # machines
    towers: int = 1  # processes that share the net

    @property
    def processes(self) -> int:
        return self.devices * self.nodes

    @property
    def data(self) -> int:
        """Parts in which a batch is given out."""
        return self.processes // self.towers


def layout(t: Trainer) -> Layout:
    """What the `trainer` group asks for."""
    count, nodes = devices(t), t.num_nodes or 1
    kind = STRATEGIES.get(str(t.strategy or "auto"), "ddp") if count * nodes > 1 else "single"
    if kind == "towers" and count * nodes % 2 == 0:
        return Layout("towers" if count * nodes == 2 else "towers_ddp", count, nodes, 2)
    return Layout(kind, count, nodes)


def devices(t: Trainer) -> int:
    """Devices per machine: a number, a list of them, or auto and -1 for all there are."""
    if isinstance(t.devices, list):
        return len(t.devices)
    if t.devices in (None, "auto", -1, "-1"):
        return max(1, gpus()) if wants_gpus(t) else 1
    text = str(t.devices)
    if "," in text:  # as Lightning reads it: "0,1" are two devices
        return len([part for part in text.split(",") if part.strip()])
    return int(text) if text.isdecimal() else 0


def wants_gpus(t: Trainer) -> bool:
    """Whether the run takes GPUs where there are any."""
    return t.accelerator in (None, "auto", "gpu", "cuda")


def precision(t: Trainer) -> str:
    """In what a run computes: trainer.precision, and what null and auto mean here."""
    if t.precision == "auto" and wants_gpus(t) and gpus():
        import torch

        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "32-true" if str(t.precision) in ("None", "auto", "32") else str(t.precision)


def gpus() -> int:
    """CUDA devices this process may use."""
    import torch

    return torch.cuda.device_count()


# ------------------------------------------------------------------------------------------------ what cannot be


def rules(c: Config, plan: list[Step]) -> Iterator[str]:
    """A sentence for everything that the net or the batch has against the layout."""
    t, m = c.trainer, c.model
    if t.strategy is not None and t.strategy not in STRATEGIES:
        yield f"trainer.strategy={t.strategy} is not a choice: {nearest(t.strategy, list(STRATEGIES))}"
    if devices(t) < 1 or (t.num_nodes is not None and t.num_nodes < 1):
        yield (
            f"trainer.devices={t.devices} and trainer.num_nodes={t.num_nodes} must be at least 1 "
            "(trainer.devices=-1 takes all devices)"
        )
        return
    where = layout(t)
    if t.strategy == "towers":
        if where.processes % 2:
            yield (
                f"trainer.strategy=towers needs an even number of devices, one for each tower, not {where.processes}: "
                "set trainer.devices=2"
            )
        if m.towers != 2:
            yield f"trainer.strategy=towers needs a net of two towers, and model={m.name} has one: set model.towers=2"
        if m.lrn_across_towers:
            yield (
                "model.lrn_across_towers=true normalises across the towers, which lie on two devices: set it to false, "
                "or train on one (trainer=single)"
            )
        if plan[-1].outputs[0] % 2:
            yield f"model.num_classes={m.num_classes} cannot be shared by two towers: one more is unused, and no harm"
    if t.strategy == "owt":
        if any(step.kind == "full" and step.groups > 1 for step in plan):
            yield (
                f"trainer.strategy=owt spreads fully connected layers that see everything, and model.towers_meet="
                f"{m.towers_meet} leaves some within a tower: train with trainer=towers, or on one device"
            )
        for step in plan:
            if step.kind == "full" and step.outputs[0] % where.processes:
                key = "model.num_classes" if step is plan[-1] else f"model.widths.{step.name}"
                yield f"{key}={step.outputs[0]} cannot be shared by {where.processes} devices: take a multiple of them"
    if where.data > 1 and c.data.batch_size % where.data:
        yield (
            f"data.batch_size={c.data.batch_size} is the batch of all devices together and cannot be shared by "
            f"{where.data}: take a multiple of {where.data}"
        )
    if where.name in ("towers", "towers_ddp", "owt") and str(t.precision) in ("16-mixed", "16"):
        yield f"trainer.precision={t.precision} does not work with a net over several devices: use bf16-mixed"


def device_rules(t: Trainer) -> Iterator[str]:
    """A sentence if this machine has fewer devices than the run asks for."""
    if not wants_gpus(t):
        return
    asked, there = devices(t), gpus()
    if there < asked and (there or t.accelerator in ("gpu", "cuda")):
        yield (
            f"trainer.devices={t.devices} asks for {asked} GPU{'s' * (asked > 1)} and {there or 'none'} "
            f"{'is' if there < 2 else 'are'} here: lower it, or set trainer.accelerator=cpu"
        )


# ------------------------------------------------------------------------------------------------ what it costs


def sent(where: Layout, plan: list[Step], batch_size: int, precision: str = "32-true") -> int:
    """Bytes that each process sends in a training step, exchanges going round in rings.

    A sum over n processes sends 2 (n - 1) / n of its bytes (half of it to sum, half to spread); a gather and its
    backward send each part n - 1 times, the last one only on its way forward.
    """
    number = 2 if precision.startswith(("bf16", "16")) else 4  # of the net's activations
    gradient = 2 if precision in ("bf16-true", "16-true") else 4
    n, data = where.processes, where.data
    weights = sum(step.parameters for step in plan)
    if where.name == "ddp":
        return round(2 * (n - 1) / n * weights * gradient)
    if where.towers == 2:
        crossing = sum(step.crossing for step in plan)
        images = batch_size / data * (2 * crossing + plan[-1].outputs[0] // 2) * number
        return round(images + 2 * (data - 1) / data * weights / 2 * gradient)
    if where.name == "owt":
        full = [step for step in plan if step.kind == "full"]
        below = sum(step.parameters for step in plan if step.kind != "full")
        # the last exchange turns columns of the whole batch into one's own pictures
        parts = sum(math.prod(step.inputs) for step in full) / n + full[-1].outputs[0] / n / n
        return round(2 * (n - 1) * batch_size * parts * number + 2 * (n - 1) / n * below * gradient)
    return 0


def exchanges(where: Layout, plan: list[Step]) -> int:
    """How often each process sends in a training step."""
    if where.name == "ddp":
        return _buckets(plan)
    # else each weight and each bias that several processes have is a sum of its own
    shared = [step for step in plan if step.parameters and where.data > 1]
    if where.towers == 2:
        return 2 * sum(step.crossing > 0 for step in plan) + 1 + 2 * len(shared)
    if where.name == "owt":
        full = sum(step.kind == "full" for step in plan)
        return 2 * full + 2 + 2 * (len([step for step in plan if step.parameters]) - full)
    return 0


def _buckets(plan: list[Step]) -> int:
    """DDP sends the gradients of whole layers together, from the last one on: from 1 MB at first, then from 25."""
    buckets, size, limit = 0, 0, 2**20
    for step in reversed(plan):
        size += 4 * step.parameters
        if size >= limit:
            buckets, size, limit = buckets + 1, 0, 25 * 2**20
    return buckets + (size > 0)


def memory(where: Layout, m: Model, plan: list[Step], batch_size: int) -> tuple[int, int]:
    """Bytes each process needs in fp32: for weights, gradients and velocities; and for what the backward pass needs."""
    weights, picture_keeps = 0.0, float(kept(m, plan))
    for step in plan:
        whole = step.kind != "full" or where.name != "owt"
        weights += step.parameters / where.towers / (1 if whole else where.processes)
    if where.towers == 2:  # half of everything but the picture and what comes from the other tower
        picture = 4 * math.prod(plan[0].inputs)
        picture_keeps = (picture_keeps - picture) / 2 + picture + 4 * sum(step.crossing for step in plan)
    return round(3 * 4 * weights), round(picture_keeps * batch_size / where.data)
