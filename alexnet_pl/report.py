"""Report: a folder of runs as one picture, one page and one file of numbers.

    python -m alexnet_pl.report runs/figure1

Writes into the folder <its name>.png, report.html (one file, opens without a network) and report.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from html import escape
from math import ceil
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape as literal
from rich.table import Table

from alexnet_pl import curves, runs
from alexnet_pl.curves import METRICS, VALIDATION, Line, Panel, Report
from alexnet_pl.errors import UserError

PRIMARY = next(iter(METRICS))
# Names for readers; other keys and values stand for themselves.
NAMES = {"relu": "ReLU", "optim.lr": "learning rate", "cifar10": "CIFAR-10", "shapes": "generated shapes"}
# The paper's line styles; Okabe and Ito's colours, which colour-blind readers tell apart.
STYLES = {"relu": ("solid", "#0072B2"), "tanh": ("dash", "#D55E00"), "sigmoid": ("dot", "#007A5A")}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#A07800", "#000000")


def write(folder: Path) -> tuple[Report, list[Path]]:
    """Write picture, page and numbers into the folder; returns the report and the paths of picture and page.

    Raises:
        ConfigError: nothing to draw, or runs that must not be compared; nothing is written then.
    """
    folder = folder.resolve()
    report = curves.collect(folder)
    picture, html = folder / f"{folder.name}.png", folder / "report.html"
    draw(report, picture)
    runs.write(html, page(report))
    runs.write(folder / "report.json", json.dumps(curves.as_json(report), indent=1, allow_nan=False))
    return report, [picture, html]


# ------------------------------------------------------------------------------------------------ words


def label(panel: Panel, line: Line) -> str:
    """A line's name in legend and table: `ReLU, learning rate 0.002, 3 seeds (unfinished)`."""
    flat, tuned = line.runs[0].flat, line.runs[0].config["figure"]["tuned"]
    own = "" if panel.compare == "model.activation" else f"{NAMES.get(panel.compare, panel.compare)} "
    parts = [own + NAMES.get(line.name, line.name)]
    parts += [f"{NAMES.get(key, key)} {flat[key]}" for key in tuned if key != panel.compare]
    parts += [f"{len(line.runs)} seeds"] if len(line.runs) > 1 else []
    early = dict.fromkeys(run.run.status for run in line.runs if not run.run.done)
    return ", ".join(parts) + (f" ({', '.join(early)})" if early else "")


def style(panel: Panel, line: Line) -> tuple[str, str]:
    """Dash, in plotly's words, and colour of a line."""
    return STYLES.get(line.name, ("solid", COLOURS[panel.lines.index(line) % len(COLOURS)]))


def percent(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:.1f} %"


def finding(panel: Panel) -> str:
    """What a panel shows, in a sentence: `tanh needs 6.8 times as many epochs as ReLU (paper: 6)`; may be empty."""
    if best := panel.best:
        notes = ["edge of the grid"] if best in (panel.lines[0], panel.lines[-1]) else []
        notes += ["some unfinished"] if any(not run.run.done for line in panel.lines for run in line.runs) else []
        said = f" ({'; '.join(notes)})" if notes else ""
        return f"lowest: learning rate {best.name}, {percent(best.last_error)}{said}"
    ratio = panel.ratio(PRIMARY)
    if not ratio:
        return ""
    slow, fast = (NAMES.get(name, name) for name in (ratio.slow, ratio.fast))
    paper = f" (paper: {panel.paper_ratio})" if panel.paper_ratio else ""
    return f"{slow} needs {'more than ' * ratio.at_least}{ratio.value:.1f} times as many epochs as {fast}{paper}"


def small_print(report: Report) -> str:
    """Data, metric, seeds and commit of everything drawn."""
    configs = [run.config for run in report.drawn]
    data = ", ".join({NAMES.get(c["data"]["name"], c["data"]["name"]): 0 for c in configs})
    window = ", ".join({f"{c['window']:,}": 0 for c in configs})
    seeds = ", ".join(map(str, sorted({run.seed for run in report.drawn})))
    commits = ", ".join({curves.commit(run.run): 0 for run in report.drawn})
    band = "; thick: their mean, band: lowest to highest, thin: each seed" if "," in seeds else ""
    return (
        f"Data: {data}. Error on the training batches as they are trained, in windows of about {window} pictures. "
        f"Seeds: {seeds}{band}. Commit: {commits}."
    )


