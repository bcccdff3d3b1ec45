"""The page's plot: curves to zoom into, with plotly; plotly.js is in the page, which loads nothing."""

from __future__ import annotations

from html import escape
from math import ceil
from typing import Any

from alexnet_pl.report.compare import Panel, Report
from alexnet_pl.report.curves import EVALUATED, METRICS, Line, thin
from alexnet_pl.report.tables import PRIMARY, label, limits, percent, style, top


def plot(report: Report) -> str:
    """The plot as a piece of HTML. A menu chooses the metric; where nothing is timed, one for each side."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    lines = [line for _, line in report.lines]
    known = [m for m in (*METRICS, *EVALUATED) if any(run.curves[m].x for line in lines for run in line.runs)]
    training, evaluated = [m for m in known if m in METRICS], [m for m in known if m in EVALUATED]
    timed = all(panel.target is not None for panel in report.panels)
    menus = [known] if timed or not evaluated else [training, evaluated]
    cells = [(panel, menu) for panel in report.panels for menu in menus]
    columns = min(2, len(cells)) if timed else len(menus)
    rows = ceil(len(cells) / columns)
    names = 0 if timed else 40 + 20 * max(len(panel.lines) for panel in report.panels)  # pixels below a row's axes
    area = 400 * rows - 60 if timed else 400 * rows + (100 + names) * (rows - 1)
    gap = 0.3 / rows if timed else (100 + names) / area
    titles = [escape(panel.title) if menu is menus[0] else "" for panel, menu in cells]
    figure = make_subplots(rows, columns, subplot_titles=titles, vertical_spacing=gap, horizontal_spacing=0.09)
    shown: list[list[str]] = []  # of each trace its menu and its metric
    for i, (panel, menu) in enumerate(cells):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        number = i // len(menus) + 1  # a legend for each panel
        legend = f"legend{number}" if number > 1 else "legend"
        for line in panel.lines:
            group = {"legendgroup": f"{panel.title}: {line.name}", "legend": legend}
            for metric in menu:
                for trace in _traces(panel, line, metric):
                    trace |= {"visible": metric == menu[0], **group}
                    if menu is not menus[0]:  # one name hides a line on both sides
                        trace["showlegend"] = False
                    figure.add_trace(go.Scatter(trace), **place)
                    shown.append([menu[0], metric])
        if panel.target is not None and menu is menus[0]:
            figure.add_hline(panel.target, line={"dash": "dash", "color": "#555", "width": 1}, **place)
        across, up = (next(select(**place)) for select in (figure.select_xaxes, figure.select_yaxes))
        if timed:
            corner = {"x": across.domain[1], "y": up.domain[1], "xanchor": "right", "bgcolor": "rgba(255,255,255,.7)"}
        else:
            corner = {"x": 0, "y": up.domain[0] - 50 / area}
            up.update(range=limits(panel, (PRIMARY, "validation")), title=f"{_side(menu)} error rate")
        figure.update_layout({legend: {**corner, "yanchor": "top"}})
    figure.update_xaxes(title="epochs", rangemode="tozero", matches="x", showticklabels=True)
    figure.update_yaxes(tickformat=".0%", showticklabels=True)
    if timed:
        figure.update_yaxes(range=[0, top(report)], matches="y")
        figure.update_yaxes(title="error rate", col=1)
    figure.update_layout(
        updatemenus=[_menu(menu, shown, 0.545 * k) for k, menu in enumerate(menus) if len(menu) > 1],
        template="plotly_white",
        height=area + 160 + names,
        margin={"t": 110, "l": 60, "r": 10, "b": 50 + names},
    )
    return str(figure.to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False}))


def _side(menu: list[str]) -> str:
    return "training" if menu[0] in METRICS else "validation"


def _menu(menu: list[str], shown: list[list[str]], x: float) -> dict[str, Any]:
    """A button for each metric; it changes what is visible of the menu's own traces."""
    own = [i for i, (of, _) in enumerate(shown) if of == menu[0]]
    buttons = [
        {
            "label": f"{metric} error",
            "method": "update",
            "args": [{"visible": [metric == shown[i][1] for i in own]}, {}, own],
        }
        for metric in menu
    ]
    return {"buttons": buttons, "x": x, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 40}}


def _traces(panel: Panel, line: Line, metric: str) -> list[dict[str, Any]]:
    """Mean, crossing, band and seeds of a line, as plotly's traces."""
    dash, colour = style(panel, line)
    name, hover = escape(label(panel, line)), "epoch %{x:.2f}: %{y:.1%}"
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
        side = "bottom left" if line is panel.lines[0] else "top right"
        point = {"x": [timing.mean], "y": [panel.target], "text": [f"{timing.mean:.1f}"], "textposition": side}
        said = f"{percent(panel.target)} after {timing} epochs"
        look = {"marker": {"color": colour, "size": 9}, "mode": "markers+text", "showlegend": False}
        traces.append(point | look | {"name": name, "hovertemplate": said})
    return traces
