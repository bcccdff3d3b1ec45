"""The words about a comparison: names, findings and tables, the same on terminal, figure and page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor

from alexnet_pl.report import paper
from alexnet_pl.report.ablation import (
    CENTRE,
    ERRORS,
    SEVERAL,
    ErrorDifference,
    baseline,
    compare_errors,
    has_settings,
    judge,
    runs_that_count,
    seed_errors,
)
from alexnet_pl.report.compare import Panel, Report, commit
from alexnet_pl.report.curves import METRICS, RUNNING, Line, plus_minus

PRIMARY = next(iter(METRICS))
# Names for readers; other keys and values stand for themselves.
NAMES = {"relu": "ReLU", "optim.lr": "learning rate", "cifar10": "CIFAR-10", "shapes": "generated shapes"}
PUBLISHED = "published (%)"
"""Head of the column with the paper's own errors"""
VIEWS = {10: "by ten views", 1: "by the centre", None: ""}
"""Views by which the paper's errors are measured, in words"""

Section = tuple[str, list[list[str]]]
"""A title and its rows. The text after a cell's line break is small print."""


def label(panel: Panel, line: Line) -> str:
    """Return a line's name in legend and table: `ReLU, learning rate 0.002, 3 seeds (unfinished)`."""
    seeds = f", {len(line.runs)} seeds" if len(line.runs) > 1 else ""
    return f"{name(panel, line)}{seeds}{state(line)}"


def name(panel: Panel, line: Line) -> str:
    """Return the compared and the tuned values of a line: `ReLU, learning rate 0.002`."""
    declared = line.runs[0].config["report"]["compare"]
    flat, tuned = line.runs[0].flat, line.runs[0].config["report"]["tuned"]
    if not declared:
        tuned = [key for key in tuned if len({other.runs[0].value(key) for other in panel.lines}) > 1]
    (key,) = panel.compare if declared and len(panel.compare) == 1 else [""]
    own = "" if key in ("", "model.activation") else f"{NAMES.get(key, key)} "
    parts = [own + NAMES.get(line.name, line.name)]
    parts += [f"{NAMES.get(key, key)} {flat.get(key)}" for key in tuned if key not in panel.compare]
    return ", ".join(parts)


def state(line: Line) -> str:
    """Return the states of a line's runs that are not done, ` (unfinished)`, or nothing."""
    states = dict.fromkeys(run.run.status for run in line.runs if not run.run.done)
    return f" ({', '.join(states)})" if states else ""


def format_percent(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:.1f} %"


def format_points(difference: ErrorDifference | None) -> str:
    """Return a difference in percentage points and its 95 % interval, `+1.37 [+0.90, +1.84]`."""
    if difference is None:
        return "-"
    ends = difference.interval
    margin = "" if ends is None else f" [{100 * ends[0]:+.2f}, {100 * ends[1]:+.2f}]"
    return f"{100 * difference.mean:+.2f}{margin}"


def format_errors(top1: float | None, top5: float | None, form: str = ".2f") -> str:
    """Return top-1 and top-5 error, or the one that there is: `40.66 / 18.21`."""
    return " / ".join(f"{error:{form}}" for error in (top1, top5) if error is not None)


def finding(panel: Panel) -> str:
    """Return the finding of a panel: `tanh needs 6.8 times as many epochs as ReLU (paper: 6)`; may be empty."""
    if best := panel.best:
        notes = ["edge of the grid"] if best in (panel.lines[0], panel.lines[-1]) else []
        notes += ["some unfinished"] if any(not run.run.done for line in panel.lines for run in line.runs) else []
        note = f" ({'; '.join(notes)})" if notes else ""
        return f"lowest: learning rate {best.runs[0].value('optim.lr')}, {format_percent(best.last_error)}{note}"
    ratio = panel.ratio(PRIMARY)
    if not ratio:
        return ""
    slow, fast = (NAMES.get(name, name) for name in (ratio.slow, ratio.fast))
    times = f"more than {ratio.value:.1f}" if ratio.at_least else f"{ratio.value:.1f}"
    published = f" (paper: {panel.paper_ratio})" if panel.paper_ratio else ""
    return f"{slow} needs {times} times as many epochs as {fast}{published}"


