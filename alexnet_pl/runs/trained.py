"""A trained net with all that it needs for images: weights, mean image, names of the classes.

    load("runs/alexnet")        from a run, a folder of one run, or a checkpoint file
    load("torchvision")         published weights: see model/weights.py

A checkpoint carries all of it, so using one needs no dataset.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alexnet_pl.config.choices import Squares
from alexnet_pl.config.schema import LEAST_PIXELS, MOST_PIXELS, Config, Data, from_dict
from alexnet_pl.data import augment
from alexnet_pl.data.datasets import SMALL_DATASETS
from alexnet_pl.errors import ConfigError, first_line, one_line
from alexnet_pl.files import damaged, expand
from alexnet_pl.model.build import build_net
from alexnet_pl.model.layers import memory_format
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.model.weights import Weights, read_weights, refuse_mean
from alexnet_pl.runs import checkpoint
from alexnet_pl.runs.artifacts import is_artifact
from alexnet_pl.runs.naming import names_weights
from alexnet_pl.runs.run import CHECKPOINT_NAMES, Run, find_checkpoint


@dataclass
class TrainedModel:
    """A net in evaluation mode."""

    name: str
    cfg: Config
    net: nn.Sequential
    mean: Tensor
    """float32 (H, W, 3): mean image to subtract from a square, in grey levels"""
    classes: list[str]
    run: Run | None = None

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def resized_size(self) -> int:
        """Side in pixels of the square that an image becomes, before views are cut out."""
        return self.cfg.data.resized_size

    @property
    def squares(self) -> Squares:
        """The way in which a photograph becomes such a square."""
        return self.cfg.data.squares

    def to(self, device: torch.device) -> TrainedModel:
        return replace(self, net=self.net.to(device), mean=self.mean.to(device))

    def input(self, images: Tensor, views: int = 1) -> Tensor:
        """uint8 squares (n, S, S, 3) -> input of the net (n * views, 3, H, W), an image's views side by side."""
        d = self.cfg.data
        return augment.evaluation_input(images.to(self.device), self.mean, d.resized_size, d.pixel_scale, views)

    def logits(self, images: Tensor, views: int = 1) -> Tensor:
        """uint8 squares (n, S, S, 3) -> float32 (n, views, classes); further outputs of the net are left out."""
        return self.outputs(images, views)[:, :, : len(self.classes)]

    @torch.inference_mode()
    def outputs(self, images: Tensor, views: int = 1) -> Tensor:
        """uint8 squares (n, S, S, 3) -> all outputs of the net, float32 (n, views, outputs)."""
        layout = memory_format(self.cfg.model.channels_last)
        dtype = next(self.net.parameters()).dtype
        inputs = self.input(images, views).to(dtype).contiguous(memory_format=layout)
        return self.net(inputs).float().unflatten(0, (len(images), views))


def load(path: str | Path, weights: list[str] | None = None, mean: Path | None = None) -> TrainedModel:
    """Return the trained net of a run, or a published one, on the CPU.

    Args:
        path: a run folder, a folder of one run, a checkpoint file, an artifact of W&B, or published weights, as
            model/weights.py lists them.
        weights: names of the run's checkpoints (`run.CHECKPOINT_NAMES`) or files; the weights of several are averaged.
            None: the last, or the best if there is no other.
        mean: Caffe's mean image, for its weights; None: see `model.weights.read_weights`.
    Raises:
        ConfigError: there is no checkpoint, it cannot be read, or several are not of one net.
    """
    if names_weights(str(path)):
        return from_weights(read_weights(str(path), mean))
    refuse_mean(str(path), mean)
    path = find_checkpoint(str(path), "run") if is_artifact(path) else expand(path)
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
        raise damaged(files[0], one_line(error), advice) from error
    folder = files[0].parent.parent
    run = Run(folder) if (folder / "run.json").is_file() else None
    name = run.folder.name if run else files[0].stem
    return TrainedModel(name, cfg, net.eval(), seen["mean"], seen["classes"], run)


def _file(folder: Path, name: str) -> Path:
    if name not in CHECKPOINT_NAMES:
        return expand(name)
    there = find_checkpoint(str(folder), "run")
    file = there.with_name(f"{name}.ckpt")
    if not os.path.lexists(file):
        raise ConfigError(
            f"{there.parent} has no {file.name}, but {there.name}: a run without validation keeps no best"
        )
    return file


def _mistake(cfg: Config, mean: Tensor, classes: list[str]) -> str:
    """Return why a checkpoint's data cannot be that of its net; empty if it can."""
    d = cfg.data
    if not d.packed and d.kind not in SMALL_DATASETS:
        return f"data.kind is {d.kind}"
    if not (LEAST_PIXELS <= d.input_size <= d.resized_size <= MOST_PIXELS and d.pixel_scale > 0):
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


def from_weights(published: Weights) -> TrainedModel:
    """Return a published net, on the CPU.

    Raises:
        ConfigError: there is no such net.
    """
    p = published
    cfg = Config(name=p.name, seed=0, train_error_window=1, train_eval_images=0, model=p.model)
    cfg.data = Data(
        "packed", "imagenet", num_classes=len(p.classes), size=p.resized_size, crop_size=p.input_size,
        pixel_scale=p.scale, store=f"published-{p.squares}",
    )  # fmt: skip
    try:
        net = build_net(p.model, p.input_size, 0)
    except (ArithmeticError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"the net of {p.name} cannot be built: {first_line(error)}") from error
    net.load_state_dict(p.state)
    return TrainedModel(p.name, cfg, net.eval(), p.mean, p.classes)
