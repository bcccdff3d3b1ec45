"""Measure how colourful the first layer's kernels are, tower by tower, and lay them out as in Figure 3.

In the paper one GPU's kernels became "largely color-agnostic" and the other's "largely color-specific", in every run
(section 6.1). Here that is a number. A kernel has three weights for each pixel. Their part along (1, 1, 1) sees grey,
and the part orthogonal to it sees colour only. Colourfulness is the orthogonal part's share of a kernel's energy. It is
0 for a kernel that sees only brightness, 1 for one that only compares colours, and 2/3 for noise.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_pl.report.curves import cut_short

if TYPE_CHECKING:
    from alexnet_pl.runs.trained import TrainedModel

COLUMNS = 16
"""Most kernels in a row, as in the paper's figure"""
GAP = 1
"""Pixels between two kernels"""
ENOUGH = 10
"""Least number of a tower's kernels, without those of zeros, for a meaningful mean; the paper's towers have 48"""
LEARNED = 0.9
"""Share of the error of guessing. A net above it has learned too little for its kernels to mean something."""
SPECIALISED = 3.0
"""Least standard errors between the towers' means for specialised towers. This is a rule of thumb, as the kernels of
one net are not independent."""


def colourfulness(weights: np.ndarray) -> np.ndarray:
    """Return the share of each kernel's energy off the grey axis: (n, 3, size, size) -> float64 (n,); NaN for zeros."""
    weights = weights.astype(np.float64)
    total = np.square(weights).sum((1, 2, 3))
    grey = np.square(weights.sum(1)).sum((1, 2)) / 3  # of the parts along (1, 1, 1) / sqrt(3)
    return np.divide(total - grey, total, out=np.full(len(weights), np.nan), where=total > 0)


def specialisation(towers: list[np.ndarray]) -> dict[str, float]:
    """Measure how colourful each tower's kernels (n, 3, size, size) are, and how far apart two towers are.

    Returns:
        For tower i, counted from 1: `tower{i}`, the mean of `colourfulness` over its kernels, `tower{i}_spread`, their
        standard deviation, and `tower{i}_kernels`, their number. For two towers: `difference`, the second's mean minus
        the first's, and `standard_errors`, the same over its standard error (Welch's t). Kernels of zeros do not count.
    """
    found: dict[str, float] = {}
    variances = []
    for number, tower in enumerate(towers, 1):
        each = colourfulness(tower)
        each = each[~np.isnan(each)]
        found[f"tower{number}"] = float(each.mean()) if len(each) else np.nan
        found[f"tower{number}_spread"] = float(each.std(ddof=1)) if len(each) > 1 else np.nan
        found[f"tower{number}_kernels"] = len(each)
        variances.append(found[f"tower{number}_spread"] ** 2 / max(1, len(each)))
    if len(towers) == 2:
        found["difference"] = found["tower2"] - found["tower1"]
        error = sqrt(sum(variances))
        found["standard_errors"] = found["difference"] / error if error else np.nan
    return found


def describe_tower(found: dict[str, float], number: int) -> str:
    """Return how colourful a tower is: `colourfulness 0.61 ± 0.12 (mean ± sd over 48 kernels)`."""
    kernels = found[f"tower{number}_kernels"]
    if not kernels:
        return "all kernels are zero"
    if kernels == 1:
        return f"colourfulness {found[f'tower{number}']:.2f} (of one kernel)"
    numbers = f"{found[f'tower{number}']:.2f} ± {found[f'tower{number}_spread']:.2f}"
    return f"colourfulness {numbers} (mean ± sd over {kernels:.0f} kernels)"


def doubt(net: TrainedModel) -> str:
    """Return why the kernels of a net mean nothing: its run was cut short, or has learned little. Else return ""."""
    if net.run is None or not net.run.identity:
        return "nothing says how it was trained"
    if cut := cut_short(net.run):
        return f"it was trained with {cut}"
    last = {key: value for row in net.run.metrics for key, value in row.items()}
    error = last.get("val/error", last.get("train/epoch_error"))
    guessing = 1 - 1 / net.cfg.model.num_classes
    if error is None:
        return "no metrics say how well it has learned"
    learned = error <= LEARNED * guessing
    return "" if learned else f"its error is {100 * error:.1f} %, that of guessing {100 * guessing:.1f} %"


def verdict(found: dict[str, float], doubt: str = "") -> str:
    """Return in one sentence whether the towers specialise, or why that is unknown.

    Args:
        found: the result of `specialisation`.
        doubt: why the net's kernels mean nothing, as the function of that name returns it.
    """
    if "difference" not in found:
        return "no verdict: it takes two towers"
    fewest = min(found["tower1_kernels"], found["tower2_kernels"])
    if fewest < ENOUGH:
        return f"no verdict: a tower has {fewest:.0f} kernels that are not zero, and it takes {ENOUGH}"
    if doubt:
        return f"no verdict on this net: {doubt}"
    apart = found["standard_errors"]
    means = f"the means are {abs(found['difference']):.2f} apart, {abs(apart):.1f} standard errors"
    if not abs(apart) >= SPECIALISED:
        return f"{means}: chance may do that"
    return f"{means}: the towers specialise, and tower {2 if apart > 0 else 1} took the colours"


def sheet(weights: np.ndarray) -> np.ndarray:
    """Lay kernels (n, 3, size, size) side by side: float64 (height, width, 3) of 0..1.

    Each has its own scale around zero, which is grey. The space between them is white.
    """
    n, _, size, _ = weights.shape
    rows, step = ceil(n / COLUMNS), size + GAP
    columns = ceil(n / rows)
    pixels: Any = np.ones((rows * step - GAP, columns * step - GAP, 3))
    for number, kernel in enumerate(weights):
        top, left = step * (number // columns), step * (number % columns)
        largest = np.abs(kernel).max() or 1.0
        pixels[top : top + size, left : left + size] = 0.5 + 0.5 * (kernel / largest).transpose(1, 2, 0)
    return pixels
