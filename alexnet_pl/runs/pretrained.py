"""Start a net from another's weights: which layers take them, and whether both nets get the same kind of pixels.

Section 6 of the paper trains on all of ImageNet first, and then fine-tunes on ILSVRC-2012.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from alexnet_pl.config.choices import PretrainedLayers
from alexnet_pl.config.schema import Config
from alexnet_pl.data import store
from alexnet_pl.errors import ConfigError
from alexnet_pl.files import expand
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.model.weights import parameter_shapes
from alexnet_pl.runs.naming import names_weights
from alexnet_pl.runs.run import find_checkpoint
from alexnet_pl.runs.trained import TrainedModel, load

FAR = 32.0
"""Grey levels by which the mean colours of two nets may differ: nearly twice the usual difference for photographs"""
FUNCTION = (
    "conv1_padding", "activation", "order", "pooling", "lrn", "lrn_size", "lrn_alpha", "lrn_beta", "lrn_k",
    "lrn_alpha_convention", "lrn_across_towers", "spatial_norm", "towers",
)  # fmt: skip
"""Keys of a net that change the effect of its convolutions' weights, but not their shapes"""


@dataclass
class Pretrained:
    """Another net, and the layers that a net takes from it."""

    net: TrainedModel
    loaded: list[str]
    """layers that start with its weights"""
    anew: list[str]
    """layers that start anew"""
    differences: list[str]
    """differences between the two nets' convolutions, in words"""

    def lines(self) -> list[str]:
        """Return a sentence for the user."""
        anew = f"; anew: {', '.join(self.anew)}" if self.anew else ""
        said = [f"pretrained: {', '.join(self.loaded)} from {self.net.name}{anew}"]
        if self.differences:
            said.append(f"pretrained: {self.net.name} was another net: {', '.join(self.differences)}")
        return said


def read_pretrained(cfg: Config) -> Pretrained:
    """Return the net that a run starts from, after checking that it fits.

    Raises:
        ConfigError: there is no such net, a layer has another shape, or its pixels are not centred and scaled alike.
    """
    word = cfg.pretrained or ""
    net = load(word if names_weights(word) else find_checkpoint(word, "pretrained"))
    _refuse_other_pixels(cfg, net)
    plan = [spec for spec in layer_specs(cfg.model, cfg.data.input_size) if spec.parameters]
    here, there = (parameter_shapes(c.model, c.data.input_size) for c in (cfg, net.cfg))
    loaded = []
    for spec in plan:
        name = f"{spec.name}.weight"
        if name not in there or (spec.kind == "full" and cfg.pretrained_layers is PretrainedLayers.conv):
            continue
        if here[name] == there[name]:
            loaded.append(spec.name)
        elif spec.kind != "full":  # a fully connected layer is another one where classes or the grid are others
            raise ConfigError(f"pretrained={word} has {name} of {there[name]}, and here it is of {here[name]}")
    if not loaded:
        raise ConfigError(f"pretrained={word} is of a net without the layers of this one")
    anew = [spec.name for spec in plan if spec.name not in loaded]
    pairs = {key: (getattr(net.cfg.model, key), getattr(cfg.model, key)) for key in FUNCTION}
    differences = [f"{key} {_plain(old)}, here {_plain(new)}" for key, (old, new) in pairs.items() if old != new]
    return Pretrained(net, loaded, anew, differences)


def load_pretrained(net: nn.Module, cfg: Config) -> list[str]:
    """Copy the layers of the net that a run starts from into its net; return a sentence for the user.

    Raises:
        ConfigError: as `read_pretrained`.
    """
    given = read_pretrained(cfg)
    with torch.no_grad():
        for layer in given.loaded:
            for name, own in net.get_submodule(layer).named_parameters():
                own.copy_(given.net.net.get_submodule(layer).get_parameter(name))
    return given.lines()


def _refuse_other_pixels(cfg: Config, net: TrainedModel) -> None:
    word, scale, own = cfg.pretrained, net.cfg.data.pixel_scale, cfg.data
    if scale != own.pixel_scale:
        raise ConfigError(
            f"pretrained={word} was trained on pixels divided by {scale:g}, and here data.pixel_scale="
            f"{own.pixel_scale:g}: set data.pixel_scale={scale:g}"
        )
    there = net.mean.double().mean((0, 1))
    if own.mean_color is not None:
        here = torch.tensor(own.mean_color, dtype=torch.float64)
    elif own.packed:
        here = torch.from_numpy(store.require(expand(own.root or ".")).mean()).mean((0, 1))
    else:
        return
    if (here - there).abs().max() > FAR:
        colours = ",".join(f"{value:.1f}" for value in there.tolist())
        raise ConfigError(
            f"pretrained={word} was trained on pixels minus the mean colour [{colours}], and that of these images is "
            f"[{','.join(f'{value:.1f}' for value in here.tolist())}]: set data.mean_color=[{colours}]"
        )


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {entry}" for key, entry in value.items()) or "none"
    return str(value)
