"""AlexNet (Krizhevsky, Sutskever, Hinton, 2012) as a Lightning experiment package.

These four functions are for notebooks. torch is imported when something is built:

    from alexnet_pl import build, compose, fit, load
    cfg = compose("model=alexnet", "model.num_classes=1000")     a configuration, as on the command line
    net = build(cfg)                                             an untrained net, nn.Sequential
    model = fit(cfg, "runs/mine")                                a trained one: model.logits(images)
    model = load("runs/alexnet")                                 one that a command trained
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


def fit(cfg: Config, folder: str | Path) -> TrainedModel:
    """Train a configuration in this process, in a run folder; return the trained net, on the CPU.

    A folder whose run is done is only read, and one whose run was stopped is continued.

    Raises:
        ConfigError: the run takes several devices, cannot be done here, or the folder holds another one.
        UserError: it failed or was stopped, in one sentence, which the folder keeps.
    """
    from alexnet_pl.config.schema import as_dict
    from alexnet_pl.errors import ConfigError
    from alexnet_pl.jobs import checks
    from alexnet_pl.parallel import layouts
    from alexnet_pl.runs.run import Run

    checks.check(cfg)
    if layouts.layout(cfg.trainer).processes > 1:
        raise ConfigError("fit trains on one device: use alexnet-train for several")
    run = Run(Path(folder))
    run.refuse_another(as_dict(cfg))
    if not run.done:
        from alexnet_pl.training.fit import work

        run.start(as_dict(cfg), [])
        try:
            work(cfg, run)
        finally:
            run.release()
    return load(run.folder)


def load(path: str | Path) -> TrainedModel:
    """Return the trained net of a run folder or a checkpoint, on the CPU.

    Raises:
        ConfigError: there is no checkpoint, or it cannot be read.
    """
    from alexnet_pl.runs import trained

    return trained.load(path)
