"""The settings of an evaluation. This file imports no torch, so that the command shows a mistake at once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from alexnet_pl.config.suggestions import suggest
from alexnet_pl.data import store
from alexnet_pl.errors import ConfigError
from alexnet_pl.files import expand
from alexnet_pl.runs.naming import names_weights, safe_file_name
from alexnet_pl.runs.run import CHECKPOINT_NAMES, Run, find_runs


@dataclass(frozen=True)
class Member:
    """A net to evaluate."""

    word: str
    """a run's folder, or published weights"""
    run: Run | None = None

    @property
    def name(self) -> str:
        return self.run.folder.name if self.run else Path(self.word.removeprefix("caffe:")).stem


@dataclass
class Settings:
    """The command's choices."""

    views: int = 1
    """views of each image: 1 (the centre), 9 or 10"""
    average: str = "probabilities"
    """what to average over views and members: probabilities or logits"""
    weights: list[str] = field(default_factory=lambda: ["last"])
    """checkpoint of each run; the weights of several are averaged"""
    split: str = "val"
    data: Path | None = None
    """folder of the images, if they moved since the run"""
    mean: Path | None = None
    """the mean image of Caffe's weights"""

    @property
    def name(self) -> str:
        """Name of the folder for the results: `10-probabilities-best`."""
        weights = [] if self.weights == ["last"] else [Path(name).stem for name in self.weights]
        split = [] if self.split == "val" else [self.split]
        return "-".join([str(self.views), self.average, *weights, *split])


def find_members(paths: list[Path], settings: Settings) -> list[Member]:
    """Return the nets to evaluate: each that is named, and all finished runs of a folder of several.

    Raises:
        ConfigError: there is none, one has no checkpoint, one file of weights is given for several, or published
            weights have no packed dataset.
    """
    found: list[Run] = []
    published = [str(path) for path in paths if names_weights(str(path))]
    if published:
        if settings.weights != ["last"]:
            raise ConfigError(f"--weights chooses a run's checkpoints, and {published[0]} is none: leave it out")
        if not settings.data:
            raise ConfigError(
                f"{published[0]} has no images of its own: say with --data which packed dataset to evaluate on"
            )
        store.require(settings.data)  # before weights are fetched
    for path in (path for path in paths if str(path) not in published):
        there = find_runs(expand(path))
        alone = there[0].folder == expand(path)
        done = there if alone else [run for run in there if run.done]
        if not done:
            raise ConfigError(f"no run in {path} is done: to evaluate an unfinished run, name it")
        found += done
    nets = [*(str(run.folder.resolve()) for run in found), *published]
    if again := next((net for net in nets if nets.count(net) > 1), None):
        raise ConfigError(f"{again} is named twice, and would count twice in the average: name each net once")
    named = [name for name in settings.weights if name in CHECKPOINT_NAMES]
    for name in settings.weights:
        if name not in CHECKPOINT_NAMES and not expand(name).is_file():
            raise ConfigError(
                f"--weights {name} is neither a file nor the name of a checkpoint: {suggest(name, CHECKPOINT_NAMES)}"
            )
    if len(found) > 1 and len(named) < len(settings.weights):
        raise ConfigError(
            f"a file of weights belongs to one run, but {len(found)} are given: use {' or '.join(CHECKPOINT_NAMES)}"
        )
    for run in found:
        run.check()
        kept = [name for name in CHECKPOINT_NAMES if os.path.lexists(run.last.with_name(f"{name}.ckpt"))]
        if named and not kept:
            raise ConfigError(f"{run.folder} has no checkpoint: the run was not trained yet, or did not keep one")
        if lacking := [name for name in named if name not in kept]:
            raise ConfigError(f"{run.folder} has no {lacking[0]}.ckpt: --weights {kept[0]} takes the one that it has")
    return [*(Member(str(run.folder), run) for run in found), *map(Member, published)]


def output_folder(paths: list[Path], members: list[Member], settings: Settings) -> Path:
    """Return the folder for the results: in that of a single run, else under runs/ensembles/ or runs/published/.

    Raises:
        ConfigError: the store to evaluate is damaged.
    """
    here, last = store.read(settings.data) if settings.data else None, settings.name
    run = members[0].run
    if here and (run is None or here.plan.identity != run.config["data"].get("store")):  # not the run's own images
        last += f"-{here.root.resolve().name}"
    if len(members) == 1:
        return (run.folder if run else Path("runs/published") / safe_file_name(members[0].name)) / "evaluation" / last
    name = "+".join(str(path).removeprefix("runs/").strip("/") for path in paths)
    return Path("runs/ensembles") / safe_file_name(name) / last


def member_labels(members: list[Member]) -> list[str]:
    """Return different names for the members: the overrides in which runs differ, or their names."""
    overrides = [member.run.identity.get("overrides", []) if member.run else [] for member in members]
    names = [",".join(o for o in own if any(o not in other for other in overrides)) for own in overrides]
    return names if all(names) and len(set(names)) == len(names) else [member.name for member in members]