def table(report: Report) -> tuple[list[str], list[tuple[str, list[list[str]]]]]:
    """Column heads, and for each panel its title and rows; what follows a cell's line break is small print."""
    paper = any(line.name in panel.published for panel, line in report.lines)
    heads = ["", *METRICS, *["paper"] * paper, "epochs trained", "error over the last epoch"]
    sections = []
    for panel in report.panels:
        rows = []
        for line in panel.lines:
            cells = [f"{line.timing(m) or '-'}\nlowest error {percent(line.lowest(m))}" for m in METRICS]
            trained = " to ".join(dict.fromkeys(f"{of(run.epochs for run in line.runs):.4g}" for of in (min, max)))
            last = percent(line.last_error) + " (lowest)" * (line is panel.best)
            rows.append([label(panel, line), *cells, *[panel.published.get(line.name, "-")] * paper, trained, last])
        ratios = [panel.ratio(m) for m in METRICS]
        for first in list(filter(None, ratios))[:1]:
            name = " / ".join(NAMES.get(n, n) for n in (first.slow, first.fast))
            published = [panel.paper_ratio or "-"] * paper
            rows.append([f"ratio {name}", *(str(ratio or "-") for ratio in ratios), *published, "", ""])
        sections.append((f"{panel.title}: epochs to {100 * panel.target:g} % training error", rows))
    return heads, sections


# ------------------------------------------------------------------------------------------------ the picture


def top(report: Report) -> float:
    """Upper end of the error axis: 0.75 as in the paper, unless a line would be out of sight."""
    return 1.0 if any((line.lowest(PRIMARY) or 0) > 0.75 for _, line in report.lines) else 0.75


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
        beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(beside, format="png")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


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
        axes.annotate(said, (x, y), offset, textcoords="offset points", ha=side, color=colour, weight="bold")
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
            ncols=3,
            fontsize=9,
            title=title,
            title_fontsize=9,
        )
    else:
        axes.legend(frameon=False, loc="upper right", fontsize=9)


# ------------------------------------------------------------------------------------------------ the page


def page(report: Report) -> str:
    """The whole HTML page; every word that comes from a run is escaped."""
    heads, sections = table(report)
    results = [_row(heads, "th")]
    for title, rows in sections:
        results += [f'<tr class="panel"><th colspan="{len(heads)}">{escape(title)}</th></tr>', *map(_row, rows)]
    findings = "".join(
        f"<li>{escape(p.title)}: <b>{escape(said)}</b></li>" for p in report.panels if (said := finding(p))
    )
    lines = [
        [label(panel, line), panel.title, *(str(line.runs[0].flat.get(key)) for key in report.differing)]
        for panel, line in report.lines
    ]
    words = METRICS | {"validation": VALIDATION}
    name = escape(report.folder.name)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title><style>{STYLE}</style></head><body><main>
