"""A trained net with all it needs to look at images: weights, mean image, what its classes are called.

    load("runs/alexnet")        from a run, a folder of one run, or a checkpoint file
    torchvision_net("alexnet-owt-7be5be79.pth")        torchvision's published weights

A checkpoint carries all of it: no data set is needed to use one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alexnet_pl.config.choices import (
    Arch,
    Conv1Padding,
    Dropout,
    DropoutAt,
    Init,
    LrnAlphaConvention,
    ParameterNames,
)
from alexnet_pl.config.schema import Config, Data, Model, from_dict
from alexnet_pl.data import augment
from alexnet_pl.data.datasets import SMALL_DATASETS
from alexnet_pl.errors import ConfigError, first_line
from alexnet_pl.files import damaged, require_file
from alexnet_pl.model.build import build_net
from alexnet_pl.model.layers import LocalConv2d, memory_format
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.runs import checkpoint
from alexnet_pl.runs.artifacts import is_artifact
from alexnet_pl.runs.run import CHECKPOINT_NAMES, Run, find_checkpoint

MOST_PIXELS = 8192
"""Side of the squares that a net is shown"""


@dataclass
class TrainedModel:
    """A net in evaluation mode."""

    name: str
    cfg: Config
    net: nn.Sequential
    mean: Tensor
    """float32 (H, W, 3): what is subtracted from a square, in grey levels"""
    classes: list[str]
    run: Run | None = None

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def resized_size(self) -> int:
        """Side in pixels of the squares that an image is made into, before views are cut out."""
        return self.cfg.data.resized_size

    def to(self, device: torch.device) -> TrainedModel:
        return replace(self, net=self.net.to(device), mean=self.mean.to(device))

    def input(self, images: Tensor, views: int = 1) -> Tensor:
        """uint8 squares (n, S, S, 3) as the net takes them: (n * views, 3, H, W), an image's views side by side."""
        d = self.cfg.data
        return augment.evaluation_input(images.to(self.device), self.mean, d.resized_size, d.pixel_scale, views)

    def logits(self, images: Tensor, views: int = 1) -> Tensor:
        """uint8 squares (n, S, S, 3) -> float32 (n, views, classes); a net may have more outputs than that."""
        return self.outputs(images, views)[:, :, : len(self.classes)]

    @torch.inference_mode()
    def outputs(self, images: Tensor, views: int = 1) -> Tensor:
        """uint8 squares (n, S, S, 3) -> all that the net puts out, float32 (n, views, outputs)."""
        layout = memory_format(self.cfg.model.channels_last)
        dtype = next(self.net.parameters()).dtype
        inputs = self.input(images, views).to(dtype).contiguous(memory_format=layout)
        return self.net(inputs).float().unflatten(0, (len(images), views))


