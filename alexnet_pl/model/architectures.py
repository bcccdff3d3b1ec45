"""The nets as layer tables: rows of weights, and how a configuration departs from them. No torch here.

`ARCHITECTURES` holds the rows in the order in which an image passes them. `architecture_rows` applies a
configuration's changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from alexnet_pl.config.choices import Arch, Conv1Padding, Dropout, ParameterNames, Pooling
from alexnet_pl.config.schema import Model
from alexnet_pl.config.suggestions import suggest
from alexnet_pl.errors import ConfigError


# ------------------------------------------------------------------------------------------------ rows
@dataclass(frozen=True)
class Row:
    """A layer with weights. They start from a Gaussian of standard deviation `std`, and biases start at `bias`."""

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


ARCHITECTURES: dict[Arch, list[Row]] = {
    Arch.alexnet: ALEXNET,
    Arch.six_conv: SIX_CONV,
    Arch.convnet: CONVNET,
    Arch.conv_local: CONV_LOCAL,
}


def architecture_rows(m: Model) -> list[Row]:
    """Return the table of a configuration with its widths, weights, pooling and dropped layers.

    Raises:
        ConfigError: a key of the group names a layer that the table does not have, or drops the last.
    """
    table = ARCHITECTURES[m.arch]
    _refuse_unknown_layers(m, table)
    _refuse_what_it_cannot_have(m, table)
    out: list[Row] = []
    for row in table:
        if row.name in m.drop_layers:
            if isinstance(row, Conv) and row.pool:  # the grid stays as it is
                out.append(replace(row, outputs=0))
            continue
        outputs = m.num_classes if row.outputs == CLASSES else _width(m, row)
        if m.towers_meet is not None:  # conv1 sees the image, the last layer both towers
            row = replace(row, own_tower=row.name not in ("conv1", table[-1].name, *m.towers_meet))
        std = m.std.get(row.name, row.std)
        if row is not table[0]:  # fewer inputs, each of more weight: the signal is as large as in the whole net
            std /= math.sqrt(m.width)
        row = replace(row, outputs=outputs, std=std, bias=m.bias.get(row.name, row.bias))
        if m.pooling is Pooling.plain and m.arch in (Arch.alexnet, Arch.six_conv) and isinstance(row, Conv):
            # Net 147 took a pixel of padding from conv2 and conv5, so that the grid ends at 6x6 all the same:
            # 55 -> 28 -> 26 -> 13 -> 13 -> 13 -> 11 -> 6.
            row = replace(row, padding=row.padding - (row.name in ("conv2", "conv5")))
        out.append(row)
    return out


def _width(m: Model, row: Row) -> int:
    """Return the kernels or units of a layer. A narrower net keeps even numbers, for two towers to share."""
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
            raise ConfigError(f"model.{key} names {name}, which model={m.name} does not have: {suggest(name, choices)}")


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
    if m.parameter_names is ParameterNames.torchvision and m.arch is not Arch.alexnet:
        raise ConfigError(f"torchvision has no names for the parameters of model={m.name}: use parameter_names=layers")
