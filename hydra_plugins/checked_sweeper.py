"""Hydra's sweeper for alexnet_pl; Hydra takes plugins from this namespace only.

Hydra's own sweeper composes every job once as a trial, and drops the result. This one leaves it to
`alexnet_pl.jobs.sweep`, which checks the result.
"""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class CheckedSweeper(Sweeper):
    """Check every job before the first starts, then run them all.

    Args:
        params: the sweep's parameters, {key: values}.
        n_jobs: how many jobs run at once on this machine, or auto.
        jobs_per_gpu: how many of them may share a GPU.
    """

    def __init__(
        self, params: dict[str, Any] | None = None, n_jobs: int | str = 1, jobs_per_gpu: int | str = 1
    ) -> None:
        self.params, self.n_jobs, self.jobs_per_gpu = params or {}, n_jobs, jobs_per_gpu

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives. The launcher is made later, when the jobs are known."""
        self.context, self.task, self.composed = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run the jobs of the sweep's parameters and of the command line."""
        from alexnet_pl.jobs.sweep import run_sweep  # here, as Hydra loads all plugins in every program

        def launch(jobs: list[list[str]]) -> Any:
            launcher = Plugins.instance().instantiate_launcher(self.context, self.task, self.composed)
            return launcher.launch(jobs, initial_job_idx=0)

        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        run_sweep(words, self.n_jobs, self.jobs_per_gpu, self.composed, self.context, launch)


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="checked",
    node={"_target_": f"{__name__}.{CheckedSweeper.__name__}", "params": None, "n_jobs": 1, "jobs_per_gpu": 1},
    provider="alexnet_pl",
)
