"""The nets as layer tables: rows of weights, what stands between them, and what each step costs. No torch here.

`TABLES` holds the rows, top to bottom the way of a picture. `rows` applies a configuration's departures to them,
`steps` lays out what happens between the rows and works out shapes and costs, or says why such a net cannot be.
`model.py` turns the steps into modules, `describe.py` prints them, and `checks.py` refuses the impossible ones before
a run starts. Shapes are (channels, height, width).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from alexnet_pl.config import Activation, Conv1Padding, Dropout, DropoutAt, Model, ParameterNames, Pooling, Table
from alexnet_pl.errors import ConfigError, nearest

# ------------------------------------------------------------------------------------------------ rows


@dataclass(frozen=True)
class Row:
    """A layer with weights; `std` is the width of its Gaussian, biases start at `bias`."""

    name: str
    outputs: int  # kernels over both towers, or units
    std: float = 0.01
    bias: float = 0.0
    own_tower: bool = field(default=False, kw_only=True)  # with two towers, sees what its own one made only


@dataclass(frozen=True)
class Conv(Row):
    """A convolution."""

    size: int = 3
    stride: int = 1
    padding: int = 0
    local: bool = False  # locally connected: weights of its own at every place
    pool: Literal["max", "avg"] | None = None  # stands above it


@dataclass(frozen=True)
class Full(Row):
    """A fully connected layer."""


CLASSES = -1  # outputs of the last row: model.num_classes

# The paper, section 3.5 and Figure 2; 0.01 everywhere and biases of 1 as in section 5.
ALEXNET: list[Row] = [
    Conv("conv1", 96, size=11, stride=4, pool="max"),  # 3x224x224 -> 96x55x55 -> 96x27x27
    Conv("conv2", 256, size=5, padding=2, own_tower=True, bias=1, pool="max"),  # -> 256x27x27 -> 256x13x13
    Conv("conv3", 384, size=3, padding=1),  # -> 384x13x13; the towers meet
    Conv("conv4", 384, size=3, padding=1, own_tower=True, bias=1),
    Conv("conv5", 256, size=3, padding=1, own_tower=True, bias=1, pool="max"),  # -> 256x13x13 -> 256x6x6
    Full("fc6", 4096, bias=1),
    Full("fc7", 4096, bias=1),
    Full("fc8", CLASSES),
]
# The nets trained on all of ImageNet: a sixth convolution over the last pooling layer (section 6; nets 141 and 146).
SIX_CONV = [*ALEXNET[:5], Conv("conv6", 256, size=3, padding=1, std=0.03, bias=1), *ALEXNET[5:]]

# Figure 1's four-layer net, as far as it is known: cuda-convnet's `layers-19pct.cfg`. The paper names no file; this is
# the net with four layers of weights that its author published for CIFAR-10 at the time.
CONVNET: list[Row] = [
    Conv("conv1", 32, size=5, padding=2, std=0.0001, pool="max"),  # 3x32x32 -> 32x32x32 -> 32x16x16
    Conv("conv2", 32, size=5, padding=2, pool="avg"),  # -> 32x8x8
    Conv("conv3", 64, size=5, padding=2, pool="avg"),  # -> 64x4x4
    Full("fc10", CLASSES),
]

# `layers-conv-local-13pct.cfg` and, with departures, `layers-conv-local-11pct.cfg`: CIFAR-10 in crops of 24 pixels.
CONV_LOCAL: list[Row] = [
    Conv("conv1", 64, size=5, padding=2, std=0.0001, pool="max"),  # 3x24x24 -> 64x24x24 -> 64x12x12
    Conv("conv2", 64, size=5, padding=2, pool="max"),  # -> 64x6x6
    Conv("local3", 32, size=3, padding=1, std=0.04, local=True),
    Conv("local4", 32, size=3, padding=1, std=0.04, local=True),
    Full("fc10", CLASSES),
]

TABLES: dict[Table, list[Row]] = {
    Table.alexnet: ALEXNET,
    Table.six_conv: SIX_CONV,
    Table.convnet: CONVNET,
    Table.conv_local: CONV_LOCAL,
}


def rows(m: Model) -> list[Row]:
    """The table of a configuration with its widths, weights, pooling and dropped layers.

    Raises:
        ConfigError: a key of the group names a layer that the table does not have, or drops the last.
    """
    table = TABLES[m.table]
    _refuse_unknown_layers(m, table)
    _refuse_what_it_cannot_have(m, table)
    out: list[Row] = []
    for row in table:
        if row.name in m.drop_layers:
            if isinstance(row, Conv) and row.pool:  # the grid stays as it is
                out.append(replace(row, outputs=0))
            continue
        outputs = m.num_classes if row.outputs == CLASSES else _width(m, row)
        if m.towers_meet is not None:  # conv1 sees the picture, the last layer both towers
            row = replace(row, own_tower=row.name not in ("conv1", table[-1].name, *m.towers_meet))
        std = m.std.get(row.name, row.std)
        if row is not table[0]:  # fewer inputs, each of more weight: the signal is as large as in the whole net
            std /= math.sqrt(m.width)
        row = replace(row, outputs=outputs, std=std, bias=m.bias.get(row.name, row.bias))
        if m.pooling is Pooling.plain and m.table in (Table.alexnet, Table.six_conv) and isinstance(row, Conv):
            # Net 147 took a pixel of padding from conv2 and conv5, so that the grid ends at 6x6 all the same:
            # 55 -> 28 -> 26 -> 13 -> 13 -> 13 -> 11 -> 6.
            row = replace(row, padding=row.padding - (row.name in ("conv2", "conv5")))
        out.append(row)
    return out


def _width(m: Model, row: Row) -> int:
    """Kernels or units of a layer but the last; a narrower net keeps even numbers, for two towers to share."""
    width = m.widths.get(row.name, row.outputs)
    return width if m.width == 1 else max(2, 2 * round(width * m.width / 2))


def _refuse_unknown_layers(m: Model, table: list[Row]) -> None:
    names = [row.name for row in table]
    convs = [row.name for row in table if isinstance(row, Conv)]
    allowed = {
        "widths": names[:-1],
        "drop_layers": names[:-1],
        "std": names,
        "bias": names,
        "order": convs,
        "lrn": convs,
        "spatial_norm": convs,
        "towers_meet": names,
    }
    for key, choices in allowed.items():
        for name in [name for name in getattr(m, key) or () if name not in choices]:
            if name in names[:-1]:
                raise ConfigError(
                    f"model.{key} names {name}, which is not a convolution: choose from {', '.join(convs)}"
                )
            if name == names[-1]:
                why = {"drop_layers": "the classes come from it", "widths": "its width is model.num_classes"}
                raise ConfigError(f"model.{key} names {name}, the last layer: {why.get(key, 'it is no convolution')}")
            raise ConfigError(f"model.{key} names {name}, which model={m.name} does not have: {nearest(name, choices)}")


def _refuse_what_it_cannot_have(m: Model, table: list[Row]) -> None:
    if m.towers > 1 and not any(isinstance(row, Conv) and row.own_tower for row in table):
        raise ConfigError(f"model={m.name} has one tower, but model.towers={m.towers}: only AlexNet was split in two")
    if m.dropout is not Dropout.none and sum(isinstance(row, Full) for row in table) == 1:
        raise ConfigError(
            f"model={m.name} has no hidden fully connected layer to drop units of: set model.dropout=none"
        )
    strides = any(isinstance(row, Conv) and row.stride > 1 for row in table)
    if m.towers_meet is not None and m.towers != 2:
        raise ConfigError(f"model.towers_meet={m.towers_meet} means nothing for a net of one tower: set model.towers=2")
    if m.conv1_padding is not Conv1Padding.right_bottom and not strides:
        raise ConfigError(f"model.conv1_padding means nothing for model={m.name}, whose conv1 has no stride")
    if m.parameter_names is ParameterNames.torchvision and m.table is not Table.alexnet:
        raise ConfigError(f"torchvision has no names for the parameters of model={m.name}: use parameter_names=layers")


# ------------------------------------------------------------------------------------------------ steps


Kind = Literal["pad", "conv", "local", "full", "act", "lrn", "spatial", "max", "avg", "dropout"]


@dataclass(frozen=True)
class Step:
    """One thing done to a picture, with its cost per picture."""

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
        """Inputs of one unit."""
        return self.inputs[0] // self.groups * (self.size**2 if self.size else self.inputs[1] * self.inputs[2])


def steps(m: Model, image_size: int) -> list[Step]:
    """Everything between a picture (3, image_size, image_size) and the logits, in order.

    Raises:
        ConfigError: such a net cannot be: the picture is too small for the layers, or towers cannot share a layer.
    """
    return list(_steps(m, image_size))


def _steps(m: Model, image_size: int) -> Iterator[Step]:
    table = rows(m)
    last = table[-1].name
    shape = (3, image_size, image_size)
    towers = 1  # parts the signal is in: the picture is whole
    for row in table:
        if isinstance(row, Full):
            hidden = row.name != last
            if m.dropout is not Dropout.none and m.dropout_at is DropoutAt.inputs and hidden:
                yield Step(f"{row.name}_dropout", "dropout", shape, shape)
            if m.towers > 1 and hidden and row.outputs % m.towers:
                raise ConfigError(_unshared(m, row))
            groups = towers if row.own_tower else 1
            units = (row.outputs, 1, 1)
            weights = math.prod(shape) // groups * row.outputs
            crossing = math.prod(shape) // 2 if towers == 2 and groups == 1 else 0
            yield Step(
                row.name, "full", shape, units, row, groups, parameters=weights + row.outputs, macs=weights,
                crossing=crossing,
            )  # fmt: skip
            shape, towers = units, m.towers
            if hidden:
                yield Step(f"{row.name}_act", "act", shape, shape)
                if m.dropout is not Dropout.none and m.dropout_at is DropoutAt.outputs:
                    yield Step(f"{row.name}_dropout", "dropout", shape, shape)
            continue
        assert isinstance(row, Conv)
        if row.outputs:
            for step in _convolution(m, row, shape, towers, image_size):
                yield step
                shape = step.outputs
            towers = m.towers
        for what in m.order[row.name].name.split("_") if row.name in m.order else ("act", "lrn", "pool"):
            if what == "act" and row.outputs:
                yield Step(f"{row.name}_act", "act", shape, shape)
            if what == "lrn" and row.outputs and row.name in m.lrn:
                yield Step(f"{row.name}_lrn", "lrn", shape, shape, groups=1 if m.lrn_across_towers else towers)
            if what == "lrn" and row.outputs and row.name in m.spatial_norm:
                yield Step(f"{row.name}_spatial", "spatial", shape, shape)
            if what == "pool" and row.pool:
                size = 3 if m.pooling is Pooling.overlapping else 2
                # A last window that hangs over the edge counts (cuda-convnet; torch's ceil_mode).
                side = math.ceil((shape[1] - size) / 2) + 1
                pooled = (shape[0], side, side)
                if shape[1] < size:
                    raise ConfigError(_too_small(m, image_size, f"{row.name}_pool", shape[1], size))
                yield Step(f"{row.name}_pool", row.pool, shape, pooled, size=size, stride=2)
                shape = pooled


def _convolution(m: Model, row: Conv, shape: tuple[int, int, int], towers: int, image_size: int) -> Iterator[Step]:
    """The convolution of a row, after the zeros of 2012 where windows do not end at the picture's edge."""
    padding, side = row.padding, shape[1]
    if row.stride > 1 and m.conv1_padding is Conv1Padding.symmetric:
        padding = 2
    if row.stride > 1 and m.conv1_padding is Conv1Padding.right_bottom and side >= row.size:
        # cuda-convnet makes 1 + ceil((224 - 11) / 4) = 55 modules; the last reads three pixels beyond the edge as 0.
        overhang = -(side - row.size) % row.stride
        if overhang:
            padded = (shape[0], side + overhang, side + overhang)
            yield Step(f"{row.name}_pad", "pad", shape, padded, overhang=overhang)
            shape, side = padded, side + overhang
    if side + 2 * padding < row.size:
        raise ConfigError(_too_small(m, image_size, row.name, side, row.size))
    out = (side + 2 * padding - row.size) // row.stride + 1
    groups = towers if row.own_tower else 1
    if row.outputs % m.towers or shape[0] % groups:
        raise ConfigError(_unshared(m, row))
    fan_in = shape[0] // groups * row.size**2
    weights, places = fan_in * row.outputs, out * out
    crossing = math.prod(shape) // 2 if towers == 2 and not row.own_tower else 0
    yield Step(
        row.name, "local" if row.local else "conv", shape, (row.outputs, out, out), row, groups, row.size, row.stride,
        padding, 0, (weights + row.outputs) * (places if row.local else 1), weights * places, crossing,
    )  # fmt: skip


