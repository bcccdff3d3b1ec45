"""What is said about a comparison: names, findings and tables, in the same words on terminal, figure and page."""

from __future__ import annotations

from math import ceil, floor

from alexnet_pl.report import paper
from alexnet_pl.report.ablation import ERRORS, Change, Judged, baseline, change, finished, fits, judge, measured
from alexnet_pl.report.compare import Panel, Report, commit
from alexnet_pl.report.curves import METRICS, Line, plus_minus

PRIMARY = next(iter(METRICS))
# Names for readers; other keys and values stand for themselves.
NAMES = {"relu": "ReLU", "optim.lr": "learning rate", "cifar10": "CIFAR-10", "shapes": "generated shapes"}
# The paper's line styles; Okabe and Ito's colours, which colour-blind readers tell apart.
STYLES = {"relu": ("solid", "#0072B2"), "tanh": ("dash", "#D55E00"), "sigmoid": ("dot", "#007A5A")}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#A07800", "#000000", "#882255")
DASHES = ("solid", "dash", "dot", "dashdot")

Section = tuple[str, list[list[str]]]
"""A title and its rows; what follows a cell's line break is small print."""


def label(panel: Panel, line: Line) -> str:
    """A line's name in legend and table: `ReLU, learning rate 0.002, 3 seeds (unfinished)`."""
    parts = [name(panel, line)]
    parts += [f"{len(line.runs)} seeds"] if len(line.runs) > 1 else []
    return ", ".join(parts) + early(line)


def name(panel: Panel, line: Line) -> str:
    """What a line compares, and what is tuned for it: `ReLU, learning rate 0.002`."""
    declared = line.runs[0].config["report"]["compare"]
    flat, tuned = line.runs[0].flat, line.runs[0].config["report"]["tuned"]
    if not declared:
        tuned = [key for key in tuned if len({other.runs[0].value(key) for other in panel.lines}) > 1]
    (key,) = panel.compare if declared and len(panel.compare) == 1 else [""]
    own = "" if key in ("", "model.activation") else f"{NAMES.get(key, key)} "
    parts = [own + NAMES.get(line.name, line.name)]
    parts += [f"{NAMES.get(key, key)} {flat.get(key)}" for key in tuned if key not in panel.compare]
    return ", ".join(parts)


def early(line: Line) -> str:
    """How those of its runs fared that are not done: ` (unfinished)`."""
    states = dict.fromkeys(run.run.status for run in line.runs if not run.run.done)
    return f" ({', '.join(states)})" if states else ""