<h1>Learning curves: {name}</h1>
{_box(report)}
<p>How fast nets learn: the share of training pictures that a net still gets wrong, against epochs (passes over the
training set). What is timed is when it first falls to {100 * report.panels[0].target:g} %, the dashed line.</p>
<ul>{findings}</ul>
{_plot(report)}
<p class="small">{escape(small_print(report))} The menu chooses another error. Drag to zoom, double-click to see all,
click a name in the legend to hide its line.</p>
<h2>Epochs to the target</h2>
<div class="wide"><table>{"".join(results)}</table></div>
<p class="small">In epochs: the first time a curve is at or under the target, interpolated between its points. Over
several seeds: mean ± standard deviation. <b>&gt; 54.9</b>: not reached by epoch 54.9, where the curve ends. A ratio is
that of the means; its ± is over the seeds. <b>paper</b>: Krizhevsky, Sutskever and Hinton 2012; epochs are read off its
plot. <b>error over the last epoch</b>: the running error, mean over that epoch.</p>
<dl>{"".join(f"<dt>{word}</dt><dd>{escape(said)}.</dd>" for word, said in words.items())}</dl>
<h2>What differs between the runs</h2>
{_plain(["line", "panel", *report.differing], lines)}
{"".join(f"<p>{escape(note)}</p>" for note in report.notes)}
<h2>Runs</h2>
{_plain(RUN_HEADS, _runs(report))}
</main></body></html>
"""


def _row(cells: list[str], tag: str = "td") -> str:
    parts = [escape(cell).partition("\n") for cell in cells]
    return "<tr>" + "".join(f"<{tag}>{text}<small>{small}</small></{tag}>" for text, _, small in parts) + "</tr>"


def _plain(heads: list[str], rows: list[list[str]]) -> str:
    return f'<div class="wide"><table class="plain">{_row(heads, "th")}{"".join(map(_row, rows))}</table></div>'


RUN_HEADS = ["folder", "seed", "status", "epochs", *METRICS, "lowest validation error", "commit", "processor",
             "why it ended early"]  # fmt: skip


def _runs(report: Report) -> list[list[str]]:
    rows = []
    for panel, line in report.lines:
        for run in line.runs:
            alone = Line(line.name, [run], panel.target)
            crossings = [str(alone.timing(metric) or "-") for metric in METRICS]
            machine = str(run.run.identity.get("machine", {}).get("processor", "unknown"))
            facts = [percent(alone.lowest("validation")), curves.commit(run.run), machine, run.run.failure]
            rows.append([run.run.folder.name, str(run.seed), run.run.status, f"{run.epochs:.4g}", *crossings, *facts])
    blank = [""] * (len(RUN_HEADS) - 5)
    return rows + [[r.folder.name, "", r.status, "no metrics", *blank, r.failure] for r in report.absent]


def _box(report: Report) -> str:
    """The runs that failed, are missing or not finished, with the reason where one is known."""
    runs_ = [f"{run.folder.name}{': ' * bool(run.failure)}{run.failure}" for run in report.incomplete]
    said = [f"<li><b>{run.status}</b> {escape(text)}</li>" for run, text in zip(report.incomplete, runs_, strict=True)]
    head = f"Not complete: {len(said)} of {len(report.drawn) + len(report.absent)} runs, drawn as far as they went"
    return f'<div class="box">{head}:<ul>{"".join(said)}</ul></div>' if said else ""


def _plot(report: Report) -> str:
    """Plotly's figure, plotly.js included; a menu chooses the metric."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    columns = min(2, len(report.panels))
    rows = ceil(len(report.panels) / columns)
    titles = [escape(panel.title) for panel in report.panels]
    figure = make_subplots(rows, columns, subplot_titles=titles, vertical_spacing=0.3 / rows, horizontal_spacing=0.09)
    shown = []
    for i, panel in enumerate(report.panels):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        legend = f"legend{i + 1}" if i else "legend"
        for line in panel.lines:
            for metric in (*METRICS, "validation"):
                traces = _traces(panel, line, metric)
                for trace in traces:
                    trace |= {"visible": metric == PRIMARY, "legendgroup": line.name, "legend": legend}
                    figure.add_trace(go.Scatter(trace), **place)
                shown += [metric] * len(traces)
        figure.add_hline(panel.target, line={"dash": "dash", "color": "#555", "width": 1}, **place)
        corner = next(figure.select_xaxes(**place)).domain[1], next(figure.select_yaxes(**place)).domain[1]
        spot = {"x": corner[0], "y": corner[1], "xanchor": "right", "yanchor": "top", "bgcolor": "rgba(255,255,255,.7)"}
        figure.update_layout({legend: spot})
    buttons = [
        {"label": f"{metric} error", "method": "update", "args": [{"visible": [metric == of for of in shown]}]}
        for metric in (*METRICS, "validation")
    ]
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 40}}
    figure.update_xaxes(title="epochs", rangemode="tozero", matches="x", showticklabels=True)
    figure.update_yaxes(range=[0, top(report)], tickformat=".0%", matches="y", showticklabels=True)
    figure.update_yaxes(title="error rate", col=1)
    figure.update_layout(
        updatemenus=[menu],
        template="plotly_white",
        height=100 + 400 * rows,
        margin={"t": 110, "l": 60, "r": 10, "b": 50},
    )
    return str(figure.to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False}))


