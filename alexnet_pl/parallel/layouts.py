"""How a run is divided over its processes, one per device: which share the batch, and which share the net.

    layout       each process has                                  and exchanges in a step
    single       everything                                        nothing
    ddp          the whole net, its part of the batch              gradients
    towers       a tower of the net, the whole batch               maps below conv3, units below fc6, fc7 and fc8
    towers_ddp   a tower of the net, its part of the batch         both
    owt          all convolutions for its part of the batch,       gradients of the convolutions, units
                 its columns of the fully connected layers         for the whole batch

The layout `towers` is the paper's (section 3.2). The layout `owt` is "One weird trick for parallelizing convolutional
neural networks" (Krizhevsky, 2014). It uses that convolutions have nearly all the arithmetic, and fully connected
layers nearly all the weights.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alexnet_pl import cpu
from alexnet_pl.config.schema import Config, Model, Trainer
from alexnet_pl.config.suggestions import suggest
from alexnet_pl.model.specs import LayerSpec

STRATEGIES = {"auto": "ddp", "ddp": "ddp", "towers": "towers", "owt": "owt"}
"""The values of trainer.strategy, and the layout of each for more than one process"""
GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""Device files, of which Linux has one if torch can find a GPU: NVIDIA's, that of Windows' subsystem, AMD's"""
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("auto", "32-true", "32", "64-true", "64", "bf16-mixed", "16-mixed", "bf16-true", "16-true")
"""The precisions of Lightning that our layouts know; auto chooses one"""


@dataclass(frozen=True)
class Layout:
    """A layout: `processes` = `data` x `towers`. The processes of one tower group have neighbouring numbers."""

    name: str  # single, ddp, towers, towers_ddp or owt
    devices: int = 1  # per machine
    nodes: int = 1  # machines
    towers: int = 1  # processes that share the net

    @property
    def processes(self) -> int:
        return self.devices * self.nodes

    @property
    def data(self) -> int:
        """Number of slices that a batch is divided into."""
        return self.processes // self.towers


def layout(t: Trainer) -> Layout:
    """Return the layout that the `trainer` group asks for."""
    count, nodes = device_count(t), t.num_nodes or 1
    kind = STRATEGIES.get(str(t.strategy or "auto"), "ddp") if count * nodes > 1 else "single"
    if kind == "towers" and count * nodes % 2 == 0:
        return Layout("towers" if count * nodes == 2 else "towers_ddp", count, nodes, 2)
    return Layout(kind, count, nodes)


def rank_variables(where: Layout, number: int, local: int, node: int, address: str, port: int) -> dict[str, str]:
    """Return torchrun's environment variables for one process of a run.

    Args:
        number: number of the process in the run; `local`: on its machine; `node`: number of its machine.
        address, port: where the processes meet.
    """
    variables = {
        "RANK": number,
        "LOCAL_RANK": local,
        "NODE_RANK": node,
        "WORLD_SIZE": where.processes,
        "LOCAL_WORLD_SIZE": where.devices,
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }
    return {name: str(value) for name, value in variables.items()}


def device_count(t: Trainer) -> int:
    """Return devices per machine: a number, a list of them, or auto and -1 for all there are."""
    if isinstance(t.devices, list):
        return len(t.devices)
    if t.devices in (None, "auto", -1, "-1"):
        return max(1, gpu_count()) if wants_gpus(t) else 1
    text = str(t.devices)
    if "," in text:  # as Lightning reads it: "0,1" are two devices
        return len([part for part in text.split(",") if part.strip()])
    return int(text) if text.isdecimal() else 0


def wants_gpus(t: Trainer) -> bool:
    """Return whether the run takes CUDA GPUs where there are any."""
    return t.accelerator in ("auto", "gpu", "cuda")


def gpu_count() -> int:
    """Return how many CUDA devices this process may use.

    Ask torch only if a GPU's device file exists: its import would delay every command by seconds.
    """
    if sys.platform == "linux" and not any(Path(file).exists() for file in GPU_FILES):
        return 0
    import torch

    return torch.cuda.device_count()


def resolve_accelerator(t: Trainer) -> str:
    """Return cpu, cuda or mps, as Lightning's Trainer takes it; auto is never mps."""
    if t.accelerator in ("gpu", "cuda"):
        return "cuda"
    if t.accelerator == "auto":
        return "cuda" if gpu_count() else "cpu"
    return t.accelerator


def resolve_precision(t: Trainer) -> str:
    """Return the precision of a run: trainer.precision, with auto resolved for this machine."""
    if t.precision == "auto" and resolve_accelerator(t) == "cuda":
        import torch

        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return {"auto": "32-true", "32": "32-true", "64": "64-true"}.get(t.precision, t.precision)