def load(path: str | Path, weights: list[str] | None = None) -> TrainedModel:
    """Return the trained net of a run, on the CPU.

    Args:
        path: a run folder, a folder of one run, a checkpoint file, or an artifact of W&B's.
        weights: names of the run's checkpoints (`run.CHECKPOINT_NAMES`) or files; of several the mean of the weights is
            taken. None: the last, or the best where that is all there is.
    Raises:
        ConfigError: there is no checkpoint, it cannot be read, or the several are not of one net.
    """
    path = find_checkpoint(str(path), "run") if is_artifact(path) else Path(path).expanduser()
    if path.is_dir():
        files = [_file(path, name) for name in weights] if weights else [find_checkpoint(str(path), "run")]
    else:
        files = [path]
    advice = "give a checkpoint that training wrote, or train again"
    checkpoints = [checkpoint.read(file, checkpoint.NET, advice) for file in files]
    first, *others = checkpoints
    cfg, seen = from_dict(first["config"]), first["input"]
    if wrong := _mistake(cfg, seen["mean"], seen["classes"]):
        raise damaged(files[0], wrong, advice)
    for file, other in zip(files[1:], others, strict=True):
        if _shapes(other) != _shapes(first):
            raise ConfigError(f"{files[0]} and {file} are not of one net: only weights of the same net can be averaged")
    state = {name.removeprefix("net."): value for name, value in _mean(checkpoints).items()}
    try:
        weights_needed = sum(layer.parameters for layer in layer_specs(cfg.model, cfg.data.input_size))
        if weights_needed != (there := sum(value.numel() for value in state.values())):  # before memory is asked for
            raise ValueError(f"its net has {weights_needed:,} weights, and {there:,} are there")
        net = build_net(cfg.model, cfg.data.input_size, seed=0).to(next(iter(state.values())).dtype)
        net.load_state_dict(state)
    except (ConfigError, ArithmeticError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise damaged(files[0], " ".join(str(error).split()), advice) from error
    folder = files[0].parent.parent
    run = Run(folder) if (folder / "run.json").is_file() else None
    name = run.folder.name if run else files[0].stem
    return TrainedModel(name, cfg, net.eval(), seen["mean"], seen["classes"], run)


def _file(folder: Path, name: str) -> Path:
    if name not in CHECKPOINT_NAMES:
        return Path(name).expanduser()
    there = find_checkpoint(str(folder), "run")
    file = there.with_name(f"{name}.ckpt")
    if not os.path.lexists(file):
        raise ConfigError(
            f"{there.parent} has no {file.name}, but {there.name}: a run without validation keeps no best"
        )
    return file


def _mistake(cfg: Config, mean: Tensor, classes: list[str]) -> str:
    """Return in what a checkpoint's images cannot be those of its net; empty where they can."""
    d = cfg.data
    if not d.packed and d.kind not in SMALL_DATASETS:
        return f"data.kind is {d.kind}"
    if not (8 <= d.input_size <= d.resized_size <= MOST_PIXELS and d.pixel_scale > 0):
        return (
            f"its images have {d.resized_size} pixels, its crops {d.input_size}, its pixel_scale is {d.pixel_scale:g}"
        )
    of_floats = mean.dtype is torch.float32 and mean.layout is torch.strided
    if not of_floats or tuple(mean.shape) != (d.input_size, d.input_size, 3) or not mean.isfinite().all():
        return f"its mean image is not ({d.input_size}, {d.input_size}, 3) finite numbers"
    if not 0 < len(classes) <= cfg.model.num_classes:
        return f"it names {len(classes)} classes for {cfg.model.num_classes} outputs"
    return ""


def _shapes(checkpoint: dict[str, Any]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in checkpoint["state_dict"].items()}


def _mean(checkpoints: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Return the mean of several checkpoints' weights, summed in float64."""
    states = [checkpoint["state_dict"] for checkpoint in checkpoints]
    if len(states) == 1:
        return states[0]
    return {
        name: (sum(state[name].double() for state in states) / len(states)).to(value.dtype)
        for name, value in states[0].items()
    }


def load_pretrained(net: nn.Module, path: str) -> None:
    """Give a net all convolutions that a trained one has, too, in place (section 6: pre-training, then fine-tuning).

    Args:
        path: a run folder, a folder of one run, or a checkpoint file.
    Raises:
        ConfigError: they have none in common, or one of another shape.
    """
    given = load(find_checkpoint(path, "pretrained")).net
    names = [name for name, layer in net.named_children() if isinstance(layer, nn.Conv2d | LocalConv2d)]
    layers = [name for name in names if hasattr(given, name)]
    if not layers:
        raise ConfigError(f"pretrained={path} is of a net without the layers of this one")
    for name in layers:
        for parameter, own in net.get_submodule(name).named_parameters():
            other = given.get_submodule(name).get_parameter(parameter)
            if other.shape != own.shape:
                there, here = tuple(other.shape), tuple(own.shape)
                raise ConfigError(f"pretrained={path} has {name}.{parameter} of {there}, and here it is of {here}")
            own.data.copy_(other)


# ------------------------------------------------------------------------------------------------ torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels as 0..1: what torchvision's nets expect to be taken off and divided by."""


def torchvision_net(file: str | Path | None = None) -> TrainedModel:
    """torchvision's alexnet with its published weights, on the CPU.

    Its pixels are 0..1 minus a mean colour, over a deviation for each colour; ours are 0..255 minus a mean image. The
    deviation goes into the first layer's weights, so that both give the same logits.

    Args:
        file: torchvision's .pth file. None: where torch.hub keeps its downloads, fetched if it is not there.
    Raises:
        ConfigError: the file cannot be read, or holds another net.
    """
    from torchvision.models import AlexNet_Weights

    published = AlexNet_Weights.IMAGENET1K_V1
    try:
        if file is None:
            state = published.get_state_dict(progress=False, check_hash=True)
        else:
            file = Path(file).expanduser()
            require_file(file, "give the .pth file")
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # no network, no file, or one of another kind: torch says it in many ways
        reason = first_line(error)
        raise ConfigError(f"torchvision's weights cannot be read ({reason}): give the .pth file") from error
    cfg = Config(name="torchvision", seed=0, train_error_window=1, train_eval_images=0)
    cfg.model = Model(
        "torchvision", Arch.alexnet, 1000, 224, {"conv1": 64, "conv2": 192, "conv4": 256},
        conv1_padding=Conv1Padding.symmetric, lrn_alpha_convention=LrnAlphaConvention.paper, dropout=Dropout.inverted,
        dropout_at=DropoutAt.inputs, init=Init.torch,
        parameter_names=ParameterNames.torchvision,
    )  # fmt: skip
    cfg.data = Data("packed", "imagenet", num_classes=1000, size=256, crop_size=224)
    net = build_net(cfg.model, 224, 0)
    try:
        net.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        reason = first_line(error)
        raise ConfigError(f"{file} does not hold torchvision's alexnet ({reason})") from error
    with torch.no_grad():
        net.get_parameter("conv1.weight").div_(255 * torch.tensor(STD)[:, None, None])
    mean = (255 * torch.tensor(MEAN)).expand(224, 224, 3).clone()
    return TrainedModel("torchvision", cfg, net.eval(), mean, list(published.meta["categories"]))