def small_print(report: Report) -> str:
    """Return data, metric, seeds and commit of all runs in the figure."""
    configs = [run.config for run in report.runs]
    data = ", ".join(dict.fromkeys(NAMES.get(c["data"]["name"], c["data"]["name"]) for c in configs))
    window = " to ".join(dict.fromkeys(f"{of(run.window for run in report.runs):,.0f}" for of in (min, max)))
    seeds = sorted({run.seed for run in report.runs})
    commits = ", ".join(dict.fromkeys(commit(run.run) for run in report.runs))
    band = "; thick: their mean, band: lowest to highest" if len(seeds) > 1 else ""
    if band and any(panel.target is not None for panel in report.panels):
        band += ", thin: each seed, ±: standard deviation over them"
    return (
        f"Data: {data}. Error on the training batches as they are trained, in windows of about {window} images. "
        f"Seeds: {', '.join(map(str, seeds))}{band}. Commit: {commits}."
    )


# ------------------------------------------------------------------------------------------------ tables


@dataclass(frozen=True)
class Table:
    """A table, for any format."""

    name: str
    """part of the names of its files"""
    title: str
    heads: list[str]
    sections: list[Section]
    note: str
    """meaning of its words and signs"""


SPREAD = "mean ± sd over seeds"
INTERVAL = "[95 % interval]"
"""Texts under the heads of columns that explain ± and brackets"""
MEANING = (
    f"{SPREAD}: sd is the standard deviation, n - 1. {INTERVAL}: where the difference lies in 19 of 20 cases "
    "(Student's t). Seeds that both lines have are compared in pairs; without two such, all are taken as independent. "
    "One seed has neither."
)


def report_tables(report: Report) -> list[Table]:
    """Return the report's tables that have rows."""
    tables = (timings(report), errors(report), verdicts(report))
    return [table for table in tables if any(rows for _, rows in table.sections)]


def timings(report: Report) -> Table:
    """Return epochs to the target, with a section for each panel that has one."""
    panels = [(panel, panel.target) for panel in report.panels if panel.target is not None]
    beside = any(line.name in panel.published for panel, _ in panels for line in panel.lines)
    several = _several(panel for panel, _ in panels)
    heads = ["line", *(metric + several for metric in METRICS), *(["paper"] if beside else [])]
    heads += ["epochs trained", "error over the last epoch"]
    sections = []
    for panel, target in panels:
        rows = []
        for line in panel.lines:
            cells = [f"{line.timing(m) or '-'}\nlowest error {format_percent(line.lowest(m))}" for m in METRICS]
            published = [panel.published.get(line.name, "-")] if beside else []
            trained = " to ".join(dict.fromkeys(f"{of(run.epochs for run in line.runs):.4g}" for of in (min, max)))
            last = format_percent(line.last_error) + (" (lowest)" if line is panel.best else "")
            rows.append([label(panel, line), *cells, *published, trained, last])
        ratios = [panel.ratio(metric) for metric in METRICS]
        if first := next(filter(None, ratios), None):
            both = " / ".join(NAMES.get(n, n) for n in (first.slow, first.fast))
            published = [panel.paper_ratio or "-"] if beside else []
            rows.append([f"ratio {both}", *(str(ratio or "-") for ratio in ratios), *published, "", ""])
        sections.append((f"{panel.title}: epochs to {100 * target:g} % training error", rows))
    note = (
        "In epochs: the first time a curve is at or under the target, interpolated between its points. > 54.9: not "
        "reached by epoch 54.9, where the curve ends. A ratio is that of the means; its sd is over each seed's own "
        "ratio. error over the last epoch: the running error, mean over that epoch."
    )
    note += f" {SPREAD}: sd is the standard deviation, n - 1." if several else ""
    note += " paper: Krizhevsky, Sutskever and Hinton 2012, on CIFAR-10, read off its plot." if beside else ""
    return Table("epochs", "Epochs to the target", heads, sections, note)