def style(panel: Panel, line: Line) -> tuple[str, str]:
    """Dash, in plotly's words, and colour of a line; no two of sixteen are alike."""
    i = panel.lines.index(line)
    return STYLES.get(line.name, (DASHES[i // 4 % len(DASHES)], COLOURS[i % len(COLOURS)]))


def percent(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:.1f} %"


def finding(panel: Panel) -> str:
    """What a panel shows, in a sentence: `tanh needs 6.8 times as many epochs as ReLU (paper: 6)`; may be empty."""
    if best := panel.best:
        notes = ["edge of the grid"] if best in (panel.lines[0], panel.lines[-1]) else []
        notes += ["some unfinished"] if any(not run.run.done for line in panel.lines for run in line.runs) else []
        said = f" ({'; '.join(notes)})" if notes else ""
        return f"lowest: learning rate {best.runs[0].value('optim.lr')}, {percent(best.last_error)}{said}"
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
    window = ", ".join({f"{c['train_error_window']:,}": 0 for c in configs})
    seeds = ", ".join(map(str, sorted({run.seed for run in report.drawn})))
    commits = ", ".join({commit(run.run): 0 for run in report.drawn})
    timed = any(panel.target is not None for panel in report.panels)
    band = f"; thick: their mean, band: lowest to highest{', thin: each seed' * timed}" if "," in seeds else ""
    return (
        f"Data: {data}. Error on the training batches as they are trained, in windows of about {window} images. "
        f"Seeds: {seeds}{band}. Commit: {commits}."
    )


def timings(report: Report) -> tuple[list[str], list[Section]]:
    """Epochs to the target: column heads, and a section for each panel that has one."""
    panels = [(panel, panel.target) for panel in report.panels if panel.target is not None]
    told = any(line.name in panel.published for panel, _ in panels for line in panel.lines)
    heads = ["", *METRICS, *["paper"] * told, "epochs trained", "error over the last epoch"]
    sections = []
    for panel, target in panels:
        rows = []
        for line in panel.lines:
            cells = [f"{line.timing(m) or '-'}\nlowest error {percent(line.lowest(m))}" for m in METRICS]
            trained = " to ".join(dict.fromkeys(f"{of(run.epochs for run in line.runs):.4g}" for of in (min, max)))
            last = percent(line.last_error) + " (lowest)" * (line is panel.best)
            rows.append([label(panel, line), *cells, *[panel.published.get(line.name, "-")] * told, trained, last])
        ratios = [panel.ratio(m) for m in METRICS]
        for first in list(filter(None, ratios))[:1]:
            both = " / ".join(NAMES.get(n, n) for n in (first.slow, first.fast))
            published = [panel.paper_ratio or "-"] * told
            rows.append([f"ratio {both}", *(str(ratio or "-") for ratio in ratios), *published, "", ""])
        sections.append((f"{panel.title}: epochs to {100 * target:g} % training error", rows))
    return heads, sections


def errors(report: Report) -> tuple[list[str], list[Section]]:
    """Errors at the end: column heads, and a section for each panel that times nothing."""
    panels = [panel for panel in report.panels if panel.target is None]
    lines = [line for panel in panels for line in panel.lines]
    columns = [error for error in ERRORS if any(measured(line, error) for line in lines)]
    published = any(_published(report.claims, line) for line in lines)
    heads = ["", "seeds", *(f"{error} (%)" for error in columns), "top-1 against the baseline"]
    heads += ["published (%)"] * published
    sections = []
    for panel in panels:
        base = baseline(panel, report.claims)
        rows = []
        for line in panel.lines:
            known = [measured(line, error) for error in columns]
            cells = ["-" if m is None else plus_minus(100 * m.mean, m.spread and 100 * m.spread) for m in known]
            differences = [
                (kind, change(own, other))
                for kind in ("validation", "ten views")
                if (own := measured(line, f"{kind} top-1")) and (other := measured(base, f"{kind} top-1"))
            ]
            said = [f"{points(by)}{f' ({kind})' * (kind != 'validation')}" for kind, by in differences]
            versus = "baseline" if line is base else "\n".join(said) or "-"
            theirs = [_published(report.claims, line) or "-"] * published
            rows.append([name(panel, line) + early(line), str(len(finished(line))), *cells, versus, *theirs])
        sections.append((f"{panel.title}: errors at the end", rows))
    return heads, sections


def _published(claims: list[paper.Claim], line: Line) -> str:
    """The paper's errors for a line, `40.66 / 18.21`, and by which views."""
    said = []
    for value in (value for claim in claims for value in claim.values if fits(value.arm, line)):
        both = " / ".join(f"{error:.2f}" for error in (value.top1, value.top5) if error is not None)
        said.append(both + {10: "\nten views", 1: "\ncentre", None: ""}[value.views])
    return "\n".join(said)


def points(by: Change | None) -> str:
    """A difference in percentage points, `+1.37 ± 0.20`."""
    if by is None:
        return "-"
    return f"{100 * by.mean:+.2f}" + (f" ± {100 * by.error:.2f}" if by.error is not None else "")


def judged(report: Report) -> list[Judged]:
    """The paper's differences that the report's sweep is about."""
    return [judged for claim in report.claims for judged in judge(claim, report.panels)]


VERDICT_HEADS = ["claim", "error of ... minus that of ...", "published", "ours", "verdict", "our runs"]


def verdicts(found: list[Judged]) -> list[list[str]]:
    """A row for each of the paper's differences."""
    return [
        [f"{j.claim.topic} (section {j.claim.section})", f"{j.top}{': ' * bool(j.lines)}{j.lines}", f"{j.paper:+g}",
         points(j.ours), j.verdict, j.used or "-"]
        for j in found
    ]  # fmt: skip


def limits(panel: Panel, metrics: tuple[str, ...]) -> tuple[float, float]:
    """Lower and upper end of the error axis for some metrics of a panel: what they are after the first few updates."""
    start = 0.05 * max(run.epochs for line in panel.lines for run in line.runs)
    means = [line.mean(metric)[0] for line in panel.lines for metric in metrics]
    seen = [y for mean in means for x, y in zip(mean.x, mean.y, strict=True) if x > start] or [0.0, 1.0]
    low, high = floor(20 * min(seen)) / 20, ceil(20 * max(seen) + 0.1) / 20
    return (0.0 if low <= 0.1 else low), min(high, 1.0)


def top(report: Report) -> float:
    """Upper end of the error axis: 0.75 as in the paper, unless a line would be out of sight."""
    return 1.0 if any((line.lowest(PRIMARY) or 0) > 0.75 for _, line in report.lines) else 0.75
