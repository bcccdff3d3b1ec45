"""Where a run's metrics go: metrics.csv in its folder, and Weights & Biases beside it.

W&B is a mirror. Whatever happens to it, training goes on and the folder has everything. Only the first process of a
run has loggers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from alexnet_pl.config.choices import LoggerName
from alexnet_pl.config.schema import Config
from alexnet_pl.jobs import launch
from alexnet_pl.runs.metrics import append_row
from alexnet_pl.runs.naming import run_group
from alexnet_pl.runs.run import Run

BY_EPOCH = ("train/*", "train_eval/*", "val/*", "test/*", "target/*")
"""Metrics that W&B draws against the epoch"""


class MetricsCSV(Logger):
    """metrics.csv of a run folder. Unlike Lightning's CSVLogger, it appends where a run is resumed."""

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
        """Append a row; where the run's folder was removed, no other is made in its place."""
        self.run.require()
        append_row(self.run.folder / "metrics.csv", {"step": step or 0, **metrics})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml has them."""


class SafeWandbLogger(WandbLogger):
    """A W&B run that cannot stop the training: where its process dies, this says so once and logs no more.

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
            try:
                super().log_metrics(metrics, step)
            except Exception as error:
                self.broken = True
                _say("stopped", error, "the run goes on, and metrics.csv has everything")


def build_loggers(cfg: Config, run: Run) -> list[Logger]:
    """Return the loggers of a run that has started; of several processes only the first one logs."""
    if cfg.logger.name is LoggerName.none or launch.rank() > 0:
        return []
    loggers: list[Logger] = [MetricsCSV(run)]
    try:
        if experiment := _start_wandb(run):
            loggers.append(SafeWandbLogger(experiment=experiment, target=cfg.report.target))
    except Exception as error:  # a mirror must not stop the run
        _say("did not start", error, "the run goes on, and metrics.csv has everything")
    return loggers


def _start_wandb(run: Run) -> Any:
    """Start or resume the W&B run of a run; return None where its configuration has none."""
    cfg = run.config
    logger = cfg["logger"]
    if logger["name"] != "wandb" or logger["mode"] == "disabled":
        return None
    import wandb

    experiment = wandb.init(
        mode=logger["mode"],
        dir=run.folder,
        id=run.identity["id"],
        resume="allow",
        name=run.folder.name,
        project=logger["project"],
        entity=logger["entity"],
        group=run_group(cfg["name"], cfg["scale"]),
        job_type="train",
        tags=[cfg["name"], cfg["data"]["name"], cfg["model"]["name"], *logger["tags"]],
        config=cfg,
        # Without limits, a server that does not answer delays the start by 90 s, and the end for ever.
        settings=wandb.Settings(silent=True, console="off", init_timeout=20, finish_timeout=30),
    )
    for metric in (*BY_EPOCH, "images_seen", "images_per_second", "data_wait"):
        experiment.define_metric(metric, step_metric="epoch")
    return experiment


def attach_results(run: Run, summary: dict[str, float], images: dict[str, Path]) -> bool:
    """Add values and images to the W&B run of a run that has ended, offline or online as it was.

    An offline run gets another folder of W&B's, which `sync` sends to the same run there.

    Args:
        summary: values to put beside the run's last metrics, {"evaluate/10-probabilities/error": 0.4}.
        images: image files by their keys; `kernels` and `predictions` have panels in the report's workspace.

    Returns:
        Whether W&B has them. It does not if the run is not done or has no W&B run, or if W&B fails, which is printed.
    """
    try:
        if not run.done or not any(run.folder.glob("wandb/*run-*")) or not (experiment := _start_wandb(run)):
            return False
        import wandb

        experiment.summary.update(summary)
        if images:
            experiment.log({key: wandb.Image(str(path)) for key, path in images.items()})
        experiment.finish(exit_code=0)
    except Exception as error:
        _say("did not take the results", error, "the run's folder has them")
        return False
    return True


def finish_wandb(exit_code: int) -> None:
    """End the W&B run, if one is open, so that W&B shows how the job ended."""
    wandb = sys.modules.get("wandb")  # do not import it where no run was started with it
    if wandb and wandb.run is not None:
        try:
            wandb.finish(exit_code=exit_code)
        except Exception as error:
            _say("did not finish", error, "metrics.csv has everything")


def _say(failure: str, error: Exception, consolation: str) -> None:
    """Print what W&B failed to do, why, and what is not lost."""
    reason = " ".join(str(error).split())
    print(f"W&B {failure} ({reason}); {consolation}", file=sys.stderr)
