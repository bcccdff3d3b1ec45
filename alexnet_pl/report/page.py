"""Make the report's page: one self-contained HTML file with a plot to zoom into, tables, differences, and failures.

The plot is plotly's. The page contains plotly.js and loads nothing.
"""

from __future__ import annotations

import textwrap
from html import escape
from typing import Any

from alexnet_pl.report.compare import Panel, Report, commit
from alexnet_pl.report.curves import EVALUATED, METRICS, MOST_POINTS, RUNNING, Line, thin
from alexnet_pl.report.html_parts import make_page, make_report_table, make_row, make_table
from alexnet_pl.report.style import GREY, line_style
from alexnet_pl.report.tables import axis_limits, axis_top, finding, format_percent, label, report_tables, small_print

LINE = 70
"""Most letters in a line of a title, or of a name below the plot"""


def report_page(report: Report) -> str:
    """Return the whole HTML page. Every text from a run is escaped."""
    findings = "".join(
        f"<li>{escape(p.title)}: <b>{escape(text)}</b></li>" for p in report.panels if (text := finding(p))
    )
    lines = [
        make_row([label(panel, line), panel.title, *(line.runs[0].value(key) for key in report.differing_keys)])
        for panel, line in report.lines
    ]
    timed = [panel.target for panel in report.panels if panel.target is not None]
    measured = [metric for metric in EVALUATED if any(run.curves[metric].x for run in report.runs)]
    words = METRICS | {metric: EVALUATED[metric] for metric in measured}
    longest = max(len(curve.x) for run in report.runs for curve in run.curves.values())
    thinned = f" A curve of more than {MOST_POINTS} points is drawn as means over stretches of it."
    drawn, menus = plot(report)
    menu = " The menu chooses another error." if menus else ""
    return make_page(
        f"Learning curves: {report.folder.name}",
        f"""{_box(report)}
{_intro(timed[0] if timed else None, both=len(timed) < len(report.panels))}
{f"<ul>{findings}</ul>" if findings else ""}
{drawn}
<p class="small">{escape(small_print(report))}{menu} Drag to zoom, double-click to see all,
click a name in the legend to hide its line.{thinned if longest > MOST_POINTS else ""}</p>
{"".join(map(make_report_table, report_tables(report)))}
<dl>{"".join(f"<dt>{word}</dt><dd>{escape(text)}.</dd>" for word, text in words.items())}</dl>
<h2>What differs between the runs</h2>
{make_table(["line", "panel", *report.differing_keys], lines, "plain")}
{"".join(f"<p>{escape(note)}</p>" for note in report.notes)}
<h2>Runs</h2>
{_runs(report)}""",
    )


def _box(report: Report) -> str:
    """Return the runs that failed, are missing or not finished, with the reason if it is known."""
    if not report.incomplete:
        return ""
    items = ""
    for run in report.incomplete:
        reason = f": {run.failure}" if run.failure else ""
        items += f"<li><b>{run.status}</b> {escape(run.folder.name + reason)}</li>"
    total = len(report.runs) + len(report.absent)
    head = f"Not complete: {len(report.incomplete)} of {total} runs, drawn as far as they went"
    return f'<div class="box">{head}:<ul>{items}</ul></div>'


def _intro(target: float | None, both: bool) -> str:
    text = "How fast nets learn: the share of training images that a net still gets wrong"
    if both:
        text = "The share of images that a net gets wrong, of those it trains on (left) and of others (right)"
    text += ", against epochs (passes over the training set)."
    if target is not None:
        text += f" What is timed is when it first falls to {100 * target:g} %, the dashed line."
    return f"<p>{text}</p>"


def _runs(report: Report) -> str:
    """Return a table with a row for each run, with the epochs to the target if there is one."""
    metrics = METRICS if any(panel.target is not None for panel in report.panels) else ()
    heads = ["folder", "seed", "status", "epochs", *metrics]
    heads += ["lowest validation error", "commit", "CPU", "why it ended early"]
    rows = []
    for panel, line in report.lines:
        for run in line.runs:
            alone = Line(line.name, [run], panel.target)
            crossings = [str(alone.timing(metric) or "-") for metric in metrics]
            machine = str(run.run.identity.get("machine", {}).get("CPU", "unknown"))
            facts = [format_percent(alone.lowest("validation")), commit(run.run), machine, run.run.failure]
            rows.append([run.run.folder.name, str(run.seed), run.run.status, f"{run.epochs:.4g}", *crossings, *facts])
    blank = [""] * (len(heads) - 5)
    rows += [[run.folder.name, "", run.status, "no metrics", *blank, run.failure] for run in report.absent]
    return make_table(heads, [make_row(row) for row in rows], "plain")


# ------------------------------------------------------------------------------------------------ the plot


