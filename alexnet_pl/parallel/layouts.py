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

from collections.abc import Iterator
from dataclasses import dataclass

from alexnet_pl.config.schema import Config, Trainer
from alexnet_pl.errors import nearest
from alexnet_pl.model.specs import LayerSpec

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
    count, nodes = device_count(t), t.num_nodes or 1
    kind = STRATEGIES.get(str(t.strategy or "auto"), "ddp") if count * nodes > 1 else "single"
    if kind == "towers" and count * nodes % 2 == 0:
        return Layout("towers" if count * nodes == 2 else "towers_ddp", count, nodes, 2)
    return Layout(kind, count, nodes)


def device_count(t: Trainer) -> int:
    """Devices per machine: a number, a list of them, or auto and -1 for all there are."""
    if isinstance(t.devices, list):
        return len(t.devices)
    if t.devices in (None, "auto", -1, "-1"):
        return max(1, gpu_count()) if wants_gpus(t) else 1
    text = str(t.devices)
    if "," in text:  # as Lightning reads it: "0,1" are two devices
        return len([part for part in text.split(",") if part.strip()])
    return int(text) if text.isdecimal() else 0


def wants_gpus(t: Trainer) -> bool:
    """Whether the run takes GPUs where there are any."""
    return t.accelerator in (None, "auto", "gpu", "cuda")


def resolve_precision(t: Trainer) -> str:
    """In what a run computes: trainer.precision, and what null and auto mean here."""
    if t.precision == "auto" and wants_gpus(t) and gpu_count():
        import torch

        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "32-true" if str(t.precision) in ("None", "auto", "32") else str(t.precision)


def gpu_count() -> int:
    """CUDA devices this process may use."""
    import torch

    return torch.cuda.device_count()


# ------------------------------------------------------------------------------------------------ what cannot be
def layout_rules(c: Config, plan: list[LayerSpec]) -> Iterator[str]:
    """A sentence for everything that the net or the batch has against the layout."""
    t, m = c.trainer, c.model
    if t.strategy is not None and t.strategy not in STRATEGIES:
        yield f"trainer.strategy={t.strategy} is not a choice: {nearest(t.strategy, list(STRATEGIES))}"
    if device_count(t) < 1 or (t.num_nodes is not None and t.num_nodes < 1):
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
                "or train on one (trainer=auto)"
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
    asked, there = device_count(t), gpu_count()
    if there < asked and (there or t.accelerator in ("gpu", "cuda")):
        yield (
            f"trainer.devices={t.devices} asks for {asked} GPU{'s' * (asked > 1)} and {there or 'none'} "
            f"{'is' if there < 2 else 'are'} here: lower it, or set trainer.accelerator=cpu"
        )
