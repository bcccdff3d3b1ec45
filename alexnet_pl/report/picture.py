"""The picture: one axes per panel, lines as in the paper's Figure 1 (solid ReLU, dashed tanh), all on one scale."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

from alexnet_pl.files import beside
from alexnet_pl.report.compare import Panel, Report
from alexnet_pl.report.tables import PRIMARY, finding, label, percent, small_print, style, top


def draw(report: Report, path: Path) -> None:
    """Write the PNG: one axes per panel, all on the same scales."""
    import matplotlib
    from matplotlib.figure import Figure

    n = len(report.panels)
    columns = n if n < 4 else 2 if n == 4 else 3
    rows = ceil(n / columns)
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 11}):  # a $ in a title is a $
        figure = Figure(figsize=(max(8.0, 6.2 * columns), 4.6 * rows + 0.3), dpi=150, layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
        for axes, panel in zip(grid, report.panels, strict=False):
            draw_panel(axes, panel)
        for axes in grid[n:]:
            axes.remove()
        grid[0].set(xlim=(0, None), ylim=(0, top(report)), yticks=[0, 0.25, 0.5, 0.75])
        figure.supxlabel(small_print(report), fontsize=8, color="#444444", wrap=True)
        with beside(path) as part:
            figure.savefig(part, format="png")


def draw_panel(axes: Any, panel: Panel) -> None:
    search = panel.compare == "optim.lr"
    crossings = []
    for line in panel.lines:
        dash, colour = style(panel, line)
        look: dict[str, Any] = {"linestyle": {"dash": "dashed", "dot": "dotted"}.get(dash, dash), "color": colour}
        mean, low, high = line.mean(PRIMARY)
        name = f"{line.name}: {percent(line.last_error)}" if search else label(panel, line)
        axes.plot(mean.x, mean.y, **look, linewidth=2, label=name)
        axes.fill_between(mean.x, low.y, high.y, color=colour, alpha=0.2, linewidth=0)
        for run in line.runs:
            curve = run.curves[PRIMARY]
            if len(line.runs) > 1:
                axes.plot(curve.x, curve.y, **look, linewidth=0.6, alpha=0.7)
            if not run.run.done:
                axes.plot(curve.x[-1:], curve.y[-1:], marker="x", color=colour, markersize=9, markeredgewidth=2)
        timing = line.timing(PRIMARY)
        if timing and timing.mean is not None:
            crossings.append((timing.mean, panel.target, f"{timing.mean:.1f} epochs", colour))
            axes.plot([timing.mean], [panel.target], marker="o", color=colour, markersize=7, zorder=5)
        elif timing and mean.x and not search:
            crossings.append((mean.x[-1], mean.y[-1], f"> {timing.beyond:.1f} epochs", colour))
    # The first label stands below its curve, the others above theirs: there they have room.
    for i, (x, y, said, colour) in enumerate(sorted(crossings)):
        offset, side = ((-10, -26), "left") if i == 0 else ((4, 8), "left") if y == panel.target else ((0, 18), "right")
        box = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
        look = {"ha": side, "color": colour, "weight": "bold", "bbox": box, "zorder": 6}
        axes.annotate(said, (x, y), offset, textcoords="offset points", **look)
    axes.axhline(panel.target, color="#555555", linewidth=1, linestyle=(0, (6, 4)), zorder=0)
    place = {"transform": axes.get_yaxis_transform(), "va": "top"}
    said = f"{100 * panel.target:g} % error"
    axes.text(0.02 if search else 0.45, panel.target - 0.01, said, color="#555555", fontsize=9, **place)
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
