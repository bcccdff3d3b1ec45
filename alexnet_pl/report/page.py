"""The page: one self-contained HTML file with zoomable curves, the table, what differs, and what failed."""

from __future__ import annotations

from html import escape
from math import ceil
from typing import Any

from alexnet_pl.report.compare import Panel, Report, commit
from alexnet_pl.report.curves import METRICS, VALIDATION, Line
from alexnet_pl.report.tables import PRIMARY, finding, label, percent, small_print, style, table, top

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


def html(report: Report) -> str:
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
that of the means; its ± is over the seeds. <b>paper</b>: Krizhevsky, Sutskever and Hinton 2012, on
CIFAR-10; epochs are read off its plot. <b>error over the last epoch</b>: the running error, mean over that epoch.</p>
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
            facts = [percent(alone.lowest("validation")), commit(run.run), machine, run.run.failure]
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
    main = {"x": mean.x, "y": mean.y, "name": name, "hovertemplate": hover, "line": ink, "mode": "lines"}
    traces: list[dict[str, Any]] = [main]
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
