"""The traffic of a layout: the bytes that each device sends in a step, and how often it sends."""

from __future__ import annotations

import math

from alexnet_pl.model.specs import LayerSpec
from alexnet_pl.parallel.layouts import Layout


def bytes_per_step(where: Layout, plan: list[LayerSpec], batch_size: int, precision: str = "32-true") -> int:
    """Return the bytes that each process sends in a training step, if exchanges go round in rings.

    A sum over n processes sends 2 (n - 1) / n of its bytes: half to sum, and half to distribute. A gather sends each
    part n - 1 times forward, and as often backward. The last gather, of the logits, sends forward only.
    """
    number = 2 if precision.startswith(("bf16", "16")) else 4  # of the net's activations
    gradient = 2 if precision in ("bf16-true", "16-true") else 4  # as the weights are, and the logits
    n, data = where.processes, where.data
    weights = sum(layer.parameters for layer in plan)
    if where.name == "ddp":
        return round(2 * (n - 1) / n * weights * gradient)
    if where.towers == 2:
        crossing = sum(layer.crossing for layer in plan)
        images = batch_size / data * (2 * crossing * number + plan[-1].outputs[0] // 2 * gradient)
        return round(images + 2 * (data - 1) / data * weights / 2 * gradient)
    if where.name == "owt":
        full = [layer for layer in plan if layer.kind == "full"]
        below = sum(layer.parameters for layer in plan if layer.kind != "full")
        # the last exchange turns columns of the whole batch into one's own images
        parts = sum(math.prod(layer.inputs) for layer in full) / n * number + full[-1].outputs[0] / n / n * gradient
        return round(2 * (n - 1) * batch_size * parts + 2 * (n - 1) / n * below * gradient)
    return 0


def collectives_per_step(where: Layout, plan: list[LayerSpec]) -> int:
    """Return how often each process sends in a training step."""
    if where.name == "ddp":
        return _buckets(plan)
    # else the gradients of all copies are one sum
    if where.towers == 2:
        return 2 * sum(layer.crossing > 0 for layer in plan) + 1 + (where.data > 1)
    if where.name == "owt":
        return 2 * sum(layer.kind == "full" for layer in plan) + 2 + 1
    return 0


def _buckets(plan: list[LayerSpec]) -> int:
    """Return how often DDP sends. It collects whole layers' gradients from the last layer on: first 1 MB, then 25."""
    buckets, size, limit = 0, 0, 2**20
    for layer in reversed(plan):
        size += 4 * layer.parameters
        if size >= limit:
            buckets, size, limit = buckets + 1, 0, 25 * 2**20
    return buckets + (size > 0)
