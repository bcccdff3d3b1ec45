"""From the rows of a table to all layers of a net, with shapes and costs per image. No torch here.

`layer_specs` returns everything between an image and the logits, or says why such a net cannot be. Shapes are
(channels, height, width).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from alexnet_pl.config.choices import Activation, Conv1Padding, Dropout, DropoutAt, Init, Pooling
from alexnet_pl.config.schema import Model
from alexnet_pl.errors import ConfigError
from alexnet_pl.model.architectures import Conv, Full, Row, architecture_rows

Kind = Literal["pad", "conv", "local", "full", "act", "lrn", "spatial", "max", "avg", "dropout"]
MONOTONE = (Activation.relu, Activation.tanh, Activation.sigmoid)
"""Activations that commute with the maximum, so that their order with a max-pool does not matter"""
SPATIAL_SIZE, SPATIAL_BETA, SPATIAL_K = 5, 0.75, 1
SPATIAL_ALPHA = 1e-3 / SPATIAL_SIZE**2
"""The spatial normalisation's constants in net 145 of the released code, which divides 1e-3 by the window's area"""


@dataclass(frozen=True)
class LayerSpec:
    """One layer, with or without weights, with its cost per image."""

    name: str  # as the module is called
    kind: Kind
    inputs: tuple[int, int, int]
    outputs: tuple[int, int, int]
    row: Row = field(default_factory=lambda: Row("", 0))  # of a layer with weights
    groups: int = 1
    size: int = 0  # of the window
    stride: int = 1
    padding: int = 0
    overhang: int = 0  # zero rows below and zero columns to the right ("pad")
    parameters: int = 0
    macs: int = 0  # multiply-adds of the forward pass
    crossing: int = 0  # numbers each tower gets from the other

    @property
    def fan_in(self) -> int:
        """Number of inputs of one unit."""
        return self.inputs[0] // self.groups * (self.size**2 if self.size else self.inputs[1] * self.inputs[2])


def layer_specs(m: Model, input_size: int) -> list[LayerSpec]:
    """Return everything between an image (3, input_size, input_size) and the logits, in order.

    Raises:
        ConfigError: such a net cannot be: the image is too small for the layers, or towers cannot share a layer.
    """
    return list(_layer_specs(m, input_size))


def _layer_specs(m: Model, input_size: int) -> Iterator[LayerSpec]:
    table = architecture_rows(m)
    last = table[-1].name
    shape = (3, input_size, input_size)
    towers = 1  # parts the signal is in: the image is whole
    for row in table:
        if isinstance(row, Full):
            hidden = row.name != last
            if m.dropout is not Dropout.none and m.dropout_at is DropoutAt.inputs and hidden:
                yield LayerSpec(f"{row.name}_dropout", "dropout", shape, shape)
            if m.towers > 1 and hidden and row.outputs % m.towers:
                raise ConfigError(_unshared(m, row))
            groups = towers if row.own_tower else 1
            units = (row.outputs, 1, 1)
            weights = math.prod(shape) // groups * row.outputs
            crossing = math.prod(shape) // 2 if towers == 2 and groups == 1 else 0
            yield LayerSpec(
                row.name, "full", shape, units, row, groups, parameters=weights + row.outputs, macs=weights,
                crossing=crossing,
            )  # fmt: skip
            shape, towers = units, m.towers
            if hidden:
                yield LayerSpec(f"{row.name}_act", "act", shape, shape)
                if m.dropout is not Dropout.none and m.dropout_at is DropoutAt.outputs:
                    yield LayerSpec(f"{row.name}_dropout", "dropout", shape, shape)
            continue
        assert isinstance(row, Conv)
        if row.outputs:
            for layer in _convolution(m, row, shape, towers, input_size):
                yield layer
                shape = layer.outputs
            towers = m.towers
        for what in m.order[row.name].name.split("_") if row.name in m.order else ("act", "lrn", "pool"):
            if what == "act" and row.outputs:
                yield LayerSpec(f"{row.name}_act", "act", shape, shape)
            if what == "lrn" and row.outputs and row.name in m.lrn:
                yield LayerSpec(f"{row.name}_lrn", "lrn", shape, shape, groups=1 if m.lrn_across_towers else towers)
            if what == "lrn" and row.outputs and row.name in m.spatial_norm:
                yield LayerSpec(f"{row.name}_spatial", "spatial", shape, shape)
            if what == "pool" and row.pool:
                size = 3 if m.pooling is Pooling.overlapping else 2
                # A last window that hangs over the edge counts (cuda-convnet; torch's ceil_mode).
                side = math.ceil((shape[1] - size) / 2) + 1
                pooled = (shape[0], side, side)
                if shape[1] < size:
                    raise ConfigError(_too_small(m, input_size, f"{row.name}_pool", shape[1], size))
                yield LayerSpec(f"{row.name}_pool", row.pool, shape, pooled, size=size, stride=2)
                shape = pooled


def _convolution(m: Model, row: Conv, shape: tuple[int, int, int], towers: int, input_size: int) -> Iterator[LayerSpec]:
    """Return the convolution of a row, after the zeros of 2012 if windows do not end at the image's edge."""
    padding, side = row.padding, shape[1]
    if row.stride > 1 and m.conv1_padding is Conv1Padding.symmetric:
        padding = 2
    if row.stride > 1 and m.conv1_padding is Conv1Padding.right_bottom and side >= row.size:
        # cuda-convnet makes 1 + ceil((224 - 11) / 4) = 55 modules; the last reads three pixels beyond the edge as 0.
        overhang = -(side - row.size) % row.stride
        if overhang:
            padded = (shape[0], side + overhang, side + overhang)
            yield LayerSpec(f"{row.name}_pad", "pad", shape, padded, overhang=overhang)
            shape, side = padded, side + overhang
    if side + 2 * padding < row.size:
        raise ConfigError(_too_small(m, input_size, row.name, side, row.size))
    out = (side + 2 * padding - row.size) // row.stride + 1
    groups = towers if row.own_tower else 1
    if row.outputs % m.towers or shape[0] % groups:
        raise ConfigError(_unshared(m, row))
    fan_in = shape[0] // groups * row.size**2
    weights, places = fan_in * row.outputs, out * out
    crossing = math.prod(shape) // 2 if towers == 2 and not row.own_tower else 0
    yield LayerSpec(
        row.name, "local" if row.local else "conv", shape, (row.outputs, out, out), row, groups, row.size, row.stride,
        padding, 0, (weights + row.outputs) * (places if row.local else 1), weights * places, crossing,
    )  # fmt: skip


