"""Build a net from the layer table: one `nn.Sequential` whose modules have the table's names, and initial weights.

    build(cfg.model, 224, seed=1)   ->  conv1_pad, conv1, conv1_act, conv1_lrn, conv1_pool, conv2, ... fc8

Two towers on one device are grouped convolutions: the first half of the maps is one tower, the second the other.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from alexnet_pl.config.choices import Activation, Dropout, Init, LrnAlphaConvention, ParameterNames
from alexnet_pl.config.schema import Model
from alexnet_pl.model.layers import (
    Flatten,
    LocalConv2d,
    Logits,
    MaskDropout,
    TowerLinear,
    activation,
    memory_format,
)
from alexnet_pl.model.lrn import LocalResponseNorm, SpatialResponseNorm
from alexnet_pl.model.specs import SPATIAL_ALPHA, SPATIAL_BETA, SPATIAL_K, SPATIAL_SIZE, LayerSpec, layer_specs


# ------------------------------------------------------------------------------------------------ build
def build_net(cfg: Model, input_size: int, seed: int) -> nn.Sequential:
    """Return the net of a configuration: float images (N, 3, input_size, input_size) -> logits (N, num_classes).

    Args:
        cfg: the `model` group.
        input_size: side of the square input in pixels.
        seed: seed of the initial weights; the same seed gives the same weights on every device.
    Raises:
        ConfigError: there is no such net; see `model.specs.layer_specs`.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    generator = torch.Generator().manual_seed(seed)
    plan = layer_specs(cfg, input_size)
    for spec in plan:
        if spec.kind == "full" and "flatten" not in modules:
            modules["flatten"] = Flatten()
        module = _layer(spec, cfg, nn.Linear if spec is not plan[-1] else Logits)
        if spec.parameters:
            _init_weights(module, spec, cfg, generator)
        modules[spec.name] = module
    net = nn.Sequential(modules)
    if cfg.parameter_names is ParameterNames.torchvision:
        net.register_state_dict_post_hook(_to_torchvision)
        net.register_load_state_dict_pre_hook(_from_torchvision)
    return net.to(memory_format=memory_format(cfg.channels_last))


def _layer(spec: LayerSpec, cfg: Model, linear: type[nn.Linear]) -> nn.Module:
    """Return the module of a layer; a fully connected one has this type. Its weights are not set yet."""
    compiled = cfg.compile_lrn
    match spec.kind:
        case "pad":
            return nn.ZeroPad2d((0, spec.overhang, 0, spec.overhang))
        case "conv":
            maps = spec.inputs[0], spec.outputs[0]
            return nn.utils.skip_init(
                nn.Conv2d, *maps, spec.size, spec.stride, padding=spec.padding, groups=spec.groups
            )
        case "local":
            return LocalConv2d(spec.inputs, spec.outputs, spec.size, spec.padding)
        case "full" if spec.groups > 1:
            return TowerLinear(math.prod(spec.inputs), spec.outputs[0], spec.groups)
        case "full":
            return nn.utils.skip_init(linear, math.prod(spec.inputs), spec.outputs[0])
        case "act":
            return activation(cfg.activation)
        case "lrn":
            by_size = cfg.lrn_size if cfg.lrn_alpha_convention is LrnAlphaConvention.code else 1
            return LocalResponseNorm(
                cfg.lrn_size, cfg.lrn_alpha / by_size, cfg.lrn_beta, cfg.lrn_k, spec.groups, compiled
            )
        case "spatial":
            return SpatialResponseNorm(SPATIAL_SIZE, SPATIAL_ALPHA, SPATIAL_BETA, SPATIAL_K, compiled)
        case "max":
            return nn.MaxPool2d(spec.size, spec.stride, ceil_mode=True)
        case "avg":
            return nn.AvgPool2d(spec.size, spec.stride, ceil_mode=True)
        case "dropout":
            kind = MaskDropout if cfg.dropout is Dropout.mask else nn.Dropout
            return kind(cfg.dropout_rate)


@torch.no_grad()
def _init_weights(module: Any, spec: LayerSpec, cfg: Model, generator: torch.Generator) -> None:
    """Draw the initial weights of a layer.

    gaussian: the table's std and bias (2012). fan_in: He et al. 2015 for relu (variance 2 / fan_in), LeCun 1998
    otherwise (1 / fan_in), biases 0. torch: uniform to 1 / sqrt(fan_in) on both sides, biases too.
    """
    match cfg.init:
        case Init.gaussian:
            std, bias = spec.row.std, spec.row.bias
        case Init.fan_in:
            std, bias = math.sqrt((2 if cfg.activation is Activation.relu else 1) / spec.fan_in), 0.0
        case Init.torch:
            bound = 1 / math.sqrt(spec.fan_in)
            module.weight.uniform_(-bound, bound, generator=generator)
            module.bias.uniform_(-bound, bound, generator=generator)
            return
    module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
    module.bias.fill_(bias)


def compiled_forward(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the forward of a net through torch.compile, which compiles it and its backward at the first call.

    Weights and their names stay the net's. Each batch size has code of its own, whatever came before, so that a resumed
    run has the same. Random numbers are those of the plain net.
    """
    return torch.compile(net.forward, dynamic=False, options={"fallback_random": True})


def set_arithmetic(benchmark: bool = False) -> None:
    """Make GPUs compute the same bits each time, and fp32 in fp32; by default cuDNN's convolutions use TF32.

    Args:
        benchmark: whether cuDNN times its algorithms and takes the fastest, which may add in another order each time.
    """
    torch.backends.cudnn.deterministic = not benchmark
    torch.backends.cudnn.allow_tf32 = False


# ------------------------------------------------------------------------------------------------ torchvision
TORCHVISION = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
"""Our layers' names -> their names in torchvision's alexnet"""


def _rename(state: dict[str, Any], prefix: str, names: dict[str, str]) -> None:
    for ours, theirs in names.items():
        for parameter in ("weight", "bias"):
            if f"{prefix}{ours}.{parameter}" in state:
                state[f"{prefix}{theirs}.{parameter}"] = state.pop(f"{prefix}{ours}.{parameter}")


def _to_torchvision(net: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    _rename(state, prefix, TORCHVISION)


def _from_torchvision(net: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    _rename(state, prefix, {theirs: ours for ours, theirs in TORCHVISION.items()})
