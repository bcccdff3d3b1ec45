"""Run a sweep: compose and check every job before the first starts, and show the outcome at the end."""

from __future__ import annotations

import copy
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from alexnet_pl import cpu
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.console import Meter, exit_with, make_console
from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs import checks, launch, local, slurm
from alexnet_pl.jobs.compose import to_config
from alexnet_pl.jobs.mistakes import user_error
from alexnet_pl.model.specs import layer_specs, notes
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.naming import config_differences
from alexnet_pl.runs.run import JOBS_VARIABLE, Run, find_checkpoint
from alexnet_pl.runs.sweep import record_sweep

LENGTH = re.compile(r",?trainer\.max_epochs=[^,]*")
"""The part of a run folder's name that says how long the run is"""
MOST_JOBS = 10_000
"""Most jobs in a sweep: each of them is composed and checked before the first starts"""


class HydraCallback(Callback):
    """Refuse the mistakes of a single run before Hydra makes its folder."""

    made: ClassVar[list[Path]] = []
    """The folders that Hydra made for this run: its own, and those that it lies in, the innermost first"""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check a run. Hydra passes `config` by name, and drops every exception from here except `SystemExit`."""
        try:
            cfg = to_config(config)
            # before torch is imported, to count GPUs
            os.environ.update(cpu.COMPILE_HERE | os.environ | cpu.thread_environment(cfg.trainer.precision))
            folder = Path(config.hydra.run.dir).absolute()
            check_run(cfg, Run(folder))
            launch.refuse_other_group(layouts.layout(cfg.trainer))
            print_notes([cfg])
            HydraCallback.made = [path for path in (folder, *folder.parents) if not path.exists()]
            if HydraCallback.made and not cfg.ckpt_path and (shorter := find_shorter(cfg, folder)):
                print(f"{shorter} is the same run, but shorter: to go on from it, add ckpt_path={shorter}")
        except Exception as error:
            if reason := user_error(error):
                exit_with(reason)
            sys.exit(traceback.format_exc())


def run_sweep(
    words: list[str],
    n_jobs: int | str,
    jobs_per_gpu: int | str,
    composed: DictConfig,
    context: HydraContext,
    launch_jobs: Callable[[list[list[str]]], Sequence[JobReturn]],
) -> None:
    """Run the jobs of a sweep. Exit with 1 if some are not done at the end. `hydra_plugins` calls it.

    Args:
        words: the overrides, some of them with several values.
        n_jobs: how many run at once on this machine; auto: one per core of a CPU, or as the GPUs allow.
        jobs_per_gpu: how many of them may share a GPU.
        composed: what Hydra composed for the sweep as a whole.
        launch_jobs: launches jobs by their overrides, if Hydra's launcher is not the basic one.
    Raises:
        ConfigError: a sentence for each mistake in any of the jobs. None is started then.
    """
    if n_jobs != "auto" and not (isinstance(n_jobs, int) and n_jobs > 0):
        raise ConfigError(f"hydra.sweeper.n_jobs={n_jobs} must be at least 1 job at once, or auto")
    if not (isinstance(jobs_per_gpu, int) and jobs_per_gpu > 0):
        raise ConfigError(f"hydra.sweeper.jobs_per_gpu={jobs_per_gpu} must be at least 1 job")
    if launch.started() > 1:
        raise ConfigError(
            "torchrun and srun start one run: start a sweep without them, each job gets processes of its own"
        )
    folder = Path(composed.hydra.sweep.dir).absolute()
    launcher = str(composed.hydra.runtime.choices["hydra/launcher"])
    if "slurm" in launcher:
        slurm.require()
    jobs = _compose_jobs(words, composed, context.config_loader, folder, here="slurm" not in launcher)
    if "slurm" in launcher:
        slurm.request_devices(composed.hydra, [job.cfg.trainer for job in jobs])
    elif any((job.cfg.trainer.num_nodes or 1) > 1 for job in jobs):
        raise ConfigError("a sweep of jobs on several machines needs hydra/launcher=submitit_slurm")
    print_notes([job.cfg for job in jobs])
    record_sweep(folder, {job.run.folder.name: job.overrides for job in jobs})
    left = [job.cfg for job in jobs if not job.run.done]
    for job in jobs:  # how finished runs are drawn may change
        if job.run.done:
            job.run.record(as_dict(job.cfg))
    if launcher == "basic":
        at_once = count_at_once(n_jobs, left, jobs_per_gpu) if left else 1
        several = f", {at_once} at a time" if at_once > 1 else ""
        print(f"{folder.name}: {len(jobs)} job{'s' * (len(jobs) > 1)}{several}", flush=True)
        local.run_jobs(jobs, at_once, jobs_per_gpu)
    else:
        os.environ[JOBS_VARIABLE] = str(len(jobs))
        for result in launch_jobs([job.overrides for job in jobs]):
            _ = result.return_value  # raises what the job has raised
    _show_outcome([job.run for job in jobs], composed.hydra.launcher.get("submitit_folder"))


def count_at_once(n_jobs: int | str, configs: Sequence[Config], jobs_per_gpu: int = 1) -> int:
    """Return how many jobs run at the same time."""
    if isinstance(n_jobs, int):
        return min(n_jobs, len(configs))
    where = [layouts.layout(cfg.trainer) for cfg in configs]
    on_gpus = any(layouts.resolve_accelerator(cfg.trainer) == "cuda" for cfg in configs)
    devices = layouts.gpu_count() * jobs_per_gpu if on_gpus else cpu.count()
    return max(1, min(devices // max(each.devices for each in where), len(configs)))


# ------------------------------------------------------------------------------------------------ composing


class Composer:
    """Compose jobs of a sweep. Jobs that differ only in plain values of keys share one composition.

    Hydra takes a tenth of a second for each composition, as it reads files and copies its state. If keys are added or
    removed, their order counts, and Hydra composes each job.
    """

    def __init__(self, composed: DictConfig, loader: ConfigLoader) -> None:
        self.composed, self.loader = composed, loader
        self.shared: dict[tuple[str, ...], DictConfig] = {}
        self.groups: dict[str, bool] = {}
        self.shares = "override_dirname" not in OmegaConf.to_yaml(composed.hydra.sweep)  # which each job has of its own

    def compose(self, overrides: list[Override], number: int = 0) -> DictConfig:
        """Return what Hydra composes for the overrides of a job with a number, from 0."""
        words = [override.input_line or "" for override in overrides]
        if not self.shares or any(override.type is not OverrideType.CHANGE for override in overrides):
            return _numbered(self.loader.load_sweep_config(self.composed, words), number)
        plain = [override for override in overrides if self._is_plain(override)]
        others = tuple(word for word, override in zip(words, overrides, strict=True) if override not in plain)
        if others not in self.shared:
            self.shared[others] = self.loader.load_sweep_config(self.composed, list(others))
        job = copy.deepcopy(self.shared[others])
        with open_dict(job.hydra):
            job.hydra.overrides.task = words
        for override in plain:
            OmegaConf.update(job, override.key_or_group, override.value(), merge=True)
        return _numbered(job, number)

    def _is_plain(self, override: Override) -> bool:
        """Return whether an override sets the value of a key, rather than the choice of a group."""
        key = override.key_or_group
        if key not in self.groups:
            self.groups[key] = bool(self.loader.get_group_options(key, ObjectType.CONFIG))
        return override.package is None and not self.groups[key] and not key.startswith("hydra")


def _numbered(job: DictConfig, number: int) -> DictConfig:
    """Return a job with its number, as Hydra's launchers give it; the name of a folder may contain it."""
    with open_dict(job.hydra):
        job.hydra.job.num, job.hydra.job.id = number, str(number)
    return job