def _too_small(m: Model, input_size: int, name: str, side: int, size: int) -> str:
    return (
        f"images of {input_size} pixels are too small for model={m.name}: {side}x{side} are left for {name}, "
        f"whose window is {size}x{size}"
    )


def _unshared(m: Model, row: Row) -> str:
    return f"{row.name} has {row.outputs} outputs, which {m.towers} towers cannot share equally: use an even number"


def activation_bytes(m: Model, plan: list[LayerSpec]) -> int:
    """Return the bytes per image that the forward pass stores for the backward pass, in fp32, each tensor once."""
    numbers: dict[str, int] = {}
    below = "image"
    for layer in plan:
        made, given = math.prod(layer.outputs), math.prod(layer.inputs)
        if layer.kind in ("conv", "full", "lrn", "spatial", "max", "avg"):
            numbers[below] = given
        if layer.kind == "local":  # every window laid out
            numbers[f"{layer.name} windows"] = layer.fan_in * layer.outputs[1] * layer.outputs[2]
        if layer.kind == "act":
            numbers[layer.name] = made
        if layer.kind == "max":
            numbers[f"{layer.name} places"] = 2 * made  # int64
        if layer.kind == "dropout":
            numbers[f"{layer.name} mask"] = made
        if layer.kind == "act" and m.activation is Activation.abs_tanh:
            numbers[f"{layer.name} signs"] = made
        below = layer.name
    return 4 * (sum(numbers.values()) + math.prod(plan[-1].outputs))


def notes(m: Model, plan: list[LayerSpec]) -> Iterator[str]:
    """Yield notes on settings that may not suit an activation that the net was not made for."""
    kinds = {layer.name: number for number, layer in enumerate(plan) if layer.kind in ("act", "max")}
    acts = {name: kinds.get(f"{name.removesuffix('_pool')}_act", -1) for name in kinds if name.endswith("_pool")}
    above = [name for name, act in acts.items() if kinds[name] < act]
    if m.activation not in MONOTONE and above:
        yield (
            f"{m.activation} is not monotone and stands above {' and '.join(above)}: below (model.order.conv1="
            "act_lrn_pool) it is another net"
        )
    if m.init is Init.fan_in and m.activation is not Activation.relu:
        yield f"model.init=fan_in starts {m.activation} with the variance 1/n of LeCun; relu alone has its own, 2/n"
