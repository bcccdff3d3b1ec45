"""The page: one self-contained HTML file with zoomable curves, the table, what differs, and what failed."""

from __future__ import annotations

from html import escape

from alexnet_pl.report.compare import Report, commit
from alexnet_pl.report.curves import EVALUATED, METRICS, MOST, Line
from alexnet_pl.report.plotly_figure import plot
from alexnet_pl.report.tables import (
    VERDICT_HEADS,
    Section,
    errors,
    finding,
    judged,
    label,
    percent,
    small_print,
    timings,
    verdicts,
)

STYLE = """
body { margin: 0; background: #fff; color: #1b1b1b; font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1000px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #ddd }
tr.panel th { background: #f2f5f8; padding-top: .6rem }
table.numbers td + td { white-space: nowrap }
table.plain { font-size: .8rem } td:first-child { overflow-wrap: anywhere; min-width: 11rem }
small { display: block; color: #555; white-space: nowrap } .small { color: #555; font-size: .88rem }
.wide { overflow-x: auto } dt { font-weight: 600 } dd { margin: 0 0 .5rem 1.2rem }
.box { background: #fff3e0; border-left: 5px solid #d55e00; padding: .7rem 1rem; overflow-wrap: anywhere }
"""


def html(report: Report) -> str:
    """The whole HTML page; every word that comes from a run is escaped."""
    findings = "".join(
        f"<li>{escape(p.title)}: <b>{escape(said)}</b></li>" for p in report.panels if (said := finding(p))
    )
    lines = [
        [label(panel, line), panel.title, *(line.runs[0].value(key) for key in report.differing)]
        for panel, line in report.lines
    ]
    timed = [panel.target for panel in report.panels if panel.target is not None]
    words = METRICS | {
        word: said for word, said in EVALUATED.items() if any(run.curves[word].x for run in report.drawn)
    }
    return page(
        f"Learning curves: {report.folder.name}",
        f"""{_box(report)}
{_intro(timed[0] if timed else None, both=len(timed) < len(report.panels))}
<ul>{findings}</ul>
{plot(report)}
<p class="small">{escape(small_print(report))} The menu chooses another error. Drag to zoom, double-click to see all,
click a name in the legend to hide its line.{THINNED * _thinned(report)}</p>
{_timings(report) if timed else ""}{_errors(report) if len(timed) < len(report.panels) else ""}{_verdicts(report)}
<dl>{"".join(f"<dt>{word}</dt><dd>{escape(said)}.</dd>" for word, said in words.items())}</dl>
<h2>What differs between the runs</h2>
{plain(["line", "panel", *report.differing], lines)}
{"".join(f"<p>{escape(note)}</p>" for note in report.notes)}
<h2>Runs</h2>
{_runs(report)}""",
    )


def page(title: str, body: str) -> str:
    """One HTML file around a body."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>
<h1>{escape(title)}</h1>
{body}
</main></body></html>
"""


def _intro(target: float | None, both: bool) -> str:
    said = "How fast nets learn: the share of training images that a net still gets wrong"
    if both:
        said = "The share of images that a net gets wrong, of those it trains on (left) and of others (right)"
    said += ", against epochs (passes over the training set)."
    if target is not None:
        said += f" What is timed is when it first falls to {100 * target:g} %, the dashed line."
    return f"<p>{said}</p>"


THINNED = f" A curve of more than {MOST} points is drawn as means over stretches of it."


def _thinned(report: Report) -> bool:
    return any(len(curve.x) > MOST for run in report.drawn for curve in run.curves.values())


def _timings(report: Report) -> str:
    return f"""<h2>Epochs to the target</h2>
{_sections(*timings(report))}
<p class="small">In epochs: the first time a curve is at or under the target, interpolated between its points. Over
several seeds: mean ± standard deviation. <b>&gt; 54.9</b>: not reached by epoch 54.9, where the curve ends. A ratio is
that of the means; its ± is over the seeds. <b>paper</b>: Krizhevsky, Sutskever and Hinton 2012, on
CIFAR-10; epochs are read off its plot. <b>error over the last epoch</b>: the running error, mean over that epoch.</p>
"""


