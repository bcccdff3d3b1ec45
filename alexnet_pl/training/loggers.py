"""Log a run's metrics to metrics.csv in its folder, and to Weights & Biases or TensorBoard.

W&B gets a copy. If it fails, training goes on and the folder has everything. Only the first process of a run has
loggers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from alexnet_pl.config.choices import LoggerName, LogModel, WandbMode
from alexnet_pl.config.schema import Config
from alexnet_pl.errors import UserError
from alexnet_pl.jobs import launch
from alexnet_pl.runs import mirror, wandb_server
from alexnet_pl.runs.metrics import append_row
from alexnet_pl.runs.run import Run


class MetricsCSV(Logger):
    """Logger to metrics.csv of a run folder. Unlike Lightning's CSVLogger, it appends when a run is resumed."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    @property
    def name(self) -> str:
        return "metrics.csv"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row. If the run's folder was removed, do not make it again."""
        self.run.require()
        append_row(self.run.folder / "metrics.csv", {"step": step or 0, **metrics})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml has the hyperparameters."""


class SafeWandbLogger(WandbLogger):
    """Logger to a W&B run that cannot stop the training. If W&B's process dies, it says so once and logs no more.

    Beside each training error it logs `report.target`, the error whose crossing is timed, for a line in a plot.
    """

    broken = False

    def __init__(self, experiment: Any, target: float | None) -> None:
        super().__init__(experiment=experiment)
        self.target = target

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row, unless W&B failed before."""
        if not self.broken:
            if "train/error" in metrics and self.target is not None:
                metrics = {**metrics, "target/error": self.target}
            self.broken = True
            with told("stopped"):
                super().log_metrics(metrics, step)
                self.broken = False


def build_loggers(cfg: Config, run: Run) -> list[Logger]:
    """Return the loggers of a run that has started; only the first process has any."""
    if cfg.logger.name is LoggerName.none or launch.rank() > 0:
        return []
    loggers: list[Logger] = [MetricsCSV(run)]
    if cfg.logger.name is LoggerName.wandb and (experiment := start_wandb(run, cfg.logger.mode)):
        loggers.append(SafeWandbLogger(experiment=experiment, target=cfg.report.target))
    if cfg.logger.name is LoggerName.tensorboard:
        loggers.append(TensorBoardLogger(run.folder, name="tensorboard", version=""))
    return loggers


def start_wandb(run: Run, mode: WandbMode) -> Any:
    """Return the W&B run of a run that has started; None if there is to be none, or if W&B fails, which is printed.

    If an online run cannot start, it is logged offline, for `sync`.
    """
    if mode is WandbMode.disabled:
        return None
    if mode is WandbMode.online:
        with told("did not start", f"the run goes on offline: {mirror.SYNC} {run.folder} sends it later"):
            wandb_server.require("logger.mode=online")  # at once, where the client would wait
            return mirror.start(run, "online")
    with told("did not start"):
        return mirror.start(run, "offline")
    return None


def finish_wandb(exit_code: int) -> None:
    """End the W&B run, if one is open, so that W&B shows how the job ended."""
    wandb = sys.modules.get("wandb")  # do not import it where no run was started with it
    if wandb and wandb.run is not None:
        with told("did not finish", "metrics.csv has everything"):
            wandb.finish(exit_code=exit_code)


def keep_checkpoint(run: Run, which: LogModel, done: dict[str, Any]) -> None:
    """Log a run's last or best checkpoint to its W&B run, if one is open.

    Args:
        done: the coming content of the run's done mark.
    """
    wandb = sys.modules.get("wandb")
    if which is not LogModel.none and wandb and wandb.run is not None:
        with told("did not keep the checkpoint", "the run's folder has it"):
            mirror.keep_checkpoint(run, which.name, done)


@contextmanager
def told(failure: str, consolation: str = "the run goes on, and metrics.csv has everything") -> Iterator[None]:
    """Turn a failure of W&B inside into a printed line with its reason. W&B must not stop a run."""
    try:
        with wandb_server.translated(f"W&B {failure}"):
            yield
    except UserError as error:
        print(f"{error}; {consolation}", file=sys.stderr)
