"""AlexNet (Krizhevsky, Sutskever, Hinton, 2012) as a Lightning experiment package.

These three functions are for notebooks. torch is imported when something is built:

    from alexnet_pl import build, compose, load
    cfg = compose("model=alexnet", "model.num_classes=1000")     a configuration, as on the command line
    net = build(cfg)                                             an untrained net, nn.Sequential
    model = load("runs/alexnet")                                 a trained one: model.logits(images)
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_pl.files import ROOT as ROOT

if TYPE_CHECKING:
    from torch import nn

    from alexnet_pl.config.schema import Config
    from alexnet_pl.runs.trained import TrainedModel

try:
    __version__ = version("alexnet-pl")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+checkout"


def compose(*overrides: str) -> Config:
    """Return the checked configuration of `alexnet-train OVERRIDES`.

    Raises:
        ConfigError: a sentence for each mistake.
    """
    from alexnet_pl.jobs import checks
    from alexnet_pl.jobs.compose import compose as compose_overrides

    cfg = compose_overrides(overrides)
    checks.check(cfg, to_run=False)
    return cfg


def build(cfg: Config) -> nn.Sequential:
    """Return the untrained net of a configuration: float (N, 3, S, S) -> logits (N, num_classes)."""
    from alexnet_pl.model.build import build_net

    return build_net(cfg.model, cfg.data.input_size, cfg.seed)


def load(path: str | Path) -> TrainedModel:
    """Return the trained net of a run folder or a checkpoint, on the CPU.

    Raises:
        ConfigError: there is no checkpoint, or it cannot be read.
    """
    from alexnet_pl.runs import trained

    return trained.load(path)
