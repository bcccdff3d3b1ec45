"""Where a run's metrics go: metrics.csv in its folder, and Weights & Biases beside it.

W&B is a mirror. Whatever happens to it, training goes on and the folder has everything.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from alexnet_pl.config.choices import LoggerName
from alexnet_pl.config.schema import Config
from alexnet_pl.runs.metrics import append_row
from alexnet_pl.runs.naming import run_group
from alexnet_pl.runs.run import Run

BY_EPOCH = ("train/*", "train_eval/*", "val/*", "test/*", "target/*")
"""What W&B draws against the epoch"""


class MetricsCSV(Logger):
    """metrics.csv of a run folder. Unlike Lightning's CSVLogger it goes on where a resumed run left off."""

    def __init__(self, run: Run) -> None:
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
        append_row(self.path, {"step": step or 0, **metrics})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """config.yaml has them."""


class SafeWandbLogger(WandbLogger):
    """A W&B run that cannot stop the training: where its process dies, it says so once and is left alone.

    Beside each training error it logs the one whose crossing is timed, so that a plot can show it as a line.
    """

    broken = False

    def __init__(self, experiment: Any, target: float | None) -> None:
        super().__init__(experiment=experiment)
        self.target = target

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self.broken:
            if "train/error" in metrics and self.target is not None:
                metrics = {**metrics, "target/error": self.target}
            try:
                super().log_metrics(metrics, step)
            except Exception as error:
                self.broken = True
                _say("stopped", error, "the run goes on, and metrics.csv has everything")


def build_loggers(cfg: Config, run: Run) -> list[Logger]:
    """The loggers of a started run."""
    if cfg.logger.name is LoggerName.none:
        return []
    loggers: list[Logger] = [MetricsCSV(run)]
    # A mirror must not stop the run: where W&B does not start, say so and go on.
    try:
        if experiment := _open(run):
            loggers.append(SafeWandbLogger(experiment=experiment, target=cfg.report.target))
    except Exception as error:
        _say("did not start", error, "the run goes on, and metrics.csv has everything")
    return loggers


def _open(run: Run) -> Any:
    """The W&B run of a run, new or taken up again; None where it has none by its configuration."""
    cfg = run.config
    own = cfg["logger"]
    if own["name"] != "wandb" or own["mode"] == "disabled":
        return None
    import wandb

    experiment = wandb.init(
        mode=own["mode"],
        dir=run.folder,
        id=run.identity["id"],
        resume="allow",
        name=run.folder.name,
        project=own["project"],
        entity=own["entity"],
        group=run_group(cfg["name"], cfg["scale"]),
        job_type="train",
        tags=[cfg["name"], cfg["data"]["name"], cfg["model"]["name"], *own["tags"]],
        config=cfg,
        # Without limits a server that does not answer would hold up the start for 90 s, and the end for ever.
        settings=wandb.Settings(silent=True, console="off", init_timeout=20, finish_timeout=30),
    )
    for metrics in (*BY_EPOCH, "images_seen", "images_per_second", "data_wait"):
        experiment.define_metric(metrics, step_metric="epoch")
    return experiment


def attach_results(run: Run, summary: dict[str, float], images: dict[str, Path]) -> bool:
    """Add values and images to the W&B run of a run that has ended, offline or online as it was.

    An offline run gets another folder of W&B's, which `sync` sends to the same run there.

    Args:
        summary: what to put beside the run's last metrics, {"evaluate/10-probabilities/error": 0.4}.
        images: image files by their keys; `kernels` and `predictions` have panels in the report's workspace.

    Returns:
        Whether it was done: not where the run is not done, or has no W&B run, and not where W&B fails, which is said.
    """
    try:
        if not run.done or not any(run.folder.glob("wandb/*run-*")) or not (experiment := _open(run)):
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
    wandb = sys.modules.get("wandb")  # where no run was started with it, its import would be for nothing
    if wandb and wandb.run is not None:
        try:
            wandb.finish(exit_code=exit_code)
        except Exception as error:
            _say("did not finish", error, "metrics.csv has everything")


def _say(what: str, error: Exception, all_the_same: str) -> None:
    reason = " ".join(str(error).split())
    print(f"W&B {what} ({reason}); {all_the_same}", file=sys.stderr)
