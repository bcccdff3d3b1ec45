"""Draw the report's figures, with matplotlib.

Timed panels look like the paper's Figure 1 (solid ReLU, dashed tanh), and all others are learning curves. The first
kernels of a net look like Figure 3. Names and numbers stand around the axes, so that none covers a curve.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_pl.errors import ConfigError
from alexnet_pl.report.compare import Panel, Report
from alexnet_pl.report.curves import RUNNING, Line, thin
from alexnet_pl.report.kernels import GAP, describe_tower, doubt, sheet, specialisation, verdict
from alexnet_pl.report.style import DARK_GREY, GREY, line_style
from alexnet_pl.report.tables import PRIMARY, axis_limits, axis_top, finding, format_percent, label, small_print
from alexnet_pl.runs.figures import drawing, save, width, wrap

if TYPE_CHECKING:
    from alexnet_pl.runs.trained import TrainedModel

DASHES = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "dashdot"}
"""plotly's words for dashes -> matplotlib's"""
EPOCHS = "epochs (passes over the training set)"
WIDTH = 6.2
"""Size of axes with everything around them, in inches"""


def draw(report: Report, *paths: Path) -> None:
    """Write the figure to each path, in the format of its suffix (.png, .svg).

    Each panel with a target gets axes of its own, all on the same scales. A panel without one gets training and
    validation side by side.
    """
    from matplotlib.figure import Figure

    small = small_print(report)
    if any(panel.target is not None for panel in report.panels):
        small += " Timed panels: thin lines are these windows; thick lines, and times, are averages over an epoch."
    texts = [small, *(panel.title + label(panel, line) for panel, line in report.lines)]
    with drawing(texts, font__size=11, svg__hashsalt="alexnet_pl"):
        n, timed = len(report.panels), all(panel.target is not None for panel in report.panels)
        columns = 1 if not timed else n if n < 4 else 2 if n == 4 else 3
        rows = ceil(n / columns)
        heights = [4.8 + 0.21 * len(panel.lines) for panel in report.panels]
        inches = WIDTH * (max(columns, 1.3) if timed else 2)
        height = rows * max(heights) if timed else sum(heights)
        figure = Figure(figsize=(inches, height + 0.3), dpi=150, layout="constrained")
        if timed:
            grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
            for axes, panel in zip(grid, report.panels, strict=False):
                draw_panel(axes, panel, inches / columns)
            for axes in grid[n:]:
                axes.remove()
            grid[0].set(xlim=(0, None), ylim=(0, axis_top(report)), yticks=[0, 0.25, 0.5, 0.75])
        else:
            strips = figure.subfigures(n, 1, squeeze=False, height_ratios=heights)
            for strip, panel in zip(strips.flat, report.panels, strict=True):
                if panel.target is None:
                    draw_curves(strip, panel)
                else:
                    axes = strip.subplots()
                    draw_panel(axes, panel, inches)
                    axes.set(xlim=(0, None), ylim=(0, axis_top(report)))
        figure.supxlabel(wrap(small, inches, 8), fontsize=8, color=DARK_GREY)
        for path in paths:
            save(figure, path)


def draw_curves(strip: Any, panel: Panel) -> None:
    """Draw learning curves: training error on the left, validation error on the right, on one scale."""
    left, right = strip.subplots(1, 2, sharex=True, sharey=True)
    for axes, metric, title in ((left, RUNNING, "training error rate"), (right, "validation", "validation error rate")):
        for line in panel.lines:
            dash, colour = line_style(panel, line)
            mean, low, high = map(thin, line.mean(metric))
            look: dict[str, Any] = {"linestyle": DASHES[dash], "color": colour, "linewidth": 1.8}
            axes.plot(mean.x, mean.y, **look, label=label(panel, line))
            axes.fill_between(mean.x, low.y, high.y, color=colour, alpha=0.15, linewidth=0)
            for run in line.runs:
                if not run.run.done:
                    end = run.curves[metric]
                    axes.plot(end.x[-1:], end.y[-1:], marker="x", color=colour, markersize=9, markeredgewidth=2)
        if not any(line.mean(metric)[0].x for line in panel.lines):
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
        axes.set(xlabel=EPOCHS, ylabel=title)
        axes.tick_params(labelleft=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
    left.set(xlim=(0, None), ylim=axis_limits(panel, (RUNNING, "validation")))
    strip.suptitle(wrap(panel.title, 2 * WIDTH, 12), fontsize=12)
    handles, names = left.get_legend_handles_labels()
    _name_below(strip, handles, names, 2 * WIDTH, loc="outside lower center")


def draw_panel(axes: Any, panel: Panel, inches: float) -> None:
    """Draw training errors against epochs, and where each falls to the target, within a width in inches."""
    search, target = panel.compare == ["optim.lr"], panel.target
    assert target is not None
    for line in panel.lines:
        _draw_line(axes, panel, line, target, search)
    axes.axhline(target, color=GREY, linewidth=1, linestyle=(0, (6, 4)), zorder=0, label=f"{100 * target:g} % error")
    result = wrap(finding(panel), 0.85 * inches, 10)
    axes.annotate(result, (0.5, 1), (0, 6), "axes fraction", "offset points", ha="center", weight="bold", fontsize=10)
    below = 14 * len(result.splitlines())  # points
    axes.set_title(wrap(panel.title, 0.85 * inches, 12), fontsize=12, pad=8 + below)
    axes.set(xlabel=EPOCHS, ylabel="training error rate")
    axes.tick_params(labelbottom=True, labelleft=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.spines[["top", "right"]].set_visible(False)
    title = "learning rate: error over the last epoch" if search else None
    handles, names = axes.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 5}
    _name_below(axes, handles, names, inches, title=title, title_fontsize=9, **place)


def _draw_line(axes: Any, panel: Panel, line: Line, target: float, search: bool) -> None:
    """Draw a line's mean and band by the primary metric, its crossing of the target, and the windows of each seed."""
    dash, colour = line_style(panel, line)
    look: dict[str, Any] = {"linestyle": DASHES[dash], "color": colour}
    mean, low, high = map(thin, line.mean(PRIMARY))
    timing = line.timing(PRIMARY)
    after = f": {timing} epochs" if timing else ""
    text = (
        f"{line.runs[0].value('optim.lr')}: {format_percent(line.last_error)}" if search else label(panel, line) + after
    )
    axes.plot(mean.x, mean.y, **look, linewidth=2, label=text)
    axes.fill_between(mean.x, low.y, high.y, color=colour, alpha=0.2, linewidth=0)
    for run in line.runs:
        curve = thin(run.curves[RUNNING])
        axes.plot(curve.x, curve.y, **look, linewidth=0.6, alpha=0.7)
        if not run.run.done:
            axes.plot(curve.x[-1:], curve.y[-1:], marker="x", color=colour, markersize=9, markeredgewidth=2)
    if timing and timing.mean is not None:
        axes.plot([timing.mean] * 2, [0, target], color=colour, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        axes.plot([timing.mean], [target], marker="o", color=colour, markersize=7, zorder=5)


def _name_below(place: Any, handles: list[Any], names: list[str], inches: float, **how: Any) -> None:
    """Put a legend below axes, in as many columns as fit into a width in inches."""
    names = [wrap(name, inches - 0.8, 9) for name in names]
    longest = max(width(line, 9) for name in names for line in name.splitlines())
    columns = max(1, min(len(names), int(inches / (longest + 0.8))))
    place.legend(handles, names, frameon=False, fontsize=9, ncols=columns, handlelength=3, **how)


def draw_kernels(net: TrainedModel, path: Path | None = None) -> dict[str, float]:
    """Draw a net's first kernels, and measure how colourful each tower's are.

    Args:
        path: a .png or .svg file. None: kernels.png in the folder of the net's run.
    Returns:
        The result of `specialisation`, which the figure shows as well.
    Raises:
        ConfigError: no file is given for a net that is of no run, or the net has no conv1.
    """
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
    inches = max(5.0, 0.5 * sheets[0].shape[1] / (weights.shape[3] + GAP))
    height = sum(inches * len(each) / each.shape[1] + 0.6 for each in sheets) + 0.8
    with drawing([net.cfg.name], font__size=10):
        figure = Figure(figsize=(inches, height), dpi=150, layout="constrained")
        grid = figure.subplots(len(towers), 1, squeeze=False, height_ratios=[len(each) for each in sheets])[:, 0]
        for number, (axes, pixels) in enumerate(zip(grid, sheets, strict=True), 1):
            axes.imshow(pixels, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(f"tower {number}" if len(towers) > 1 else "conv1", fontsize=11)
            below = {"xycoords": "axes fraction", "xytext": (0, -4), "textcoords": "offset points"}
            axes.annotate(describe_tower(found, number), (0.5, 0), **below, ha="center", va="top", fontsize=9)
        title = f"{net.cfg.name}: the first {len(weights)} kernels"
        figure.suptitle(wrap(title, inches, 12), fontsize=12)
        if len(towers) > 1:
            figure.supxlabel(wrap(verdict(found, doubt(net)), inches, 9), fontsize=9, color=DARK_GREY)
        save(figure, path)
    return found
