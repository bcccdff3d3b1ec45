"""The figure: what is timed as in the paper's Figure 1 (solid ReLU, dashed tanh), all else as learning curves."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

from alexnet_pl.files import beside
from alexnet_pl.report.compare import Panel, Report
from alexnet_pl.report.curves import thin
from alexnet_pl.report.tables import PRIMARY, finding, label, limits, percent, small_print, style, top

DASHES = {"dash": "dashed", "dot": "dotted"}
"""matplotlib's words for plotly's."""


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
            grid[0].set(xlim=(0, None), ylim=(0, top(report)), yticks=[0, 0.25, 0.5, 0.75])
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
                    axes.set(xlim=(0, None), ylim=(0, top(report)))
        figure.supxlabel(small_print(report), fontsize=8, color="#444444", wrap=True)
        for path in paths:
            with beside(path) as part:
                kind = path.suffix[1:]
                figure.savefig(part, format=kind, metadata={"Date": None} if kind == "svg" else None)


def draw_curves(strip: Any, panel: Panel) -> None:
    """Learning curves: training error on the left, validation error on the right, on one scale; the names below."""
    left, right = strip.subplots(1, 2, sharex=True, sharey=True)
    for axes, metric, said in ((left, PRIMARY, "training error rate"), (right, "validation", "validation error rate")):
        for line in panel.lines:
            dash, colour = style(panel, line)
            mean, low, high = map(thin, line.mean(metric))
            axes.plot(
                mean.x, mean.y, linestyle=DASHES.get(dash, dash), color=colour, linewidth=1.8, label=label(panel, line)
            )
            axes.fill_between(mean.x, low.y, high.y, color=colour, alpha=0.15, linewidth=0)
            for run in line.runs:
                if not run.run.done:
                    end = run.curves[metric]
                    axes.plot(end.x[-1:], end.y[-1:], marker="x", color=colour, markersize=9, markeredgewidth=2)
        if not any(line.mean(metric)[0].x for line in panel.lines):
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="#555555")
        axes.set(xlabel="epochs (passes over the training set)", ylabel=said)
        axes.tick_params(labelleft=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
    left.set(xlim=(0, None), ylim=limits(panel, (PRIMARY, "validation")))
    strip.suptitle(panel.title, fontsize=12)
    handles, names = left.get_legend_handles_labels()
    columns = max(1, min(len(names), 150 // (max(map(len, names)) + 6)))
    strip.legend(handles, names, loc="outside lower center", frameon=False, fontsize=9, ncols=columns, handlelength=3)


def draw_panel(axes: Any, panel: Panel) -> None:
    search, target = panel.compare == ["optim.lr"], panel.target
    assert target is not None
    crossings = []
    for line in panel.lines:
        dash, colour = style(panel, line)
        look: dict[str, Any] = {"linestyle": DASHES.get(dash, dash), "color": colour}
        mean, low, high = map(thin, line.mean(PRIMARY))
        name = f"{line.runs[0].value('optim.lr')}: {percent(line.last_error)}" if search else label(panel, line)
        axes.plot(mean.x, mean.y, **look, linewidth=2, label=name)
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
    # The first label stands below its curve, the others above theirs: there they have room.
    for i, (x, y, said, colour) in enumerate(sorted(crossings)):
        offset, side = ((-10, -26), "left") if i == 0 else ((4, 8), "left") if y == target else ((0, 18), "right")
        box = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
        look = {"ha": side, "color": colour, "weight": "bold", "bbox": box, "zorder": 6}
        axes.annotate(said, (x, y), offset, textcoords="offset points", **look)
    axes.axhline(target, color="#555555", linewidth=1, linestyle=(0, (6, 4)), zorder=0)
    place = {"transform": axes.get_yaxis_transform(), "va": "top"}
    said = f"{100 * target:g} % error"
    axes.text(0.02 if search else 0.45, target - 0.01, said, color="#555555", fontsize=9, **place)
    axes.text(
        0.99, 0.03, finding(panel), transform=axes.transAxes, ha="right", weight="bold", fontsize=9 if search else 10
    )
    axes.set_title(panel.title, fontsize=12)
    axes.set(xlabel="epochs (passes over the training set)", ylabel="training error rate")
    axes.tick_params(labelbottom=True, labelleft=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.spines[["top", "right"]].set_visible(False)
    if search:  # the curves of bad rates stay high: the room is below
        title = "learning rate: error over the last epoch"
        axes.legend(
            frameon=False,
            loc="lower right",
            bbox_to_anchor=(1, 0.07),
            ncols=4,
            fontsize=8,
            title=title,
            title_fontsize=9,
        )
    else:
        axes.legend(frameon=False, loc="upper right", fontsize=9)
