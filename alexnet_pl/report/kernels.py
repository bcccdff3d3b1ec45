"""Figure 3: the first layer's kernels, tower by tower, and how colourful each tower is.

In the paper one GPU's kernels came out "largely color-agnostic" and the other's "largely color-specific", in every run
(section 6.1). Here that is a number. A kernel gives each pixel three weights; their part along (1, 1, 1) sees grey,
what stands across it sees colour only. Colourfulness is the share of a kernel's energy that stands across: 0 for a
kernel that sees brightness alone, 1 for one that only compares colours, 2/3 for noise.
"""

from __future__ import annotations

from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_pl import files
from alexnet_pl.errors import ConfigError

if TYPE_CHECKING:
    from alexnet_pl.runs.trained import TrainedModel

COLUMNS = 16
"""Most kernels in a row, as in the paper"""
GAP = 1
"""Pixels of a kernel between two of them"""
SPECIALISED = 3.0
"""Standard errors between the towers' means from which on they are said to specialise: a rule of thumb, as the kernels
of one net are no independent draws"""


def kernels(net: TrainedModel, path: Path | None = None) -> dict[str, float]:
    """Draw a net's first kernels, and measure how colourful each tower's are.

    Args:
        path: a .png or .svg file. None: kernels.png in the folder of the net's run.
    Returns:
        As `specialisation`, which is printed under the figure as well.
    Raises:
        ConfigError: no file is given, and the net is of no run.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if path is None:
        if net.run is None:
            raise ConfigError(f"{net.name} is not the net of a run: say where its kernels are to be drawn")
        path = net.run.folder / "kernels.png"
    if not hasattr(net.net, "conv1"):
        raise ConfigError(f"{net.name} has no conv1 (model.drop_layers), and so no first kernels to draw")
    weights = net.net.get_parameter("conv1.weight").detach().float().cpu().numpy()
    towers = np.split(weights, net.cfg.model.towers)
    found = specialisation(towers)
    sheets = [sheet(tower) for tower in towers]
    width = max(4.0, 0.5 * sheets[0].shape[1] / (weights.shape[3] + GAP))
    height = sum(width * len(each) / each.shape[1] + 0.6 for each in sheets) + 0.6
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 10}):
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        grid = figure.subplots(len(towers), 1, squeeze=False, height_ratios=[len(each) for each in sheets])[:, 0]
        for number, (axes, pixels) in enumerate(zip(grid, sheets, strict=True), 1):
            axes.imshow(pixels, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(f"tower {number}" if len(towers) > 1 else "conv1", fontsize=11)
            said = f"colourfulness {found[f'tower{number}']:.2f} ± {found[f'tower{number}_spread']:.2f}"
            axes.text(0.5, -0.02, said, transform=axes.transAxes, ha="center", va="top", fontsize=9)
        figure.suptitle(f"{net.cfg.name}: the first {len(weights)} kernels", fontsize=12)
        if said := verdict(found):
            figure.supxlabel(said, fontsize=9, color="#444444")
        with files.beside(path) as part:
            figure.savefig(part, format=path.suffix.lstrip(".").lower() or "png")
    return found


def colourfulness(weights: np.ndarray) -> np.ndarray:
    """Kernels (n, 3, size, size) -> the share of each one's energy off the grey axis, float64 (n,); NaN for zeros."""
    weights = weights.astype(np.float64)
    total = np.square(weights).sum((1, 2, 3))
    grey = np.square(weights.sum(1)).sum((1, 2)) / 3  # of the parts along (1, 1, 1) / sqrt(3)
    return np.divide(total - grey, total, out=np.full(len(weights), np.nan), where=total > 0)


def specialisation(towers: list[np.ndarray]) -> dict[str, float]:
    """How colourful each tower's kernels (n, 3, size, size) are, and how far apart two towers are.

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
    """Whether the towers specialise, in one sentence; nothing to say of one tower."""
    apart = found.get("standard_errors", np.nan)
    if np.isnan(apart):
        return ""
    said = f"the means are {abs(found['difference']):.2f} apart, {abs(apart):.1f} standard errors"
    if abs(apart) < SPECIALISED:
        return f"{said}: chance may do that"
    return f"{said}: the towers specialise, and tower {2 if apart > 0 else 1} took the colours"


def sheet(weights: np.ndarray) -> np.ndarray:
    """Kernels (n, 3, size, size) side by side as a figure (height, width, 3) of 0..1.

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
