"""Where a run's metrics go: metrics.csv in its folder, and Weights & Biases beside it.

W&B is a mirror. Whatever happens to it, training goes on and the folder has everything.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from alexnet_pl import config, runs


class MetricsCSV(Logger):
    """metrics.csv of a run folder. Unlike Lightning's CSVLogger it goes on where a resumed run left off."""

    def __init__(self, run: runs.Run) -> None:
        super().__init__()
        self.path = run.folder / "metrics.csv"

    @property
    def name(self) -> str:
        return "metrics.csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        runs.append_row(self.path, {"step": step or 0, **metrics})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """config.yaml has them."""


class Mirror(WandbLogger):
    """A W&B run that cannot stop the training: where its process dies, it says so once and is left alone."""

    broken = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self.broken:
            try:
                super().log_metrics(metrics, step)
            except Exception as error:
                self.broken = True
                _say("stopped", error)


def build(cfg: config.Config, run: runs.Run) -> list[Logger]:
    """The loggers of a run."""
    if cfg.logger.name is config.LoggerName.none:
        return []
    loggers: list[Logger] = [MetricsCSV(run)]
    if cfg.logger.name is config.LoggerName.wandb and cfg.logger.mode is not config.WandbMode.disabled:
        loggers += _wandb(cfg, run)
    return loggers


def _wandb(cfg: config.Config, run: runs.Run) -> list[Logger]:
    import wandb

    def start(mode: Literal["online", "offline"]) -> Logger:
        experiment = wandb.init(
            mode=mode,
            dir=run.folder,
            id=run.identity["id"],
            resume="allow",
            name=run.folder.name,
            project=cfg.logger.project,
            entity=cfg.logger.entity,
            group=cfg.name,
            job_type="train",
            tags=[cfg.name, cfg.data.name.name, cfg.model.name, *cfg.logger.tags],
            config=config.as_dict(cfg),
            # Without limits a server that does not answer would hold up the start for 90 s, and the end for ever.
            settings=wandb.Settings(silent=True, console="off", init_timeout=20, finish_timeout=30),
        )
        for metrics in ("train/*", "subset/*", "val/*", "test/*", "images_seen", "images_per_second", "data_wait"):
            experiment.define_metric(metrics, step_metric="epoch")
        return Mirror(experiment=experiment)

    # A mirror must not stop the run: where W&B does not start, say so and go on.
    try:
        return [start("online" if cfg.logger.mode is config.WandbMode.online else "offline")]
    except Exception as error:
        _say("did not start", error)
        return []


def finish(exit_code: int) -> None:
    """End the W&B run, if one is open, so that W&B shows how the job ended."""
    wandb = sys.modules.get("wandb")  # where no run was started with it, its import would be for nothing
    if wandb and wandb.run is not None:
        try:
            wandb.finish(exit_code=exit_code)
        except Exception as error:
            _say("did not finish", error)


def _say(what: str, error: Exception) -> None:
    reason = " ".join(str(error).split())
    print(f"W&B {what} ({reason}); the run goes on, and metrics.csv has everything", file=sys.stderr)
