"""What is said about a comparison: names, findings and tables, in the same words on terminal, figure and page."""

from __future__ import annotations

from math import ceil, floor

from alexnet_pl.report import paper
from alexnet_pl.report.ablation import (
    ERRORS,
    ClaimResult,
    ErrorDifference,
    baseline,
    has_settings,
    judge,
    runs_that_count,
    seed_errors,
    unpaired_difference,
)
from alexnet_pl.report.compare import Panel, Report, commit
from alexnet_pl.report.curves import METRICS, Line, plus_minus

PRIMARY = next(iter(METRICS))
# Names for readers; other keys and values stand for themselves.
NAMES = {"relu": "ReLU", "optim.lr": "learning rate", "cifar10": "CIFAR-10", "shapes": "generated shapes"}
PUBLISHED = "published (%)"
"""Head of the column with the paper's own errors"""
VIEWS = {10: "ten views", 1: "centre", None: ""}
"""How the paper's errors are measured"""

Section = tuple[str, list[list[str]]]
"""A title and its rows; what follows a cell's line break is small print."""


def label(panel: Panel, line: Line) -> str:
    """Return a line's name in legend and table: `ReLU, learning rate 0.002, 3 seeds (unfinished)`."""
    seeds = f", {len(line.runs)} seeds" if len(line.runs) > 1 else ""
    return f"{name(panel, line)}{seeds}{state(line)}"


def name(panel: Panel, line: Line) -> str:
    """Return what a line compares, and what is tuned for it: `ReLU, learning rate 0.002`."""
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
    """Return a difference in percentage points, `+1.37 ± 0.20`."""
    if difference is None:
        return "-"
    margin = "" if difference.error is None else f" ± {100 * difference.error:.2f}"
    return f"{100 * difference.mean:+.2f}{margin}"


def format_errors(top1: float | None, top5: float | None, form: str = ".2f") -> str:
    """Return top-1 and top-5 error, whichever there is: `40.66 / 18.21`."""
    return " / ".join(f"{error:{form}}" for error in (top1, top5) if error is not None)


def finding(panel: Panel) -> str:
    """Return what a panel shows: `tanh needs 6.8 times as many epochs as ReLU (paper: 6)`; may be empty."""
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
    """Return data, metric, seeds and commit of everything drawn."""
    configs = [run.config for run in report.runs]
    data = ", ".join(dict.fromkeys(NAMES.get(c["data"]["name"], c["data"]["name"]) for c in configs))
    window = ", ".join(dict.fromkeys(f"{c['train_error_window']:,}" for c in configs))
    seeds = sorted({run.seed for run in report.runs})
    commits = ", ".join(dict.fromkeys(commit(run.run) for run in report.runs))
    band = "; thick: their mean, band: lowest to highest" if len(seeds) > 1 else ""
    if band and any(panel.target is not None for panel in report.panels):
        band += ", thin: each seed"
    return (
        f"Data: {data}. Error on the training batches as they are trained, in windows of about {window} images. "
        f"Seeds: {', '.join(map(str, seeds))}{band}. Commit: {commits}."
    )


def timings(report: Report) -> tuple[list[str], list[Section]]:
    """Return epochs to the target: column heads, and a section for each panel that has one."""
    panels = [(panel, panel.target) for panel in report.panels if panel.target is not None]
    beside = any(line.name in panel.published for panel, _ in panels for line in panel.lines)
    heads = ["", *METRICS, *(["paper"] if beside else []), "epochs trained", "error over the last epoch"]
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
    return heads, sections


def errors(report: Report) -> tuple[list[str], list[Section]]:
    """Return errors at the end: column heads, and a section for each panel that times nothing."""
    panels = [panel for panel in report.panels if panel.target is None]
    lines = [line for panel in panels for line in panel.lines]
    columns = [error for error in ERRORS if any(seed_errors(line, error) for line in lines)]
    beside = any(published_errors(report.claims, line) for line in lines)
    heads = ["", "seeds", *(f"{error} (%)" for error in columns), "top-1 against the baseline"]
    heads += [PUBLISHED] if beside else []
    sections = []
    for panel in panels:
        base = baseline(panel, report.claims)
        rows = []
        for line in panel.lines:
            known = [seed_errors(line, error) for error in columns]
            cells = ["-" if m is None else plus_minus(100 * m.mean, m.spread and 100 * m.spread) for m in known]
            versus = "baseline" if line is base else "\n".join(_differences(line, base)) or "-"
            published = [published_errors(report.claims, line) or "-"] if beside else []
            seeds = str(len(runs_that_count(line)))
            rows.append([name(panel, line) + state(line), seeds, *cells, versus, *published])
        sections.append((f"{panel.title}: errors at the end", rows))
    return heads, sections


def _differences(line: Line, base: Line) -> list[str]:
    """Return how much higher a line's top-1 errors are than the baseline's, `+1.37 ± 0.20 (ten views)`."""
    texts = []
    for kind in ("validation", "ten views"):
        own, other = (seed_errors(each, f"{kind} top-1") for each in (line, base))
        if own and other:
            views = "" if kind == "validation" else f" ({kind})"
            texts.append(format_points(unpaired_difference(own, other)) + views)
    return texts


def published_errors(claims: list[paper.Claim], line: Line) -> str:
    """Return the paper's errors for a line, `40.66 / 18.21`, and by which views; nothing where it has none."""
    values = [value for claim in claims for value in claim.values if has_settings(line, value.arm)]
    return "\n".join("\n".join(filter(None, [format_errors(v.top1, v.top5), VIEWS[v.views]])) for v in values)


def claim_results(report: Report) -> list[ClaimResult]:
    """Return the paper's differences that the report's sweep is about."""
    return [result for claim in report.claims for result in judge(claim, report.panels)]


VERDICT_HEADS = ["claim", "error of ... minus that of ...", "published", "ours", "verdict", "our runs"]


def verdict_rows(results: list[ClaimResult]) -> list[list[str]]:
    """Return a row for each of the paper's differences."""
    return [
        [f"{r.claim.topic} (section {r.claim.section})", f"{r.top}: {r.lines}" if r.lines else r.top, f"{r.paper:+g}",
         format_points(r.ours), r.verdict, r.used or "-"]
        for r in results
    ]  # fmt: skip


def axis_limits(panel: Panel, metrics: tuple[str, ...]) -> tuple[float, float]:
    """Return the ends of the error axis for some metrics of a panel: what they are after the first few updates."""
    start = 0.05 * max(run.epochs for line in panel.lines for run in line.runs)
    means = [line.mean(metric)[0] for line in panel.lines for metric in metrics]
    seen = [y for mean in means for x, y in zip(mean.x, mean.y, strict=True) if x > start] or [0.0, 1.0]
    low, high = floor(20 * min(seen)) / 20, ceil(20 * max(seen) + 0.1) / 20
    return (0.0 if low <= 0.1 else low), min(high, 1.0)


def axis_top(report: Report) -> float:
    """Return the upper end of the error axis: 0.75 as in the paper, unless a line would be out of sight."""
    return 1.0 if any((line.lowest(PRIMARY) or 0) > 0.75 for _, line in report.lines) else 0.75
