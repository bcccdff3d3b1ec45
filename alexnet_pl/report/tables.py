"""What is said about a comparison: names, findings and the table, in the same words on terminal, picture and page."""

from __future__ import annotations

from alexnet_pl.report.compare import Panel, Report, commit
from alexnet_pl.report.curves import METRICS, Line

PRIMARY = next(iter(METRICS))
# Names for readers; other keys and values stand for themselves.
NAMES = {"relu": "ReLU", "optim.lr": "learning rate", "cifar10": "CIFAR-10", "shapes": "generated shapes"}
# The paper's line styles; Okabe and Ito's colours, which colour-blind readers tell apart.
STYLES = {"relu": ("solid", "#0072B2"), "tanh": ("dash", "#D55E00"), "sigmoid": ("dot", "#007A5A")}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#A07800", "#000000")


def label(panel: Panel, line: Line) -> str:
    """A line's name in legend and table: `ReLU, learning rate 0.002, 3 seeds (unfinished)`."""
    flat, tuned = line.runs[0].flat, line.runs[0].config["figure"]["tuned"]
    own = "" if panel.compare == "model.activation" else f"{NAMES.get(panel.compare, panel.compare)} "
    parts = [own + NAMES.get(line.name, line.name)]
    parts += [f"{NAMES.get(key, key)} {flat.get(key)}" for key in tuned if key != panel.compare]
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
    commits = ", ".join({commit(run.run): 0 for run in report.drawn})
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


def top(report: Report) -> float:
    """Upper end of the error axis: 0.75 as in the paper, unless a line would be out of sight."""
    return 1.0 if any((line.lowest(PRIMARY) or 0) > 0.75 for _, line in report.lines) else 0.75
