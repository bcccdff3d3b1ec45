"""Draw the report's figures, with matplotlib.

What is timed is drawn as in the paper's Figure 1 (solid ReLU, dashed tanh), all else as learning curves; and the first
kernels of a net as in Figure 3.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_pl.errors import ConfigError
from alexnet_pl.files import atomic_path
from alexnet_pl.report.compare import Panel, Report
from alexnet_pl.report.curves import thin
from alexnet_pl.report.kernels import GAP, sheet, specialisation, verdict
from alexnet_pl.report.style import DARK_GREY, GREY, line_style
from alexnet_pl.report.tables import PRIMARY, axis_limits, axis_top, finding, format_percent, label, small_print

if TYPE_CHECKING:
    from alexnet_pl.runs.trained import TrainedModel

DASHES = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "dashdot"}
"""matplotlib's words for plotly's."""
EPOCHS = "epochs (passes over the training set)"

Crossing = tuple[float, float, str, str]
"""Where a curve crosses the target or ends, the text there, and its colour"""


def draw(report: Report, *paths: Path) -> None:
    """Write the figure to each path, as its suffix says (.png, .svg).

    Panels with a target: an axes each, all on the same scales. Panels without: training and validation side by side.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # A $ in a title is a $; a figure drawn again is the same file.
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 11, "svg.hashsalt": "alexnet_pl"}):
        n, timed = len(report.panels), all(panel.target is not None for panel in report.panels)
        columns = 1 if not timed else n if n < 4 else 2 if n == 4 else 3
        rows = ceil(n / columns)
        height = 4.6 * rows + 0.3 + (0 if timed else sum(0.21 * len(panel.lines) for panel in report.panels))
        figure = Figure(figsize=(max(8.0, 6.2 * (columns if timed else 2)), height), dpi=150, layout="constrained")
        if timed:
            grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
            for axes, panel in zip(grid, report.panels, strict=False):
                draw_panel(axes, panel)
            for axes in grid[n:]:
                axes.remove()
            grid[0].set(xlim=(0, None), ylim=(0, axis_top(report)), yticks=[0, 0.25, 0.5, 0.75])
        else:
            strips = figure.subfigures(
                n, 1, squeeze=False, height_ratios=[4.6 + 0.21 * len(p.lines) for p in report.panels]
            )
            for strip, panel in zip(strips.flat, report.panels, strict=True):
                if panel.target is None:
                    draw_curves(strip, panel)
                else:
                    axes = strip.subplots()
                    draw_panel(axes, panel)
                    axes.set(xlim=(0, None), ylim=(0, axis_top(report)))
        figure.supxlabel(small_print(report), fontsize=8, color=DARK_GREY, wrap=True)
        for path in paths:
            with atomic_path(path) as part:
                kind = path.suffix[1:]
                figure.savefig(part, format=kind, metadata={"Date": None} if kind == "svg" else None)


