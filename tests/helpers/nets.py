"""Nets of conf/model/, as they are or with few kernels, and models with drawn weights."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from alexnet_pl.config.choices import Arch
from alexnet_pl.config.schema import Model, as_dict
from alexnet_pl.data import augment
from alexnet_pl.model.architectures import ARCHITECTURES
from alexnet_pl.model.build import build_net
from alexnet_pl.runs.trained import TrainedModel
from tests.helpers.runs import run_config

CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5")
NARROW = dict.fromkeys(CONVS, 8) | {"fc6": 16, "fc7": 16}  # float64 and NumPy take no time at these widths
CLASSES = ["cats", "dogs", "eels", "foxes", "gnus", "hens", "ibises", "jays", "kites", "lynxes"]


cached_config = functools.cache(run_config)


def config(name: str, **changes: Any) -> tuple[Model, int]:
    """Return the net of conf/model/`name`.yaml with these fields changed, and the side of its images."""
    imagenet = "fc6" in [row.name for row in ARCHITECTURES[cached_config(f"model={name}").model.arch]]
    cfg = cached_config(f"model={name}", "model.num_classes=1000") if imagenet else cached_config(f"model={name}")
    return replace(cfg.model, **changes), cfg.data.input_size


def narrow(name: str, **changes: Any) -> tuple[Model, int]:
    """Return `config` with few kernels and units."""
    cfg, side = config(name, **changes)
    if cfg.arch in (Arch.alexnet, Arch.six_conv):
        cfg = replace(cfg, widths=NARROW | ({"conv6": 8} if cfg.arch is Arch.six_conv else {}))
    return cfg, side


def untrained_model(name: str, *overrides: str) -> TrainedModel:
    """Return a narrow net with random weights, alive in every layer, for images with a mean image of its own."""
    cfg = run_config(f"model={name}", *overrides)
    if cfg.model.arch in (Arch.alexnet, Arch.six_conv):
        cfg.model.widths = NARROW | {"conv6": 8} if cfg.model.arch is Arch.six_conv else NARROW
    size = cfg.data.input_size
    net = build_net(cfg.model, size, seed=2).eval()
    generator = augment.stream(3)
    for name, p in net.named_parameters():
        fan_in = 1 if name.endswith("bias") else p.shape[2] if p.ndim == 3 else p[0].numel()
        p.data.copy_(torch.randn(p.shape, generator=generator) / fan_in**0.5)
    mean = 100 + 50 * torch.rand(size, size, 3, generator=generator)
    return TrainedModel("untrained", cfg, net, mean, CLASSES)


def save_checkpoint(net: TrainedModel, file: Path) -> Path:
    """Write its checkpoint as training does."""
    state = {f"net.{name}": value for name, value in net.net.state_dict().items()}
    seen = {"mean": net.mean, "classes": net.classes}
    torch.save({"state_dict": state, "config": as_dict(net.cfg), "input": seen}, file)
    return file
