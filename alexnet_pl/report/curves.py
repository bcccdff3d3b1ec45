"""Turn a run's rows into curves, and curves into the epochs that they need to the target.

Errors are shares of wrong predictions between 0 and 1, times are epochs.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import fmean, median, stdev
from typing import Any

from alexnet_pl.config.keys import format_value
from alexnet_pl.runs.naming import flatten_config, parse_overrides
from alexnet_pl.runs.run import Run

RUNNING = "running"
"""The training error that every run has, however short; learning curves show it"""

METRICS = {
    "averaged": "the running error over a whole epoch, as a moving average that stands at that epoch's centre. It is "
    "the primary one: no single lucky window can reach the target",
    RUNNING: "error on the training batches as they are trained, each before its update, over windows of images; "
    "a window stands at its centre. cuda-convnet printed this, so it is most likely what the paper's Figure 1 shows. "
    "The first lucky window counts, so the flatter a curve, the earlier it crosses",
    "train_eval": "error on a fixed part of the training set, with the weights as they are after each epoch",
}
"""The training errors whose crossing is timed; the first is the primary one. The page, the JSON and the terminal use
these words."""

EVALUATED = {
    "validation": "error on images that are not trained on, with the weights as they are after each epoch",
    "validation top-5": "share of those images whose class is not among the five that the net finds likeliest",
}
"""The errors that are not timed. The second is measured if there are more than ten classes."""

MOST_POINTS = 500
"""Most points of a drawn curve"""


KEYS = {
    "window": "train/error",
    "train_eval": "train_eval/error",
    "validation": "val/error",
    "validation top-5": "val/top5_error",
}
"""Metric -> its columns in metrics.csv"""


# ------------------------------------------------------------------------------------------------ one run


@dataclass(frozen=True)
class Curve:
    """Errors `y` against epochs `x`, in the order of training."""

    x: list[float]
    y: list[float]


def crossing(x: list[float], y: list[float], target: float) -> float | None:
    """Return x where y is first at or under the target, interpolated linearly from the point before; None: never."""
    for i, error in enumerate(y):
        if error <= target:
            share = (y[i - 1] - target) / (y[i - 1] - error) if i else 1.0
            return x[i] if i == 0 else x[i - 1] + share * (x[i] - x[i - 1])
    return None


def thin(curve: Curve) -> Curve:
    """Return a curve of at most `MOST_POINTS` points to draw, which are means over stretches of a longer one."""
    stretch = math.ceil(len(curve.x) / MOST_POINTS)
    if stretch < 2:
        return curve
    starts = range(0, len(curve.x), stretch)
    return Curve(*([fmean(values[i : i + stretch]) for i in starts] for values in (curve.x, curve.y)))


def make_curves(rows: list[dict[str, float]]) -> dict[str, Curve]:
    """Return the curves in the rows of a metrics.csv, by metric. A metric that was not measured has an empty one."""
    after = {name: [(r["epoch"], r[key]) for r in rows if math.isfinite(r.get(key, math.nan))]
             for name, key in KEYS.items()}  # fmt: skip
    ends = [end for end, _ in after["window"]]
    windows = [(a, b, error) for a, (b, error) in zip([0.0, *ends], after["window"], strict=False)]
    # Longer than an epoch: the rows before are lost (the run began with logger=none), and so is the window's start.
    windows = [(a, b, error) for a, b, error in windows if b - a < 1 + 1e-6]
    return {
        RUNNING: Curve([(a + b) / 2 for a, b, _ in windows], [error for *_, error in windows]),
        "averaged": _averaged(windows),
        **{
            name: Curve([x for x, _ in points], [y for _, y in points])
            for name, points in after.items()
            if name != "window"
        },
    }


def _averaged(windows: list[tuple[float, float, float]]) -> Curve:
    """Return means over each stretch of (start, end, error) windows that is one epoch long."""
    starts = [start for start, *_ in windows]
    curve = Curve([], [])
    for i, (_, end, _) in enumerate(windows):
        stretch = windows[bisect_left(starts, end - 1 - 1e-6) : i + 1]
        if abs(sum(b - a for a, b, _ in stretch) - 1) < 1e-6:
            curve.x.append(end - 0.5)
            curve.y.append(sum((b - a) * error for a, b, error in stretch))
    return curve


@dataclass
class RunCurves:
    """A run that has metrics, and its curves."""

    run: Run
    config: dict[str, Any]
    curves: dict[str, Curve]
    epochs: float  # trained so far
    last: dict[str, float]  # the last finite value of each column of metrics.csv
    window: float  # images in a window of the running error, as it came out: no longer than an epoch

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def last_error(self) -> float | None:
        """Running training error over the last whole epoch."""
        return self.last.get("train/epoch_error")

    @cached_property
    def flat(self) -> dict[str, Any]:
        return flatten_config(self.config)

    @cached_property
    def overrides(self) -> dict[str, str]:
        """Overrides of the run."""
        return parse_overrides(self.run.identity.get("overrides", []))

    def value(self, key: str) -> str:
        """Return a key's value as in an override. For a group, return its override, or nothing."""
        return format_value(self.flat[key]) if key in self.flat else self.overrides.get(key, "")


