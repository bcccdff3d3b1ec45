"""What a layout costs: the bytes each device sends in a step, how often it sends, and the memory it needs."""

from __future__ import annotations

import math

from alexnet_pl.config.schema import Config, Model
from alexnet_pl.model.specs import LayerSpec, activation_bytes, layer_specs
from alexnet_pl.parallel.layouts import Layout, layout, resolve_precision


def bytes_per_step(where: Layout, plan: list[LayerSpec], batch_size: int, precision: str = "32-true") -> int:
    """Return bytes that each process sends in a training step, exchanges going round in rings.

    A sum over n processes sends 2 (n - 1) / n of its bytes (half of it to sum, half to spread); a gather and its
    backward send each part n - 1 times, the last one only on its way forward.
    """
    number = 2 if precision.startswith(("bf16", "16")) else 4  # of the net's activations
    gradient = 2 if precision in ("bf16-true", "16-true") else 4
    n, data = where.processes, where.data
    weights = sum(layer.parameters for layer in plan)
    if where.name == "ddp":
        return round(2 * (n - 1) / n * weights * gradient)
    if where.towers == 2:
        crossing = sum(layer.crossing for layer in plan)
        images = batch_size / data * (2 * crossing + plan[-1].outputs[0] // 2) * number
        return round(images + 2 * (data - 1) / data * weights / 2 * gradient)
    if where.name == "owt":
        full = [layer for layer in plan if layer.kind == "full"]
        below = sum(layer.parameters for layer in plan if layer.kind != "full")
        # the last exchange turns columns of the whole batch into one's own images
        parts = sum(math.prod(layer.inputs) for layer in full) / n + full[-1].outputs[0] / n / n
        return round(2 * (n - 1) * batch_size * parts * number + 2 * (n - 1) / n * below * gradient)
    return 0


def collectives_per_step(where: Layout, plan: list[LayerSpec]) -> int:
    """Return how often each process sends in a training step."""
    if where.name == "ddp":
        return _buckets(plan)
    # else each weight and each bias that several processes have is a sum of its own
    shared = [layer for layer in plan if layer.parameters and where.data > 1]
    if where.towers == 2:
        return 2 * sum(layer.crossing > 0 for layer in plan) + 1 + 2 * len(shared)
    if where.name == "owt":
        full = sum(layer.kind == "full" for layer in plan)
        return 2 * full + 2 + 2 * (len([layer for layer in plan if layer.parameters]) - full)
    return 0


def _buckets(plan: list[LayerSpec]) -> int:
    """DDP sends the gradients of whole layers together, from the last one on: from 1 MB at first, then from 25."""
    buckets, size, limit = 0, 0, 2**20
    for layer in reversed(plan):
        size += 4 * layer.parameters
        if size >= limit:
            buckets, size, limit = buckets + 1, 0, 25 * 2**20
    return buckets + (size > 0)


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