def plot(report: Report) -> tuple[str, bool]:
    """Return the plot as a piece of HTML, and whether it has a menu that chooses the error.

    If nothing is timed, training is on the left and validation on the right.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    lines = [line for _, line in report.lines]
    known = [m for m in (*METRICS, *EVALUATED) if any(run.curves[m].x for line in lines for run in line.runs)]
    training, evaluated = [m for m in known if m in METRICS], [m for m in known if m in EVALUATED]
    training.sort(key=lambda metric: metric != RUNNING)  # shown first where nothing is timed
    timed = all(panel.target is not None for panel in report.panels)
    menus = [known] if timed or not evaluated else [training, evaluated]
    cells = [(panel, menu) for panel in report.panels for menu in menus]
    columns, rows = len(menus), len(report.panels)
    texts = [[_wrapped(label(panel, line)) for line in panel.lines] for panel in report.panels]
    names = 40 + 20 * max(sum(text.count("<br>") + 1 for text in of) for of in texts)  # pixels below a row's axes
    area = 400 * rows + (100 + names) * (rows - 1)
    titles = [_wrapped(panel.title) if menu is menus[0] else "" for panel, menu in cells]
    gap = (100 + names) / area
    figure = make_subplots(rows, columns, subplot_titles=titles, vertical_spacing=gap, horizontal_spacing=0.09)
    drawn: list[tuple[str, str]] = []  # of each trace its menu and its metric
    for i, (panel, menu) in enumerate(cells):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        number = i // len(menus) + 1  # a legend for each panel
        legend = f"legend{number}" if number > 1 else "legend"
        for metric, trace in _cell_traces(panel, menu, legend, first=menu is menus[0]):
            figure.add_trace(go.Scatter(trace), **place)
            drawn.append((menu[0], metric))
        if panel.target is not None and menu is menus[0]:
            figure.add_hline(panel.target, line={"dash": "dash", "color": GREY, "width": 1}, **place)
        across, up = (next(select(**place)) for select in (figure.select_xaxes, figure.select_yaxes))
        if menu is menus[0]:  # below the axes, where it covers no curve
            figure.update_layout({legend: {"x": across.domain[0], "y": up.domain[0] - 50 / area, "yanchor": "top"}})
        side = "training" if menu[0] in METRICS else "validation"
        limits = (0, axis_top(report)) if timed else axis_limits(panel, (RUNNING, "validation"))
        up.update(range=limits, title="error rate" if timed else f"{side} error rate")
    figure.update_xaxes(title="epochs", rangemode="tozero", matches="x", showticklabels=True)
    figure.update_yaxes(tickformat=".0%", showticklabels=True)
    if timed:
        figure.update_yaxes(matches="y")
    choices = [_menu(menu, drawn, 0.545 * k) for k, menu in enumerate(menus) if len(menu) > 1]
    figure.update_layout(
        updatemenus=choices,
        template="plotly_white",
        height=area + 160 + names,
        margin={"t": 110, "l": 60, "r": 10, "b": 50 + names},
    )
    return str(figure.to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False})), bool(choices)


def _cell_traces(panel: Panel, menu: list[str], legend: str, first: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return metric and trace of everything that one cell of the plot can show. The menu's first metric is visible.

    Args:
        first: whether this is the panel's first cell, which has the names. A click on a name hides its line in all.
    """
    traces = []
    for line in panel.lines:
        for metric in menu:
            for trace in _traces(panel, line, metric):
                trace |= {"visible": metric == menu[0], "legendgroup": f"{panel.title}: {line.name}", "legend": legend}
                if not first:
                    trace["showlegend"] = False
                traces.append((metric, trace))
    return traces


def _wrapped(text: str) -> str:
    """Return a text for plotly, which breaks no lines and cuts wide texts."""
    return "<br>".join(map(escape, textwrap.wrap(text, LINE)))


def _menu(menu: list[str], drawn: list[tuple[str, str]], x: float) -> dict[str, Any]:
    """Return a button for each metric, which makes the menu's traces of this metric visible."""
    own = [i for i, (of, _) in enumerate(drawn) if of == menu[0]]
    buttons = [
        {
            "label": f"{metric} error",
            "method": "update",
            "args": [{"visible": [metric == drawn[i][1] for i in own]}, {}, own],
        }
        for metric in menu
    ]
    return {"buttons": buttons, "x": x, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 40}}


def _traces(panel: Panel, line: Line, metric: str) -> list[dict[str, Any]]:
    """Return mean, crossing, band and seeds of a line, as plotly's traces."""
    dash, colour = line_style(panel, line)
    name, hover = _wrapped(label(panel, line)), "epoch %{x:.2f}: %{y:.1%}"
    mean, low, high = map(thin, line.mean(metric))
    ink = {"dash": dash, "color": colour}
    main = {"x": mean.x, "y": mean.y, "name": name, "hovertemplate": hover, "line": ink, "mode": "lines"}
    traces: list[dict[str, Any]] = [main]
    quiet = {"showlegend": False, "mode": "lines"}
    if len(line.runs) > 1:
        fill = f"rgba{(*bytes.fromhex(colour[1:]), 0.15)}"
        band = {"line": {"width": 0}, "hoverinfo": "skip", **quiet}
        traces.append({"x": low.x, "y": low.y, **band})
        traces.append({"x": high.x, "y": high.y, "fill": "tonexty", "fillcolor": fill, **band})
        for run in line.runs if panel.target is not None else []:
            own, fine = thin(run.curves[metric]), {**ink, "width": 1}
            seed = f"{name}, seed {run.seed}"
            traces.append({"x": own.x, "y": own.y, "name": seed, "hovertemplate": hover, "line": fine, **quiet})
    timing = line.timing(metric) if metric in METRICS else None
    if timing and timing.mean is not None:
        point = {"x": [timing.mean], "y": [panel.target]}
        reached = f"{format_percent(panel.target)} after {timing} epochs"
        look = {"marker": {"color": colour, "size": 9}, "mode": "markers", "showlegend": False}
        traces.append(point | look | {"name": name, "hovertemplate": reached})
    return traces
