"""The memory that a device of a layout needs: weights, gradients, velocities, and what the backward pass keeps."""

from __future__ import annotations

import math

from alexnet_pl.config.schema import Config, Model
from alexnet_pl.model.specs import LayerSpec, activation_bytes, layer_specs
from alexnet_pl.parallel.layouts import Layout, layout, resolve_precision
from alexnet_pl.parallel.traffic import bytes_per_step


def memory_bytes(where: Layout, m: Model, plan: list[LayerSpec], batch_size: int) -> tuple[int, int]:
    """Return bytes each process needs in fp32: for weights, gradients and velocities, and for the backward pass."""
    weights, image_keeps = 0.0, float(activation_bytes(m, plan))
    for layer in plan:
        whole = layer.kind != "full" or where.name != "owt"
        weights += layer.parameters / where.towers / (1 if whole else where.processes)
    if where.towers == 2:  # half of everything but the image and what comes from the other tower
        image = 4 * math.prod(plan[0].inputs)
        image_keeps = (image_keeps - image) / 2 + image + 4 * sum(layer.crossing for layer in plan)
    return round(3 * 4 * weights), round(image_keeps * batch_size / where.data)


def sharing_summary(cfg: Config) -> str:
    """Return what each device of a run on several keeps and sends; nothing for one device."""
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