def _compose_jobs(
    words: list[str], composed: DictConfig, loader: ConfigLoader, folder: Path, here: bool
) -> list[local.Job]:
    """Return the checked jobs of a sweep; equal jobs count once.

    Raises:
        ConfigError: a sentence for each mistake.
    """
    jobs: dict[str, local.Job] = {}  # by the name of the folder
    mistakes: list[str] = []
    composer, parser = Composer(composed, loader), OverridesParser.create(config_loader=loader)
    asked = _expand(words, parser)
    with Meter("checking jobs", len(asked), make_console(stderr=True), transient=True) as meter:
        for overrides in asked:
            try:
                job = composer.compose(parser.parse_overrides(overrides), len(jobs))
                name, cfg = str(job.hydra.sweep.subdir), to_config(job)
                if name in jobs and jobs[name].cfg != cfg:
                    raise ConfigError(
                        f"two jobs have the same folder {name}, as {' '.join(jobs[name].overrides)} and "
                        f"{' '.join(overrides)} differ only in keys that are not in its name: run them by two "
                        "commands, each with a name=... of its own"
                    )
                jobs[name] = local.Job(Run(folder / name), cfg, overrides)
                check_run(cfg, jobs[name].run, here)
            except Exception as error:
                if (reason := user_error(error)) is None:
                    raise
                mistakes += [sentence for sentence in reason.sentences if sentence not in mistakes]
            meter.advance(1)
    if mistakes:
        raise ConfigError(*mistakes)
    if not jobs:
        raise ConfigError("the sweep has no job: a range or a choice in it is empty")
    for number, each in enumerate(jobs.values(), 1):
        each.place = f"{number} of {len(jobs)}"
    return list(jobs.values())


