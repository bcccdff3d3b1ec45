"""The nets as layer tables, and how their weights start.

A net is a list of layers, read from the picture to the logits; `build` turns the list into one `nn.Sequential` whose
modules carry the table's names. Shapes in comments are (channels, height, width).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from alexnet_pl import config
from alexnet_pl.errors import ConfigError

# ------------------------------------------------------------------------------------------------ layers


@dataclass
class Conv:
    """A convolution; `std` is the 2012 width of its Gaussian, biases start at `bias`."""

    name: str
    kernels: int
    size: int
    padding: int
    std: float
    bias: float = 0.0


@dataclass
class Act:
    """The nonlinearity of the run."""

    name: str


@dataclass
class Pool:
    """Pooling over 3x3 windows, 2 apart: overlapping. Windows that hang over the edge count what is inside."""

    name: str
    kind: Literal["max", "avg"]
    size: int = 3
    stride: int = 2


@dataclass
class Full:
    """A fully connected layer over everything below it."""

    name: str
    outputs: int
    std: float
    bias: float = 0.0


Layer = Conv | Act | Pool | Full


# ------------------------------------------------------------------------------------------------ nets


def convnet(num_classes: int) -> list[Layer]:
    """Figure 1's four-layer net, as far as it is known: the layers of cuda-convnet's `layers-19pct.cfg`.

    The paper names no file; this is the four-weight-layer net its author published for CIFAR-10 at the time.
    89,578 parameters for 10 classes.
    """
    return [
        Conv("conv1", 32, size=5, padding=2, std=0.0001),  # 3x32x32 -> 32x32x32
        Pool("pool1", "max"),  #                              -> 32x16x16
        # A monotone activation commutes with the maximum; after the pool it has a quarter of the work.
        Act("act1"),
        Conv("conv2", 32, size=5, padding=2, std=0.01),
        Act("act2"),
        Pool("pool2", "avg"),  #                              -> 32x8x8
        Conv("conv3", 64, size=5, padding=2, std=0.01),
        Act("act3"),
        Pool("pool3", "avg"),  #                              -> 64x4x4
        Full("fc10", num_classes, std=0.01),
    ]


TABLES = {config.Net.convnet: convnet}

ACTIVATIONS = {
    config.Activation.relu: nn.ReLU,
    config.Activation.tanh: nn.Tanh,
    config.Activation.sigmoid: nn.Sigmoid,
}


# ------------------------------------------------------------------------------------------------ build


def build(cfg: config.Model, image_size: int, seed: int) -> nn.Sequential:
    """The net of a configuration, for float pictures (N, 3, image_size, image_size), giving logits (N, num_classes).

    Args:
        cfg: the `model` group.
        image_size: side of the square input in pixels.
        seed: of the initial weights; the same seed gives the same weights on every device.
    Raises:
        ConfigError: the picture is too small for the layers.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    channels, side = 3, image_size
    generator = torch.Generator().manual_seed(seed)
    for layer in TABLES[cfg.name](cfg.num_classes):
        module: nn.Module
        match layer:
            case Conv():
                module = nn.Conv2d(channels, layer.kernels, layer.size, padding=layer.padding)
                channels, side = layer.kernels, side + 2 * layer.padding - layer.size + 1
            case Pool():
                pool = nn.MaxPool2d if layer.kind == "max" else nn.AvgPool2d
                module = pool(layer.size, layer.stride, ceil_mode=True)
                side = math.ceil((side - layer.size) / layer.stride) + 1
            case Act():
                module = ACTIVATIONS[cfg.activation]()
            case Full():
                if not any(isinstance(m, nn.Flatten) for m in modules.values()):
                    modules["flatten"] = nn.Flatten()
                    channels, side = channels * side * side, 1
                module = nn.Linear(channels, layer.outputs)
                channels = layer.outputs
        if side < 1:
            raise ConfigError(
                f"pictures of {image_size} pixels are too small for model={cfg.name.name}: nothing is left "
                f"after {layer.name}"
            )
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert isinstance(layer, Conv | Full)
            _start(module, layer, cfg, generator)
        modules[layer.name] = module
    net = nn.Sequential(modules)
    return net.to(memory_format=torch.channels_last) if cfg.channels_last else net


@torch.no_grad()
def _start(module: nn.Conv2d | nn.Linear, layer: Conv | Full, cfg: config.Model, generator: torch.Generator) -> None:
    """Draw the weights of a layer. fan_in: He et al. 2015 for relu (variance 2/fan_in), LeCun 1998 otherwise."""
    assert module.bias is not None
    fan_in = module.weight[0].numel()
    if cfg.init is config.Init.released_2012:
        std = layer.std
    else:
        std = math.sqrt((2 if cfg.activation is config.Activation.relu else 1) / fan_in)
    module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
    module.bias.fill_(layer.bias)