def _too_small(m: Model, image_size: int, name: str, side: int, size: int) -> str:
    return (
        f"pictures of {image_size} pixels are too small for model={m.name}: {side}x{side} are left for {name}, "
        f"whose window is {size}x{size}"
    )


def _unshared(m: Model, row: Row) -> str:
    return f"{row.name} has {row.outputs} outputs, which {m.towers} towers cannot share equally: use an even number"


def kept(m: Model, plan: list[Step]) -> int:
    """Bytes per picture that the backward pass needs of the forward pass, in fp32: each tensor once."""
    numbers: dict[str, int] = {}
    below = "picture"
    for step in plan:
        made, given = math.prod(step.outputs), math.prod(step.inputs)
        if step.kind in ("conv", "full", "lrn", "spatial", "max", "avg"):
            numbers[below] = given
        if step.kind == "local":  # every window laid out
            numbers[f"{step.name} windows"] = step.fan_in * step.outputs[1] * step.outputs[2]
        if step.kind == "act":
            numbers[step.name] = made
        if step.kind == "max":
            numbers[f"{step.name} places"] = 2 * made  # int64
        if step.kind == "dropout":
            numbers[f"{step.name} mask"] = made
        if step.kind == "act" and m.activation is Activation.abs_tanh:
            numbers[f"{step.name} signs"] = made
        below = step.name
    return 4 * (sum(numbers.values()) + math.prod(plan[-1].outputs))