CUT = ("limit_train_batches", "max_steps", "max_time", "max_epochs")
"""Keys of the trainer that people set to see whether a command works"""


def cut_short(run: Run) -> str:
    """Return the settings that make a run shorter than its experiment, `trainer.max_steps=8`; else nothing."""
    config, given = flatten_config(run.config), parse_overrides(run.identity.get("overrides", []))
    if config.get("scale") == "smoke":
        return "scale=smoke"
    values = {f"trainer.{key}": given.get(f"trainer.{key}", "null") for key in CUT}
    values["trainer.limit_train_batches"] = format_value(config.get("trainer.limit_train_batches"))
    return ", ".join(f"{key}={value}" for key, value in values.items() if value not in ("null", "-1", "1.0"))


def read_curves(run: Run) -> RunCurves | None:
    """Return a run's curves, or None if it has no metrics.

    Raises:
        ConfigError: metrics.csv is damaged.
    """
    rows = run.metrics
    curves = make_curves(rows)
    if not curves[RUNNING].x:
        return None
    last = {key: value for row in rows for key, value in row.items() if math.isfinite(value)}
    return RunCurves(run, run.config, curves, max(row["epoch"] for row in rows), last, _window(rows))


def _window(rows: list[dict[str, float]]) -> float:
    ends = [row["images_seen"] for row in rows if math.isfinite(row.get("train/error", math.nan))]
    return median(b - a for a, b in pairwise([0.0, *ends]))


# ------------------------------------------------------------------------------------------------ a line of seeds


@dataclass
class Timing:
    """Epochs to the target by one metric: a value per seed, None for a seed that did not reach it."""

    values: list[float | None]
    ends: list[float]

    @property
    def crossings(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def bound(self) -> float:
        """Mean over the seeds. It is a lower bound if a seed did not cross, which then counts with its length."""
        return fmean(end if value is None else value for value, end in zip(self.values, self.ends, strict=True))

    @property
    def mean(self) -> float | None:
        return self.bound if len(self.crossings) == len(self.values) else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1)."""
        return stdev(self.crossings) if self.mean is not None and len(self.values) > 1 else None

    @property
    def beyond(self) -> float | None:
        """Epoch up to which a seed did not cross; None if all did."""
        return min((e for v, e in zip(self.values, self.ends, strict=True) if v is None), default=None)

    def __str__(self) -> str:
        some = f" ({len(self.crossings)} of {len(self.values)} seeds crossed)" if len(self.values) > 1 else ""
        return plus_minus(self.mean, self.spread) if self.mean is not None else f"> {self.beyond:.2f}{some}"


def plus_minus(mean: float, spread: float | None) -> str:
    """Return `2.15 ± 0.07`."""
    return f"{mean:.2f}" if spread is None else f"{mean:.2f} ± {spread:.2f}"


@dataclass
class Line:
    """The runs of one configuration: its seeds."""

    name: str
    runs: list[RunCurves]
    target: float | None  # None: nothing is timed

    def timing(self, metric: str) -> Timing | None:
        """Return the epochs to the target; None if no run has a point of this metric."""
        found, target = [run.curves[metric] for run in self.runs], self.target
        if target is None or not any(curve.x for curve in found):
            return None
        return Timing([crossing(c.x, c.y, target) for c in found], [c.x[-1] if c.x else 0.0 for c in found])

    def mean(self, metric: str) -> tuple[Curve, Curve, Curve]:
        """Return mean, lowest and highest error over the seeds, at epochs where all seeds have a point."""
        found = [run.curves[metric] for run in self.runs]
        points = [{round(x, 6): y for x, y in zip(c.x, c.y, strict=True)} for c in found]
        x = sorted(set(points[0]).intersection(*points[1:]))
        columns = [[p[at] for p in points] for at in x]
        mean, low, high = (Curve(x, [of(column) for column in columns]) for of in (fmean, min, max))
        return mean, low, high

    def lowest(self, metric: str) -> float | None:
        """Return the lowest error of any seed."""
        return min((y for run in self.runs for y in run.curves[metric].y), default=None)

    @property
    def last_error(self) -> float | None:
        """Running training error over the last whole epoch, mean over the seeds."""
        known = [run.last_error for run in self.runs if run.last_error is not None]
        return fmean(known) if len(known) == len(self.runs) else None

    @property
    def epochs(self) -> float:
        """Epochs that every seed has trained."""
        return min(run.epochs for run in self.runs)
