"""The memory that a device of a layout needs: weights, gradients, velocities, and tensors for the backward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator

from alexnet_pl import cpu
from alexnet_pl.config.schema import Config, Model
from alexnet_pl.model.specs import LayerSpec, activation_bytes, layer_specs
from alexnet_pl.parallel.layouts import Layout, layout, resolve_accelerator, resolve_precision
from alexnet_pl.parallel.traffic import bytes_per_step

PROCESS = 200e6
"""Bytes that a process with torch needs besides, on a CPU"""


def memory_bytes(where: Layout, m: Model, plan: list[LayerSpec], batch_size: int) -> tuple[int, int]:
    """Return the bytes each process needs in fp32: for weights, gradients and velocities; and for the backward pass."""
    weights, image_keeps = 0.0, float(activation_bytes(m, plan))
    for layer in plan:
        whole = layer.kind != "full" or where.name != "owt"
        weights += layer.parameters / where.towers / (1 if whole else where.processes)
    if where.towers == 2:  # half of everything but the image and what comes from the other tower
        image = 4 * math.prod(plan[0].inputs)
        image_keeps = (image_keeps - image) / 2 + image + 4 * sum(layer.crossing for layer in plan)
    return round(3 * 4 * weights), round(image_keeps * batch_size / where.data)


def sharing_summary(cfg: Config) -> str:
    """Return in words the memory and traffic of each device of a run; nothing for a run on one device."""
    where, plan = layout(cfg.trainer), layer_specs(cfg.model, cfg.data.input_size)
    if where.processes == 1:
        return ""
    weights, activations = memory_bytes(where, cfg.model, plan, cfg.data.batch_size)
    sends = bytes_per_step(where, plan, cfg.data.batch_size, resolve_precision(cfg.trainer))
    return (
        f"{where.name} on {where.processes} devices: each keeps {weights / 1e6:,.0f} MB for weights, gradients and "
        f"velocities and {activations / 1e6:,.0f} MB for the backward pass (fp32), and sends {sends / 1e6:,.1f} MB "
        f"in a step of data.batch_size={cfg.data.batch_size}"
    )


def memory_rules(cfg: Config) -> Iterator[str]:
    """Yield a sentence if a run cannot fit into the memory of its devices, even if no other program uses them."""
    where, d, precision = layout(cfg.trainer), cfg.data, resolve_precision(cfg.trainer)
    size = 0.5 if "16" in precision else 2 if "64" in precision else 1
    plan = layer_specs(cfg.model, d.input_size)
    weights, activations = (size * n for n in memory_bytes(where, cfg.model, plan, d.batch_size))
    images = 3 * d.resized_size**2 * d.batch_size / where.data * (1 if d.resized_size == d.input_size else 4)
    if resolve_accelerator(cfg.trainer) == "cuda":
        import torch

        there, share = torch.cuda.get_device_properties(0).total_memory, 1
    else:
        there, share = cpu.memory(), where.devices
        weights += PROCESS
    if (weights + activations + images) * share > there:
        yield (
            f"{weights * share / 1e9:.3g} GB for the weights (model.num_classes={cfg.model.num_classes}, model.width="
            f"{cfg.model.width:g}, trainer.devices={cfg.trainer.devices}), {activations * share / 1e9:.3g} GB for the "
            f"backward pass and {images * share / 1e9:.3g} GB for images (data.batch_size={d.batch_size}, data.resize="
            f"{d.resize}, data.crop_size={d.crop_size}) are more than the {there / 1e9:.3g} GB here: lower one of them"
        )