def _traces(panel: Panel, line: Line, metric: str) -> list[dict[str, Any]]:
    """Mean, crossing, band and seeds of a line, as plotly's traces."""
    dash, colour = style(panel, line)
    name, hover = escape(label(panel, line)), "epoch %{x:.2f}: %{y:.1%}"
    mean, low, high = line.mean(metric)
    ink = {"dash": dash, "color": colour}
    traces: list[dict[str, Any]] = [{"x": mean.x, "y": mean.y, "name": name, "hovertemplate": hover, "line": ink}]
    quiet = {"showlegend": False, "mode": "lines"}
    if len(line.runs) > 1:
        fill = f"rgba{(*bytes.fromhex(colour[1:]), 0.15)}"
        band = {"line": {"width": 0}, "hoverinfo": "skip", **quiet}
        traces.append({"x": low.x, "y": low.y, **band})
        traces.append({"x": high.x, "y": high.y, "fill": "tonexty", "fillcolor": fill, **band})
        for run in line.runs:
            own, thin = run.curves[metric], {**ink, "width": 1}
            seed = f"{name}, seed {run.seed}"
            traces.append({"x": own.x, "y": own.y, "name": seed, "hovertemplate": hover, "line": thin, **quiet})
    timing = line.timing(metric) if metric in METRICS else None
    if timing and timing.mean is not None:
        side = "bottom left" if line is panel.lines[0] else "top right"
        point = {"x": [timing.mean], "y": [panel.target], "text": [f"{timing.mean:.1f}"], "textposition": side}
        said = f"{percent(panel.target)} after {timing} epochs"
        look = {"marker": {"color": colour, "size": 9}, "mode": "markers+text", "showlegend": False}
        traces.append(point | look | {"name": name, "hovertemplate": said})
    return traces


STYLE = """
body { margin: 0; background: #fff; color: #1b1b1b; font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1000px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #ddd }
tr.panel th { background: #f2f5f8; padding-top: .6rem }
table.plain { font-size: .8rem } td:first-child { overflow-wrap: anywhere; min-width: 11rem }
small { display: block; color: #555; white-space: nowrap } .small { color: #555; font-size: .88rem }
.wide { overflow-x: auto } dt { font-weight: 600 } dd { margin: 0 0 .5rem 1.2rem }
.box { background: #fff3e0; border-left: 5px solid #d55e00; padding: .7rem 1rem; overflow-wrap: anywhere }
"""


# ------------------------------------------------------------------------------------------------ the command


def show(report: Report, console: Console) -> None:
    """Print the table, the metrics' definitions, what is not complete, and the notes."""
    heads, sections = table(report)
    for title, rows in sections:
        shown = Table(*heads, title=literal(title), title_justify="left", box=SIMPLE)
        for row in rows:
            shown.add_row(*(literal(cell.partition("\n")[0]) for cell in row))
        console.print(shown)
    for panel in report.panels:
        if said := finding(panel):
            console.print(f"{panel.title}: {said}", markup=False)
    for metric, said in METRICS.items():
        console.print(f"{metric}: {said}", markup=False)
    for run in report.incomplete:
        console.print(f"{run.status}: {run.folder.name}{': ' * bool(run.failure)}{run.failure}", markup=False)
    for note in report.notes:
        console.print(note, markup=False)


def main() -> None:
    """The command. Exit code 0: written; 1: a mistake, told in one sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.report",
        description="Draw the runs of a folder: writes <folder's name>.png, report.html and report.json into it and "
        "prints when each line reaches the target error. Runs that must not be compared are refused by name.",
    )
    parser.add_argument("folder", type=Path, help="a run, or a folder of runs such as runs/figure1")
    try:
        report, paths = write(parser.parse_args().folder)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    show(report, Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120))
    for path in paths:
        print(path)


if __name__ == "__main__":
    main()
