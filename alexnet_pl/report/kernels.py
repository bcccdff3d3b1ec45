"""Measure how colourful the first layer's kernels are, tower by tower, and lay them out as in Figure 3.

In the paper one GPU's kernels came out "largely color-agnostic" and the other's "largely color-specific", in every run
(section 6.1). Here that is a number. A kernel gives each pixel three weights; their part along (1, 1, 1) sees grey,
what stands across it sees colour only. Colourfulness is the share of a kernel's energy that stands across: 0 for a
kernel that sees brightness alone, 1 for one that only compares colours, 2/3 for noise.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any

import numpy as np

COLUMNS = 16
"""Most kernels in a row, as in the paper"""
GAP = 1
"""Pixels of a kernel between two of them"""
SPECIALISED = 3.0
"""Standard errors between the towers' means from which on they count as specialised: a rule of thumb, as the kernels
of one net are no independent draws"""


def colourfulness(weights: np.ndarray) -> np.ndarray:
    """Return the share of each kernel's energy off the grey axis: (n, 3, size, size) -> float64 (n,); NaN for zeros."""
    weights = weights.astype(np.float64)
    total = np.square(weights).sum((1, 2, 3))
    grey = np.square(weights.sum(1)).sum((1, 2)) / 3  # of the parts along (1, 1, 1) / sqrt(3)
    return np.divide(total - grey, total, out=np.full(len(weights), np.nan), where=total > 0)


def specialisation(towers: list[np.ndarray]) -> dict[str, float]:
    """Measure how colourful each tower's kernels (n, 3, size, size) are, and how far apart two towers are.

    Returns:
        For tower i, counted from 1: `tower{i}`, the mean of `colourfulness` over its kernels, and `tower{i}_spread`,
        their standard deviation. For two: `difference`, the second's mean minus the first's, and `standard_errors`,
        the same over its standard error (Welch's t). Kernels of zeros do not count.
    """
    found: dict[str, float] = {}
    variances = []
    for number, tower in enumerate(towers, 1):
        each = colourfulness(tower)
        each = each[~np.isnan(each)]
        found[f"tower{number}"] = float(each.mean()) if len(each) else np.nan
        found[f"tower{number}_spread"] = float(each.std(ddof=1)) if len(each) > 1 else np.nan
        variances.append(found[f"tower{number}_spread"] ** 2 / max(1, len(each)))
    if len(towers) == 2:
        found["difference"] = found["tower2"] - found["tower1"]
        error = sqrt(sum(variances))
        found["standard_errors"] = found["difference"] / error if error else np.nan
    return found


def verdict(found: dict[str, float]) -> str:
    """Return in one sentence whether the towers specialise; empty for one tower."""
    apart = found.get("standard_errors", np.nan)
    if np.isnan(apart):
        return ""
    means = f"the means are {abs(found['difference']):.2f} apart, {abs(apart):.1f} standard errors"
    if abs(apart) < SPECIALISED:
        return f"{means}: chance may do that"
    return f"{means}: the towers specialise, and tower {2 if apart > 0 else 1} took the colours"


def sheet(weights: np.ndarray) -> np.ndarray:
    """Lay kernels (n, 3, size, size) side by side: float64 (height, width, 3) of 0..1.

    Each has its own scale around zero, which is grey; between them the figure is white.
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
