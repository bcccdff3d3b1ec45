"""What a panel's lines come to: their errors at the end, and whether the differences that the paper tells of are there.

Errors are shares of wrong answers between 0 and 1, as everywhere; the paper's are in percent and percentage points.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from alexnet_pl.report import paper
from alexnet_pl.report.compare import Panel
from alexnet_pl.report.curves import Drawn, Line
from alexnet_pl.runs.naming import flatten_config

ERRORS = {
    "validation top-1": "val/error",
    "validation top-5": "val/top5_error",
    "ten views top-1": "test/error",
    "ten views top-5": "test/top5_error",
    "training": "train/epoch_error",
}
"""Errors at the end, and where a run's rows hold them: on the validation set after the last epoch, on centre crops and
from ten views; and the running training error over the last epoch."""
SEVERAL, CENTRE = "ten views", "validation"


@dataclass(frozen=True)
class Mean:
    """An error over the seeds of a line."""

    values: list[float]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation (n - 1); None for one seed."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Change:
    """A difference of two means, with its standard error and degrees of freedom where both have several seeds."""

    mean: float
    error: float | None
    freedom: float = 1.0

    @property
    def margin(self) -> float | None:
        """How far from nothing chance alone puts it in 19 of 20 cases (Student's t)."""
        return None if self.error is None else float(stdtrit(self.freedom, 0.975)) * self.error


def finished(line: Line) -> list[Drawn]:
    """The runs that count: those that are done, or all where none is."""
    return [run for run in line.runs if run.run.done] or line.runs


def measured(line: Line, error: str) -> Mean | None:
    """One of `ERRORS`; None where a run that counts has not measured it."""
    values = [_last(run, error) for run in finished(line)]
    known = [value for value in values if value is not None]
    return Mean(known) if len(known) == len(values) else None


def _last(run: Drawn, error: str) -> float | None:
    if error.startswith(SEVERAL) and run.config.get("test_views") != 10:
        return None
    return run.last.get(ERRORS[error])


def change(of: Mean, against: Mean) -> Change:
    """How much higher one error is than another; the seeds of two nets are taken as independent."""
    if of.spread is None or against.spread is None:
        return Change(of.mean - against.mean, None)
    parts = [each.spread**2 / len(each.values) for each in (of, against) if each.spread is not None]
    freedoms = [len(each.values) - 1 for each in (of, against)]
    below = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    return Change(of.mean - against.mean, sqrt(sum(parts)), sum(parts) ** 2 / below if below else 1.0)  # Welch's


def paired(of: Mean, against: Mean) -> Change:
    """The same for two errors of the same runs, seed by seed."""
    each = Mean([a - b for a, b in zip(of.values, against.values, strict=True)])
    n = len(each.values)
    return Change(each.mean, None if each.spread is None else each.spread / sqrt(n), max(1.0, n - 1))


def baseline(panel: Panel, claims: list[paper.Claim]) -> Line:
    """The line that the others are compared with: the one that a claim does it with, else the first."""
    arms = [difference.against for claim in claims for difference in claim.differences]
    return next((line for arm in arms for line in panel.lines if fits(arm, line)), panel.lines[0])


def fits(arm: dict[str, Any], line: Line) -> bool:
    """Whether a line's runs have the settings of an arm."""
    flat = line.runs[0].flat
    return all(flat.get(key) == value for key, value in flatten_config(arm).items() if key != paper.VIEWS)


# ------------------------------------------------------------------------------------------------ beside the paper


@dataclass(frozen=True)
class Judged:
    """A difference of the paper beside ours."""

    claim: paper.Claim
    top: str  # top-1 or top-5
    paper: float  # percentage points
    verdict: str
    lines: str = ""  # whose error minus whose, by which views
    ours: Change | None = None
    used: str = ""  # data and length of our runs


def judge(claim: paper.Claim, panels: list[Panel]) -> list[Judged]:
    """Every difference of a claim, for each pair of lines that are its arms and are done; `not run` without one."""
    judged = []
    for difference in claim.differences:
        pairs = [pair for panel in panels for pair in _pairs(difference, panel)]
        for top, points in (("top-1", difference.top1), ("top-5", difference.top5)):
            if points is None:
                continue
            judged += [_judge(claim, difference, top, points, *pair) for pair in pairs]
            if not pairs:
                judged.append(Judged(claim, top, points, "not run"))
    return judged


def _pairs(difference: paper.Difference, panel: Panel) -> list[tuple[Line, Line]]:
    """The lines that are the difference's arms; of several, those that agree in whatever else is compared."""
    done = [line for line in panel.lines if any(run.run.done for run in line.runs)]
    ofs, others = ([line for line in done if fits(arm, line)] for arm in (difference.of, difference.against))
    arms = difference.of | difference.against
    rest = [
        key  # a group such as model is told by the arms' settings in it, and an experiment is what its arm needs
        for key in panel.compare
        if key not in ("seed", "experiment") and not any(arm == key or arm.startswith(f"{key}.") for arm in arms)
    ]
    return [
        (a, b) for a, b in product(ofs, others) if all(a.runs[0].value(key) == b.runs[0].value(key) for key in rest)
    ]


def _judge(
    claim: paper.Claim, difference: paper.Difference, top: str, points: float, of: Line, against: Line
) -> Judged:
    several = all(measured(line, f"{SEVERAL} {top}") for line in (of, against))
    views = [arm.get(paper.VIEWS, 10 if several else 1) for arm in (difference.of, difference.against)]
    kinds = [SEVERAL if number == 10 else CENTRE for number in views]
    errors = [measured(line, f"{kind} {top}") for line, kind in zip((of, against), kinds, strict=True)]
    said = " minus ".join(
        f"{line.name} ({kind})" if kinds[0] != kinds[1] else line.name
        for line, kind in zip((of, against), kinds, strict=True)
    ) + (f", {kinds[0]}" if kinds[0] == kinds[1] else "")
    used = what([of, against])
    if errors[0] is None or errors[1] is None:
        return Judged(claim, top, points, "not measured", said, None, used)
    ours = paired(errors[0], errors[1]) if of is against else change(errors[0], errors[1])
    return Judged(claim, top, points, verdict(points, ours), said, ours, used)


def verdict(points: float, ours: Change) -> str:
    """Whether our difference has the sign of the paper's; within what chance may do, it has none."""
    if ours.margin is not None and abs(ours.mean) <= ours.margin:
        return "within spread"
    said = "no difference" if not ours.mean else "same sign" if (ours.mean > 0) == (points > 0) else "opposite"
    return said + ", one seed" * (ours.error is None)


def what(lines: list[Line]) -> str:
    """Data set, scale where it is not the paper's, and length of the lines' runs: `shapes (10 classes), scale=smoke, 2
    epochs`."""
    drawn = [run for line in lines for run in finished(line)]
    sets = [run.config["data"] for run in drawn]
    data = list(dict.fromkeys(f"{one['name']} ({one['num_classes']} classes)" for one in sets))
    data += [f"scale={scale}" for scale in sorted({run.value("scale") for run in drawn} - {"", "paper"})]
    epochs = " to ".join(dict.fromkeys(f"{of(run.epochs for run in drawn):.4g}" for of in (min, max)))
    cut = any(run.flat.get("trainer.limit_train_batches") not in (None, 1.0) for run in drawn)
    return f"{', '.join(data)}, {epochs} epochs" + " cut short by trainer.limit_train_batches" * cut