def _show_outcome(runs: list[Run], logs: str | None) -> None:
    """Print how each job ended; exit with 1 if some are not done."""
    done = sum(run.status == "done" for run in runs)
    print(f"\n{done} of {len(runs)} jobs done in {runs[0].folder.parent}")
    for run in runs:
        print(f"  {run.status:10}  {run.folder.name}" + (f": {run.failure}" if run.failure else ""))
    if logs:
        print(f"what each job printed: {Path(logs).parent}")
    if done < len(runs):
        sys.exit("some jobs did not finish: the same command runs those again and skips the others")


def find_shorter(cfg: Config, folder: Path) -> Path | None:
    """Return the folder of a finished run beside a new one that differs only in its length; None without one."""
    name = LENGTH.sub("", folder.name)
    for done in sorted(folder.parent.glob("*/done.json")):
        if LENGTH.sub("", done.parent.name) == name:
            try:
                differences = config_differences(Run(done.parent).config, as_dict(cfg))
            except ConfigError:  # a damaged neighbour is no reason to stop this one
                continue
            if set(differences) == {"trainer.max_epochs"} and differences["trainer.max_epochs"][0] is not None:
                return done.parent
    return None


def print_notes(configs: Sequence[Config]) -> None:
    """Print on stderr the notes about nets, each once."""
    plans = [(cfg.model, layer_specs(cfg.model, cfg.data.input_size)) for cfg in configs]
    for note in dict.fromkeys(note for model, plan in plans for note in notes(model, plan)):
        print(f"note: {note}", file=sys.stderr)


def check_run(cfg: Config, run: Run, here: bool = True) -> None:
    """Refuse a configuration that cannot run, or whose folder holds another configuration."""
    checks.check(cfg, here=here)
    if run.done and set(changed := config_differences(run.config, as_dict(cfg))) == {"trainer.max_epochs"}:
        raise ConfigError(
            f"{run.folder} is done after {changed['trainer.max_epochs'][0]} epochs: to go on from it to "
            f"{changed['trainer.max_epochs'][1]}, add name=... and ckpt_path={run.folder}"
        )
    if (cfg.ckpt_path or cfg.pretrained) and not run.last.is_file():  # later it goes on from its own
        from alexnet_pl.runs import checkpoint  # and torch, which takes seconds

        if cfg.ckpt_path:
            checkpoint.check_origin(find_checkpoint(cfg.ckpt_path), cfg)
        if cfg.pretrained:
            from alexnet_pl.runs.pretrained import read_pretrained

            read_pretrained(cfg)
    run.refuse_another(as_dict(cfg))


def _expand(words: list[str], parser: OverridesParser) -> list[list[str]]:
    """Return the overrides of each job: the product of the values of all keys. The last of equal keys counts.

    Raises:
        ConfigError: a kind of sweep without a list of values, such as interval(), or more jobs than MOST_JOBS.
    """
    values: dict[str, list[str]] = {}
    for override in parser.parse_overrides(words):
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_range_sweep() and not override.value().step:  # type: ignore[union-attr]
            raise ConfigError(f"{override.input_line} has steps of 0, and no end")
        elif override.is_discrete_sweep():
            some = islice(override.sweep_string_iterator(), MOST_JOBS + 1)  # a range may have no end
            values[key] = [f"{key}={value}" for value in dict.fromkeys(some)]
        else:
            raise ConfigError(f"{override.input_line} has no list of values: use choice(...) or range(...)")
    if (count := math.prod(map(len, values.values()))) > MOST_JOBS:
        raise ConfigError(f"the sweep has {count:,} jobs, and {MOST_JOBS:,} are the most: leave some values out")
    return [list(job) for job in product(*values.values())]