def device_summary(t: Trainer) -> str:
    """Return device, precision and parallelism of a run with the reasons, in one line."""
    where, accelerator, precision = layout(t), resolve_accelerator(t), resolve_precision(t)
    if accelerator == "cuda":
        import torch

        device = torch.cuda.get_device_name()
    else:
        device = cpu.name() if accelerator == "cpu" else "Apple GPU"
    found = {"cuda": "a CUDA GPU is here", "cpu": "no CUDA GPU is here"}.get(accelerator)
    why = f"trainer.accelerator=auto: {found}" if t.accelerator == "auto" else f"trainer.accelerator={t.accelerator}"
    if t.precision != "auto":
        because = "trainer.precision"
    elif accelerator == "cuda":
        because = "trainer.precision=auto: this GPU has bf16" if precision == "bf16-mixed" else "this GPU has no bf16"
    else:
        because = "trainer.precision=auto: fp32 but on a GPU with bf16"
    ways = {"single": "one device", "towers_ddp": "pairs of towers"}
    shared = ways.get(where.name, f"{where.name} on {where.processes} devices")
    timed = "; trainer.benchmark=true: cuDNN times its algorithms, so the last bits may differ from run to run"
    given_up = timed if accelerator == "cuda" and t.benchmark else ""
    return f"device: {device} ({why}); precision: {precision} ({because}); parallelism: {shared}{given_up}"


# ------------------------------------------------------------------------------------------------ what cannot be
def layout_rules(c: Config, plan: list[LayerSpec]) -> Iterator[str]:
    """Yield a sentence for each reason why the net or the batch does not fit the layout."""
    t, m = c.trainer, c.model
    if t.accelerator not in ACCELERATORS:
        yield f"trainer.accelerator={t.accelerator} is not a choice: {suggest(t.accelerator, list(ACCELERATORS))}"
    if t.precision not in PRECISIONS:
        yield f"trainer.precision={t.precision} is not a choice: {suggest(t.precision, list(PRECISIONS))}"
    if t.strategy is not None and t.strategy not in STRATEGIES:
        yield f"trainer.strategy={t.strategy} is not a choice: {suggest(t.strategy, list(STRATEGIES))}"
    if device_count(t) < 1 or (t.num_nodes is not None and t.num_nodes < 1):
        yield (
            f"trainer.devices={t.devices} and trainer.num_nodes={t.num_nodes} must be at least 1 "
            "(trainer.devices=-1 takes all devices)"
        )
        return
    where = layout(t)
    if t.strategy == "towers":
        yield from _tower_rules(where, m, plan)
    if t.strategy == "owt":
        yield from _owt_rules(where, m, plan)
    if where.data > 1 and c.data.batch_size % where.data:
        yield (
            f"data.batch_size={c.data.batch_size} is the batch of all devices together and cannot be shared by "
            f"{where.data}: take a multiple of {where.data}"
        )
    if where.name in ("towers", "towers_ddp", "owt") and c.model.compile_net:
        yield f"model.compile_net=true does not work with a net over several devices ({where.name}): set it to false"
    if where.name in ("towers", "towers_ddp", "owt") and t.precision == "16-mixed":
        yield f"trainer.precision={t.precision} does not work with a net over several devices: use bf16-mixed"


def _tower_rules(where: Layout, m: Model, plan: list[LayerSpec]) -> Iterator[str]:
    if where.processes % 2:
        yield (
            f"trainer.strategy=towers needs an even number of devices, one for each tower, not {where.processes}: "
            "set trainer.devices=2"
        )
        return
    if m.towers != 2:
        yield f"trainer.strategy=towers needs a net of two towers, and model={m.name} has one: take model=alexnet"
    if m.lrn_across_towers:
        yield (
            "model.lrn_across_towers=true normalises across the towers, which lie on two devices: set it to false, "
            "or train on one (trainer=auto)"
        )
    if plan[-1].outputs[0] % 2:
        yield f"model.num_classes={m.num_classes} cannot be shared by two towers: add a class, which stays unused"


def _owt_rules(where: Layout, m: Model, plan: list[LayerSpec]) -> Iterator[str]:
    if any(layer.kind == "full" and layer.groups > 1 for layer in plan):
        yield (
            f"trainer.strategy=owt shares fully connected layers that see everything, and model.towers_meet="
            f"{m.towers_meet} leaves some within a tower: train with trainer=towers, or on one device"
        )
    for layer in plan:
        if layer.kind == "full" and layer.outputs[0] % where.processes:
            key = "model.num_classes" if layer is plan[-1] else f"model.widths.{layer.name}"
            yield f"{key}={layer.outputs[0]} cannot be shared by {where.processes} devices: take a multiple of them"


def device_rules(t: Trainer) -> Iterator[str]:
    """Yield a sentence if this machine has too few devices for the run, or none of the kind."""
    if t.accelerator == "mps" and sys.platform != "darwin":
        yield "trainer.accelerator=mps is Apple's GPU, and this is no Mac: leave it out"
    if not wants_gpus(t):
        return
    if resolve_accelerator(t) == "cpu" and (isinstance(t.devices, list) or "," in str(t.devices)):
        yield f"trainer.devices={t.devices} lists GPUs, and none is here: give a number of processes"
    asked, there = device_count(t), gpu_count()
    if there < asked and (there or t.accelerator in ("gpu", "cuda")):
        yield (
            f"trainer.devices={t.devices} asks for {asked} {'GPU' if asked == 1 else 'GPUs'} and {there or 'none'} "
            f"{'is' if there < 2 else 'are'} here: use fewer, or set trainer.accelerator=cpu"
        )
