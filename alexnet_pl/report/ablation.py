"""Compare the lines of a panel by their final errors, and compare the differences with the paper's.

Errors are shares of wrong predictions between 0 and 1. The paper's are in percent and percentage points.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from alexnet_pl.report import paper
from alexnet_pl.report.compare import Panel
from alexnet_pl.report.curves import Line, RunCurves, cut_short
from alexnet_pl.runs.naming import flatten_config

ERRORS = {
    "validation top-1": "val/error",
    "validation top-5": "val/top5_error",
    "ten views top-1": "test/error",
    "ten views top-5": "test/top5_error",
    "training": "train/epoch_error",
}
"""Final errors, and their columns in a run's rows. Those on the validation set are after the last epoch, by centre
crops and by ten views. The running training error is over the last epoch."""
SEVERAL, CENTRE = "ten views", "validation"


@dataclass(frozen=True)
class SeedErrors:
    """One kind of error for each seed of a line."""

    values: list[float]
    seeds: list[int] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation (n - 1); None for one seed."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class ErrorDifference:
    """A difference of two means, with its standard error and degrees of freedom if there are several seeds."""

    mean: float
    error: float | None
    freedom: float = 1.0
    paired: bool = False

    @property
    def margin(self) -> float | None:
        """Half width of the 95 % interval (Student's t): the range of chance alone in 19 of 20 cases."""
        return None if self.error is None else float(stdtrit(self.freedom, 0.975)) * self.error

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the difference."""
        return None if self.margin is None else (self.mean - self.margin, self.mean + self.margin)


def runs_that_count(line: Line) -> list[RunCurves]:
    """Return the runs of a line that are done, or all runs if none is."""
    return [run for run in line.runs if run.run.done] or line.runs


def seed_errors(line: Line, error: str) -> SeedErrors | None:
    """Return one of `ERRORS` for each run that counts; None if one of them has not measured it."""
    runs = runs_that_count(line)
    known = [value for run in runs if (value := _last_error(run, error)) is not None]
    return SeedErrors(known, [run.seed for run in runs]) if len(known) == len(runs) else None


def _last_error(run: RunCurves, error: str) -> float | None:
    if error.startswith(SEVERAL) and run.config.get("test_views") != 10:
        return None
    return run.last.get(ERRORS[error])


def compare_errors(of: SeedErrors, against: SeedErrors) -> ErrorDifference:
    """Return how much higher one error is than another. If both have several equal seeds, compare seed by seed.

    A seed gives both runs the same order of images, and equal layers the same initial weights.
    """
    other = dict(zip(against.seeds, against.values, strict=True))
    pairs = [(a, other[seed]) for seed, a in zip(of.seeds, of.values, strict=True) if seed in other]
    return paired_difference(pairs) if len(pairs) > 1 else unpaired_difference(of, against)


def unpaired_difference(of: SeedErrors, against: SeedErrors) -> ErrorDifference:
    """Return how much higher one error is than another, if the seeds of two nets are independent."""
    if of.spread is None or against.spread is None:
        return ErrorDifference(of.mean - against.mean, None)
    parts = [each.spread**2 / len(each.values) for each in (of, against) if each.spread is not None]
    freedoms = [len(each.values) - 1 for each in (of, against)]
    below = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    freedom = sum(parts) ** 2 / below if below else 1.0  # Welch's
    return ErrorDifference(of.mean - against.mean, sqrt(sum(parts)), freedom)


def paired_difference(pairs: list[tuple[float, float]]) -> ErrorDifference:
    """Return the same from pairs of errors, one pair for each seed."""
    each = [a - b for a, b in pairs]
    return ErrorDifference(fmean(each), stdev(each) / sqrt(len(each)), len(each) - 1.0, paired=True)


def baseline(panel: Panel, claims: list[paper.Claim]) -> Line:
    """Return the line to compare with: the arm that a claim names as its reference, else the first line."""
    arms = [difference.against for claim in claims for difference in claim.differences]
    return next((line for arm in arms for line in panel.lines if has_settings(line, arm)), panel.lines[0])


def has_settings(line: Line, arm: dict[str, Any]) -> bool:
    """Return whether a line's runs have the settings of an arm."""
    flat = line.runs[0].flat
    return all(flat.get(key) == value for key, value in flatten_config(arm).items() if key != paper.VIEWS)


# ------------------------------------------------------------------------------------------------ beside the paper


@dataclass(frozen=True)
class ClaimResult:
    """A difference of the paper's, and ours."""

    claim: paper.Claim
    top: str  # top-1 or top-5
    paper: float  # percentage points
    verdict: str
    lines: str = ""  # whose error minus whose, by which views
    ours: ErrorDifference | None = None
    used: str = ""  # data and length of our runs


def judge(claim: paper.Claim, panels: list[Panel]) -> list[ClaimResult]:
    """Compare every difference of a claim with each pair of finished lines that are its arms; else it is `not run`."""
    results = []
    for difference in claim.differences:
        pairs = [pair for panel in panels for pair in _pairs(difference, panel)]
        for top, points in (("top-1", difference.top1), ("top-5", difference.top5)):
            if points is None:
                continue
            results += [_judge_pair(claim, difference, top, points, *pair) for pair in pairs]
            if not pairs:
                results.append(ClaimResult(claim, top, points, "not run"))
    return results


def _pairs(difference: paper.Difference, panel: Panel) -> list[tuple[Line, Line]]:
    """Return the lines that are a difference's arms. If there are several, they must agree in all other settings."""
    done = [line for line in panel.lines if any(run.run.done for run in line.runs)]
    ofs, others = ([line for line in done if has_settings(line, arm)] for arm in (difference.of, difference.against))
    arms = difference.of | difference.against
    rest = [
        key  # a group such as model is known by the arms' settings in it, and an experiment is what its arm needs
        for key in panel.compare
        if key not in ("seed", "experiment") and not any(arm == key or arm.startswith(f"{key}.") for arm in arms)
    ]
    return [
        (a, b) for a, b in product(ofs, others) if all(a.runs[0].value(key) == b.runs[0].value(key) for key in rest)
    ]


def _judge_pair(
    claim: paper.Claim, difference: paper.Difference, top: str, points: float, of: Line, against: Line
) -> ClaimResult:
    several = all(seed_errors(line, f"{SEVERAL} {top}") for line in (of, against))
    views = [arm.get(paper.VIEWS, 10 if several else 1) for arm in (difference.of, difference.against)]
    kinds = [SEVERAL if number == 10 else CENTRE for number in views]
    first, second = (seed_errors(line, f"{kind} {top}") for line, kind in zip((of, against), kinds, strict=True))
    if kinds[0] == kinds[1]:
        lines = f"{of.name} minus {against.name}, {kinds[0]}"
    else:
        lines = f"{of.name} ({kinds[0]}) minus {against.name} ({kinds[1]})"
    used = describe_runs([of, against])
    if first is None or second is None:
        return ClaimResult(claim, top, points, "not measured", lines, None, used)
    ours = compare_errors(first, second)
    return ClaimResult(claim, top, points, verdict(points, ours), lines, ours, used)


def verdict(points: float, ours: ErrorDifference) -> str:
    """Return whether our difference has the sign of the paper's. Within the range of chance it has no sign."""
    if ours.margin is not None and abs(ours.mean) <= ours.margin:
        return "within spread"
    sign = "no difference" if not ours.mean else "same sign" if (ours.mean > 0) == (points > 0) else "opposite"
    return f"{sign}, one seed" if ours.error is None else sign


def describe_runs(lines: list[Line]) -> str:
    """Return dataset, scale (unless it is the paper's) and length of the lines' runs, and what cut them short.

    For example: `shapes (10 classes), scale=small, 2 epochs, trainer.max_steps=8`.
    """
    runs = [run for line in lines for run in runs_that_count(line)]
    sets = [run.config["data"] for run in runs]
    data = list(dict.fromkeys(f"{one['name']} ({one['num_classes']} classes)" for one in sets))
    data += [f"scale={scale}" for scale in sorted({run.value("scale") for run in runs} - {"", "paper"})]
    epochs = " to ".join(dict.fromkeys(f"{of(run.epochs for run in runs):.4g}" for of in (min, max)))
    cuts = dict.fromkeys(cut for run in runs if (cut := cut_short(run.run)) and "scale=smoke" not in cut)
    return ", ".join([*data, f"{epochs} epochs", *cuts])
