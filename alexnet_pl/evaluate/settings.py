"""What is to be evaluated, and how; known before torch is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from alexnet_pl.data import store
from alexnet_pl.errors import ConfigError, nearest
from alexnet_pl.runs.naming import safe_file_name
from alexnet_pl.runs.run import CHECKPOINT_NAMES, Run, find_runs


@dataclass
class Settings:
    """The command's choices."""

    views: int = 1
    """of each image: the centre, or ten"""
    average: str = "probabilities"
    """what is averaged over views and members: probabilities or logits"""
    weights: list[str] = field(default_factory=lambda: ["last"])
    """which checkpoint of each run; of several the mean of their weights"""
    split: str = "val"
    data: Path | None = None
    """where the images are, if not where the run had them"""

    @property
    def name(self) -> str:
        """Of the folder that the results go to: `10-probabilities-best`."""
        weights = [] if self.weights == ["last"] else [Path(name).stem for name in self.weights]
        return "-".join([str(self.views), self.average, *weights, *["train"] * (self.split == "train")])


def find_members(given: list[Path], settings: Settings) -> list[Run]:
    """The runs that take part: each that is given, and of a folder of several runs all that are done.

    Raises:
        ConfigError: there is none, one has no checkpoint, or one file of weights is given for several.
    """
    found = []
    for path in given:
        there = find_runs(path.expanduser())
        alone = there[0].folder == path.expanduser()
        done = there if alone else [run for run in there if run.done]
        if not done:
            raise ConfigError(f"no run in {path} is done: name one of them to evaluate it as far as it is")
        found += done
    named = [name for name in settings.weights if name in CHECKPOINT_NAMES]
    for name in settings.weights:
        if name not in CHECKPOINT_NAMES and not Path(name).expanduser().is_file():
            raise ConfigError(
                f"--weights {name} is neither a file nor the name of a checkpoint: {nearest(name, CHECKPOINT_NAMES)}"
            )
    if len(found) > 1 and len(named) < len(settings.weights):
        raise ConfigError(
            f"a file of weights belongs to one run, but {len(found)} are given: use {' or '.join(CHECKPOINT_NAMES)}"
        )
    for run in found:
        if named and not run.last.is_file():
            raise ConfigError(f"{run.folder} has no checkpoint: the run was not trained yet, or did not keep one")
    return found


def output_folder(given: list[Path], found: list[Run], settings: Settings) -> Path:
    """Where the results go: into the folder of a single run; those of an ensemble under runs/ensembles/.

    Raises:
        ConfigError: the store that is to be evaluated is damaged.
    """
    here, last = store.read(settings.data) if settings.data else None, settings.name
    if here and here.plan.identity != found[0].config["data"].get("store"):  # other images than the run's own
        last += f"-{here.root.resolve().name}"
    if len(found) == 1:
        return found[0].folder / "evaluation" / last
    name = "+".join(str(path).removeprefix("runs/").strip("/") for path in given)
    return Path("runs/ensembles") / safe_file_name(name) / last


def run_labels(found: list[Run]) -> list[str]:
    """What to call the runs beside each other: the overrides in which they differ, or their folders."""
    overrides = [run.identity.get("overrides", []) for run in found]
    names = [",".join(o for o in own if any(o not in other for other in overrides)) for own in overrides]
    return names if all(names) and len(set(names)) == len(names) else [run.folder.name for run in found]