def draw_curves(strip: Any, panel: Panel) -> None:
    """Draw learning curves: training error on the left, validation error on the right, on one scale; names below."""
    left, right = strip.subplots(1, 2, sharex=True, sharey=True)
    for axes, metric, title in ((left, PRIMARY, "training error rate"), (right, "validation", "validation error rate")):
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
    left.set(xlim=(0, None), ylim=axis_limits(panel, (PRIMARY, "validation")))
    strip.suptitle(panel.title, fontsize=12)
    handles, names = left.get_legend_handles_labels()
    columns = max(1, min(len(names), 150 // (max(map(len, names)) + 6)))
    strip.legend(handles, names, loc="outside lower center", frameon=False, fontsize=9, ncols=columns, handlelength=3)


def draw_panel(axes: Any, panel: Panel) -> None:
    """Draw training errors against epochs, where each falls to the target, and what the panel shows."""
    search, target = panel.compare == ["optim.lr"], panel.target
    assert target is not None
    _annotate(axes, _draw_lines(axes, panel, target, search), target)
    axes.axhline(target, color=GREY, linewidth=1, linestyle=(0, (6, 4)), zorder=0)
    place = {"transform": axes.get_yaxis_transform(), "va": "top"}
    text = f"{100 * target:g} % error"
    axes.text(0.02 if search else 0.45, target - 0.01, text, color=GREY, fontsize=9, **place)
    axes.text(
        0.99, 0.03, finding(panel), transform=axes.transAxes, ha="right", weight="bold", fontsize=9 if search else 10
    )
    axes.set_title(panel.title, fontsize=12)
    axes.set(xlabel=EPOCHS, ylabel="training error rate")
    axes.tick_params(labelbottom=True, labelleft=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.spines[["top", "right"]].set_visible(False)
    if search:  # the curves of bad rates stay high: the room is below
        title = "learning rate: error over the last epoch"
        place = {"loc": "lower right", "bbox_to_anchor": (1, 0.07), "ncols": 4}
        axes.legend(frameon=False, fontsize=8, title=title, title_fontsize=9, **place)
    else:
        axes.legend(frameon=False, loc="upper right", fontsize=9)


def _draw_lines(axes: Any, panel: Panel, target: float, search: bool) -> list[Crossing]:
    """Draw a panel's lines: mean, band and seeds; return where they cross the target, or end above it."""
    crossings = []
    for line in panel.lines:
        dash, colour = line_style(panel, line)
        look: dict[str, Any] = {"linestyle": DASHES[dash], "color": colour}
        mean, low, high = map(thin, line.mean(PRIMARY))
        rate = f"{line.runs[0].value('optim.lr')}: {format_percent(line.last_error)}"
        axes.plot(mean.x, mean.y, **look, linewidth=2, label=rate if search else label(panel, line))
        axes.fill_between(mean.x, low.y, high.y, color=colour, alpha=0.2, linewidth=0)
        for run in line.runs:
            curve = thin(run.curves[PRIMARY])
            if len(line.runs) > 1:
                axes.plot(curve.x, curve.y, **look, linewidth=0.6, alpha=0.7)
            if not run.run.done:
                axes.plot(curve.x[-1:], curve.y[-1:], marker="x", color=colour, markersize=9, markeredgewidth=2)
        timing = line.timing(PRIMARY)
        if timing and timing.mean is not None:
            crossings.append((timing.mean, target, f"{timing.mean:.1f} epochs", colour))
            axes.plot([timing.mean], [target], marker="o", color=colour, markersize=7, zorder=5)
        elif timing and mean.x and not search:
            crossings.append((mean.x[-1], mean.y[-1], f"> {timing.beyond:.1f} epochs", colour))
    return crossings


def _annotate(axes: Any, crossings: list[Crossing], target: float) -> None:
    """Write the epochs beside the crossings: the first below its curve, the others above, where there is room."""
    for i, (x, y, text, colour) in enumerate(sorted(crossings)):
        offset, side = ((-10, -26), "left") if i == 0 else ((4, 8), "left") if y == target else ((0, 18), "right")
        box = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
        look = {"ha": side, "color": colour, "weight": "bold", "bbox": box, "zorder": 6}
        axes.annotate(text, (x, y), offset, textcoords="offset points", **look)


def draw_kernels(net: TrainedModel, path: Path | None = None) -> dict[str, float]:
    """Draw a net's first kernels, and measure how colourful each tower's are.

    Args:
        path: a .png or .svg file. None: kernels.png in the folder of the net's run.
    Returns:
        As `specialisation`, which is printed under the figure as well.
    Raises:
        ConfigError: no file is given, and the net is of no run; or the net has no conv1.
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
            text = f"colourfulness {found[f'tower{number}']:.2f} ± {found[f'tower{number}_spread']:.2f}"
            axes.text(0.5, -0.02, text, transform=axes.transAxes, ha="center", va="top", fontsize=9)
        figure.suptitle(f"{net.cfg.name}: the first {len(weights)} kernels", fontsize=12)
        if text := verdict(found):
            figure.supxlabel(text, fontsize=9, color=DARK_GREY)
        with atomic_path(path) as part:
            figure.savefig(part, format=path.suffix.lstrip(".").lower() or "png")
    return found
