"""Arrange the runs of a folder for comparison, and refuse those that must not be compared.

A folder's runs form panels (`report.panel`), a panel's runs form lines, and a line holds its seeds. A line is a value
of `report.compare`. If that is empty, it is a value of the overrides in which the panel's runs differ, except the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev

from alexnet_pl.errors import ConfigError
from alexnet_pl.report import paper
from alexnet_pl.report.curves import Line, RunCurves, plus_minus, read_curves
from alexnet_pl.runs.naming import config_differences, flatten_config, is_bookkeeping
from alexnet_pl.runs.run import Run, find_runs

# What may differ between the lines of a panel besides the compared and the tuned keys: how long a run goes on.
LENGTH = ("stop_at_train_error", "trainer.max_epochs")


# ------------------------------------------------------------------------------------------------ a panel of lines


@dataclass
class Ratio:
    """The ratio of the epochs that `slow` and `fast` need; a lower bound if `slow` did not cross."""

    slow: str
    fast: str
    value: float
    spread: float | None
    at_least: bool

    def __str__(self) -> str:
        return ("> " if self.at_least else "") + plus_minus(self.value, self.spread)


@dataclass
class Panel:
    title: str
    compare: list[str]  # the keys whose values are the lines
    target: float | None  # None: nothing is timed
    published: dict[str, str]
    lines: list[Line]

    def ratio(self, metric: str) -> Ratio | None:
        """Return the mean of the slower of two lines over that of the faster; the spread is over their common seeds."""
        timings = {line.name: timing for line in self.lines if (timing := line.timing(metric))}
        if len(timings) != 2 or len(self.lines) != 2:
            return None
        fast, slow = sorted(self.lines, key=lambda line: timings[line.name].bound)
        mean = timings[fast.name].mean
        if not mean:
            return None
        seeds = [
            {run.seed: value for run, value in zip(line.runs, timings[line.name].values, strict=True)}
            for line in (fast, slow)
        ]
        pairs = [b / a for seed, a in seeds[0].items() if a and (b := seeds[1].get(seed))]
        at_least = timings[slow.name].mean is None
        spread = stdev(pairs) if len(pairs) > 1 and not at_least else None
        return Ratio(slow.name, fast.name, timings[slow.name].bound / mean, spread, at_least)

    @property
    def paper_ratio(self) -> str:
        """Published ratio, if it is about these lines."""
        return self.published.get("ratio", "") if all(line.name in self.published for line in self.lines) else ""

    @property
    def best(self) -> Line | None:
        """Best line of a learning-rate search: the lowest error over the last epoch, among those trained longest."""
        full = max(line.epochs for line in self.lines) - 1e-6
        known = [(line.last_error, i) for i, line in enumerate(self.lines) if line.epochs >= full]
        ranked = sorted((error, i) for error, i in known if error is not None)
        return self.lines[ranked[0][1]] if len(ranked) > 1 and self.compare == ["optim.lr"] else None


# ------------------------------------------------------------------------------------------------ a folder


@dataclass
class Report:
    folder: Path
    panels: list[Panel]
    absent: list[Run]  # asked for or begun, but without metrics
    notes: list[str]  # what the reader should know about the comparison
    claims: list[paper.Claim]  # of the paper, that the folder's sweep is about

    @property
    def lines(self) -> list[tuple[Panel, Line]]:
        return [(panel, line) for panel in self.panels for line in panel.lines]

    @property
    def runs(self) -> list[RunCurves]:
        return [run for _, line in self.lines for run in line.runs]

    @property
    def incomplete(self) -> list[Run]:
        """All runs without a done mark or without metrics."""
        return [run.run for run in self.runs if not run.run.done] + self.absent

    @property
    def differing_keys(self) -> list[str]:
        """Keys that differ between the lines, except the seed."""
        return [key for key in _differing_values([line.runs[0] for _, line in self.lines]) if key != "seed"]


def collect(folder: Path, allow: Sequence[str] = ()) -> Report:
    """Read all runs of a folder and arrange them in panels and lines.

    Args:
        allow: keys that may differ between any runs; `model` stands for all keys that begin with `model.`.
    Raises:
        ConfigError: no run, no metrics, or runs that must not be compared.
    """
    found = {run.folder: (run, read_curves(run)) for run in find_runs(folder)}
    runs = [curves for _, curves in found.values() if curves]
    absent = [run for run, curves in found.values() if not curves]
    if not runs:
        states = ", ".join(f"{n} {state}" for state, n in Counter(run.status for run in absent).items())
        raise ConfigError(f"no run in {folder} has metrics to draw ({states}): runs with logger=none keep none")
    known = {"experiment", *(key for run in runs for key in run.flat)}
    for key in allow:
        if not any(one == key or one.startswith(f"{key}.") for one in known):
            raise ConfigError(f"--allow {key} is no key of these runs: their config.yaml lists the keys")
    titled: dict[str, list[RunCurves]] = {}
    for run in runs:
        titled.setdefault(str(run.config["report"]["panel"] or folder.name), []).append(run)
    panels = [_panel(title, members, allow) for title, members in titled.items()]
    sweeps = {run.overrides.get("sweep") for run in runs}
    claims = [claim for claim in paper.claims() if claim.sweep and claim.sweep in sweeps]
    return Report(folder, panels, absent, _notes(runs), claims)


def _panel(title: str, runs: list[RunCurves], allow: Sequence[str]) -> Panel:
    figure = runs[0].config["report"]
    declared = figure["compare"]
    compare = declared or swept_keys(runs)
    tuned = {key for run in runs for key in run.config["report"]["tuned"]}
    _refuse_mixture(f"panel {title!r}", runs, {"seed", *compare, *tuned, *LENGTH, *allow})
    groups: dict[tuple[str, ...], list[RunCurves]] = {}
    for run in runs:
        groups.setdefault(tuple(run.value(key) for key in compare), []).append(run)
    values = sorted(groups, key=lambda value: _number(value[0]) if len(compare) == 1 else 0.0)
    lines = [
        Line(_name(compare, groups[value][0], bool(declared)), groups[value], figure["target"]) for value in values
    ]
    for line in lines:
        _refuse_mixture(f"line {line.name} of panel {title!r}", line.runs, {"seed", *allow})
        seed, n = Counter(run.seed for run in line.runs).most_common(1)[0]
        if n > 1:
            same = " and ".join(run.run.folder.name for run in line.runs if run.seed == seed)
            raise ConfigError(f"line {line.name} of panel {title!r} has seed {seed} {n} times: remove one of {same}")
    return Panel(title, compare, figure["target"], figure["published"], lines)


def swept_keys(runs: list[RunCurves]) -> list[str]:
    """Return the keys and groups in overrides that differ between runs, in the order of the overrides."""
    keys = dict.fromkeys(key for run in runs for key in _override_keys(run))
    return [key for key in keys if len({run.value(key) for run in runs}) > 1]


def _override_keys(run: RunCurves) -> list[str]:
    return [key for key in run.overrides if key != "seed" and not is_bookkeeping(key)]


def _name(compare: list[str], run: RunCurves, declared: bool) -> str:
    """Return a line's name: `tanh` if one key is declared; else `model.activation=tanh, model.lrn=[]`.

    If none is declared, a line is named by its own overrides. One that overrides nothing of what differs is `defaults`.
    """
    if declared and len(compare) == 1:
        return run.value(compare[0])
    keys = compare if declared else [key for key in compare or _override_keys(run) if key in run.overrides]
    values = {key: run.value(key) for key in keys}
    return ", ".join(f"{key}={value}" for key, value in values.items() if value) or "defaults"


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


def _refuse_mixture(place: str, runs: list[RunCurves], allowed: set[str]) -> None:
    """Raise ConfigError if runs differ in a key that is not allowed."""

    def may(key: str) -> bool:
        if "experiment" in allowed and key not in ("report.compare", "report.target"):  # it sets what it likes
            return True
        return any(key == other or key.startswith(f"{other}.") for other in allowed)

    mixed = {
        key: values
        for key, values in (_differing_values(runs) | _differing_values(runs, "report")).items()
        if not may(key)
    }
    if mixed:
        keys = ", ".join(f"{key} ({', '.join(values)})" for key, values in mixed.items())
        raise ConfigError(
            f"{place} mixes runs that differ in {keys}: report them from separate folders, name the key to compare "
            f"by issuing the same command with report.compare=[KEY], or let it differ with --allow KEY"
        )


def _differing_values(runs: list[RunCurves], group: str = "") -> dict[str, list[str]]:
    """Return the keys in which runs differ, with their values, without bookkeeping.

    Args:
        group: `report` for the keys that set how the figure is drawn, which are bookkeeping otherwise.
    """
    configs = [run.config[group] if group else run.config for run in runs]
    keys = {key for other in configs[1:] for key in config_differences(configs[0], other)}
    flat = [flatten_config(config) for config in configs]
    name = f"{group}." if group else ""
    return {
        name + key: list(dict.fromkeys(str(config.get(key)) for config in flat))
        for key in sorted(keys)
        if not (group and key.startswith("published"))
    }


def commit(run: Run) -> str:
    """Return the commit of a run in nine digits, and whether the checkout had other changes."""
    git = run.identity.get("git", {})
    return (git.get("commit") or "unknown")[:9] + (" + uncommitted changes" if git.get("dirty") else "")


def _notes(runs: list[RunCurves]) -> list[str]:
    """Return a sentence for each fact in which the runs differ, such as a library's version."""
    facts = [{"git commit": commit(r.run)} | r.run.identity.get("versions", {}) for r in runs]
    notes = []
    for fact in dict.fromkeys(key for known in facts for key in known):
        values = Counter(str(known.get(fact, "unknown")) for known in facts)
        if len(values) > 1:
            counts = ", ".join(f"{value} ({n} {'run' if n == 1 else 'runs'})" for value, n in values.items())
            notes.append(f"The runs differ in {fact}: {counts}.")
    return notes