def _errors(report: Report) -> str:
    heads, sections = errors(report)
    said = "<b>validation</b>: after the last epoch, on the centre crop of each image. "
    if any("ten views" in head for head in heads):
        said += "<b>ten views</b>: the same net, its answers averaged over four corners, the centre, their mirrors. "
    said += """<b>training</b>: the running error over the last epoch. Over several seeds: mean ± standard deviation.
Differences in percentage points ± their standard error, the seeds of both lines taken as independent. Of a line with
runs that are done, only those count."""
    if any("paper" in head for head in heads):
        said += " <b>paper</b>: top-1 / top-5 error of the authors' own run."
    return f"""<h2>Errors at the end</h2>
{_sections(heads, sections)}
<p class="small">{said}</p>
"""


def _verdicts(report: Report) -> str:
    found = judged(report)
    return (
        f"""<h2>Beside the paper</h2>
<ul>{"".join(f"<li>{escape(claim.says)} (section {escape(claim.section)})</li>" for claim in report.claims)}</ul>
<div class="wide"><table>{_row(VERDICT_HEADS, "th")}{"".join(map(_row, verdicts(found)))}</table></div>
{VERDICTS}"""
        if found
        else ""
    )


VERDICTS = """<p class="small">Differences of error in percentage points, ours ± their standard error. <b>within
spread</b>: seeds alone may put ours there (Student's t, 95 %). <b>one seed</b>: nothing is known of the spread. The
last column says what our runs were: only ImageNet at full length is the paper's experiment.</p>
"""


def _sections(heads: list[str], sections: list[Section]) -> str:
    rows = [_row(heads, "th")]
    for title, members in sections:
        rows += [f'<tr class="panel"><th colspan="{len(heads)}">{escape(title)}</th></tr>', *map(_row, members)]
    return f'<div class="wide"><table class="numbers">{"".join(rows)}</table></div>'


def _row(cells: list[str], tag: str = "td") -> str:
    parts = [escape(cell).partition("\n") for cell in cells]
    return "<tr>" + "".join(f"<{tag}>{text}<small>{small}</small></{tag}>" for text, _, small in parts) + "</tr>"


def plain(heads: list[str], rows: list[list[str]]) -> str:
    """A table in small letters."""
    return f'<div class="wide"><table class="plain">{_row(heads, "th")}{"".join(map(_row, rows))}</table></div>'


def _runs(report: Report) -> str:
    """A row for each run; how soon it reached the target, where there is one."""
    metrics = METRICS if any(panel.target is not None for panel in report.panels) else ()
    heads = ["folder", "seed", "status", "epochs", *metrics]
    heads += ["lowest validation error", "commit", "CPU", "why it ended early"]
    rows = []
    for panel, line in report.lines:
        for run in line.runs:
            alone = Line(line.name, [run], panel.target)
            crossings = [str(alone.timing(metric) or "-") for metric in metrics]
            machine = str(run.run.identity.get("machine", {}).get("CPU", "unknown"))
            facts = [percent(alone.lowest("validation")), commit(run.run), machine, run.run.failure]
            rows.append([run.run.folder.name, str(run.seed), run.run.status, f"{run.epochs:.4g}", *crossings, *facts])
    blank = [""] * (len(heads) - 5)
    return plain(heads, rows + [[r.folder.name, "", r.status, "no metrics", *blank, r.failure] for r in report.absent])


def _box(report: Report) -> str:
    """The runs that failed, are missing or not finished, with the reason where one is known."""
    runs_ = [f"{run.folder.name}{': ' * bool(run.failure)}{run.failure}" for run in report.incomplete]
    said = [f"<li><b>{run.status}</b> {escape(text)}</li>" for run, text in zip(report.incomplete, runs_, strict=True)]
    head = f"Not complete: {len(said)} of {len(report.drawn) + len(report.absent)} runs, drawn as far as they went"
    return f'<div class="box">{head}:<ul>{"".join(said)}</ul></div>' if said else ""