def errors(report: Report) -> Table:
    """Return final errors, with a section for each panel that times nothing."""
    panels = [panel for panel in report.panels if panel.target is None]
    lines = [line for panel in panels for line in panel.lines]
    columns = [error for error in ERRORS if any(seed_errors(line, error) for line in lines)]
    beside = any(published_errors(report.claims, line) for line in lines)
    several = _several(panels)
    compared = [f"{kind} top-1" for kind in (CENTRE, SEVERAL) if f"{kind} top-1" in columns]
    compared = compared if any(len(panel.lines) > 1 for panel in panels) else []
    heads = ["line", "seeds", *(f"{error} (%){several}" for error in columns)]
    heads += [f"{error} minus baseline (points)\n{INTERVAL}" for error in compared]
    heads += [PUBLISHED] if beside else []
    sections = []
    for panel in panels:
        base = baseline(panel, report.claims)
        rows = []
        for line in panel.lines:
            known = [seed_errors(line, error) for error in columns]
            cells = ["-" if m is None else plus_minus(100 * m.mean, m.spread and 100 * m.spread) for m in known]
            cells += ["baseline" if line is base else _against(line, base, error) for error in compared]
            published = [published_errors(report.claims, line) or "-"] if beside else []
            seeds = str(len(runs_that_count(line)))
            rows.append([name(panel, line) + state(line), seeds, *cells, *published])
        sections.append((f"{panel.title}: errors at the end", rows))
    note = "validation: after the last epoch, on the centre crop of each image. "
    if any(column.startswith(SEVERAL) for column in columns):
        note += "ten views: the same net, averaged over four corners, the centre, and their mirror images. "
    note += "training: the running error over the last epoch. Of a line with runs that are done, only those count."
    note += f" {MEANING}" if compared or several else ""
    note += f" {PUBLISHED}: top-1 / top-5 error of the authors' own runs." if beside else ""
    return Table("errors", "Errors at the end", heads, sections, note)


def _several(panels: Iterable[Panel]) -> str:
    """Return the text under a head if lines have several seeds."""
    return f"\n{SPREAD}" if any(len(line.runs) > 1 for panel in panels for line in panel.lines) else ""


def _against(line: Line, base: Line, error: str) -> str:
    own, other = (seed_errors(each, error) for each in (line, base))
    return format_points(compare_errors(own, other)) if own and other else "-"


def published_errors(claims: list[paper.Claim], line: Line) -> str:
    """Return the paper's errors for a line, `40.66 / 18.21 by ten views`; nothing if it has none."""
    values = [value for claim in claims for value in claim.values if has_settings(line, value.arm)]
    return "; ".join(" ".join(filter(None, [format_errors(v.top1, v.top5), VIEWS[v.views]])) for v in values)


def verdicts(report: Report) -> Table:
    """Return the paper's differences beside ours, with a section for each claim."""
    heads = ["error of ... minus that of ...", "published", f"ours\n{INTERVAL}", "verdict", "our runs"]
    sections = [
        (
            f"{claim.topic} (section {claim.section})",
            [
                [f"{r.top}: {r.lines}" if r.lines else r.top, f"{r.paper:+g}", format_points(r.ours), r.verdict,
                 r.used or "-"]
                for r in judge(claim, report.panels)
            ],
        )
        for claim in report.claims
    ]  # fmt: skip
    said = [f"Section {claim.section}: {claim.says}" for claim in report.claims]
    return Table("paper", "Beside the paper", heads, sections, " ".join([*said, VERDICTS]))


VERDICTS = (
    f"Differences of error in percentage points. {INTERVAL}: where ours lies in 19 of 20 cases (Student's t); seeds "
    "that both arms have are compared in pairs. within spread: seeds alone may put ours there. one seed: nothing is "
    "known of the spread. Our runs stand beside it: only ImageNet at full length is the paper's experiment."
)


# ------------------------------------------------------------------------------------------------ axes


def axis_limits(panel: Panel, metrics: tuple[str, ...]) -> tuple[float, float]:
    """Return the ends of the error axis for some metrics of a panel, by their values after the first few updates."""
    start = 0.05 * max(run.epochs for line in panel.lines for run in line.runs)
    curves = [curve for line in panel.lines for metric in metrics for curve in line.mean(metric)]  # and their bands
    seen = [y for curve in curves for x, y in zip(curve.x, curve.y, strict=True) if x > start] or [0.0, 1.0]
    low, high = floor(20 * min(seen) - 0.1) / 20, ceil(20 * max(seen) + 0.1) / 20
    return (0.0 if low <= 0.1 else low), min(high, 1.0)


def axis_top(report: Report) -> float:
    """Return the upper end of the error axis: 0.75 as in the paper, or higher if a line would be outside."""
    return 1.0 if any((line.lowest(RUNNING) or 0) > 0.75 for _, line in report.lines) else 0.75
