"""Write the report of a folder of runs: figures and page, report.md with its tables, report.json with its numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_pl import files
from alexnet_pl.errors import ConfigError
from alexnet_pl.report.ablation import ERRORS, ClaimResult, baseline, judge, seed_errors
from alexnet_pl.report.compare import Panel, Report, collect, commit
from alexnet_pl.report.curves import EVALUATED, METRICS, Line, RunCurves
from alexnet_pl.report.kernels import verdict
from alexnet_pl.report.page import report_page
from alexnet_pl.report.plots import draw, draw_kernels
from alexnet_pl.report.tables import VERDICT_HEADS, claim_results, errors, finding, small_print, timings, verdict_rows
from alexnet_pl.runs.naming import safe_file_name
from alexnet_pl.runs.run import find_runs, names_weights


def write_report(folder: Path, allow: Sequence[str] = ()) -> tuple[Report, list[Path]]:
    """Write figures, page, tables and numbers into the folder; return the report and the paths of figure and page.

    Args:
        allow: keys that may differ between any runs, as for `collect`.
    Raises:
        ConfigError: nothing to draw, or runs that must not be compared; nothing is written then.
    """
    folder = folder.resolve()
    report = collect(folder, allow)
    figure, page = folder / f"{folder.name}.png", folder / "report.html"
    draw(report, figure, figure.with_name(f"{folder.name}.svg"))
    files.write(page, report_page(report))
    files.write(folder / "report.md", markdown(report))
    files.write(folder / "report.json", json.dumps(as_json(report), indent=1, allow_nan=False))
    return report, [figure, page]


def write_kernels(folder: Path) -> list[Path]:
    """Draw the first kernels of each finished run, also into its W&B run, and print how colourful they are.

    Those of published weights are drawn into runs/published/.

    Raises:
        ConfigError: no run of the folder is done, or one has no checkpoint.
    """
    from alexnet_pl.runs import trained  # torch and Lightning, which nothing else here needs
    from alexnet_pl.training import loggers

    if names_weights(str(folder)):
        net = trained.load(folder)
        path = Path("runs/published") / safe_file_name(net.name) / "kernels.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        print(_colours(net.name, draw_kernels(net, path)))
        return [path]
    done = [run for run in find_runs(folder) if run.done]
    if not done:
        raise ConfigError(f"no run in {folder} is done: its kernels are drawn when it is")
    for run in done:
        found = draw_kernels(trained.load(run.folder))
        print(_colours(run.folder.name, found))
        loggers.attach_results(
            run, {f"kernels/{key}": value for key, value in found.items()}, {"kernels": run.folder / "kernels.png"}
        )
    return [run.folder / "kernels.png" for run in done]


def _colours(name: str, found: dict[str, float]) -> str:
    towers = [f"{found[f'tower{i}']:.2f} ± {found[f'tower{i}_spread']:.2f}" for i in (1, 2) if f"tower{i}" in found]
    return f"{name}: colourfulness {' and '.join(towers)}. {verdict(found)}"


# ------------------------------------------------------------------------------------------------ report.md


def markdown(report: Report) -> str:
    """Return the figure, the tables and the findings as Markdown."""
    name = report.folder.name
    parts = [f"# {literal(name)}", f"![Learning curves](<{name}.png>)"]
    for heads, sections in (timings(report), errors(report)):
        for title, rows in sections:
            parts += [f"## {literal(title)}", markdown_table(heads, rows)]
    if results := claim_results(report):
        parts += ["## Beside the paper", *(f"{literal(claim.says)}" for claim in report.claims)]
        parts += [markdown_table(VERDICT_HEADS, verdict_rows(results))]
    parts += [f"{literal(panel.title)}: {literal(text)}." for panel in report.panels if (text := finding(panel))]
    incomplete = [f"- {run.status}: {literal(run.folder.name)}" for run in report.incomplete]
    parts += ["Not complete:", "\n".join(incomplete)] if incomplete else []
    return "\n\n".join([*parts, *report.notes, literal(small_print(report))]) + "\n"


def markdown_table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table; what follows a cell's line break is set behind it; a cell in backticks is code."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    code = text.startswith("`") and text.endswith("`") and len(text) > 1
    return text.replace("|", "\\|") if code else literal(text).replace("\n", ", ")


def literal(text: str) -> str:
    """Return text in which every character stands for itself."""
    return "".join(f"\\{c}" if c in "\\`*_|<[" else c for c in text)


# ------------------------------------------------------------------------------------------------ report.json


def as_json(report: Report) -> dict[str, Any]:
    """Return epochs and shares of wrong predictions; None for never or not measured.

    Differences are in percentage points.
    """

    def epochs_to_target(line: Line, metric: str) -> dict[str, Any] | None:
        t = line.timing(metric)
        return None if t is None else {
            "mean": t.mean, "spread": t.spread, "n": len(t.values), "crossed": len(t.crossings), "not_before": t.beyond,
            "seeds": t.values, "curve_ends": t.ends, "lowest_error": line.lowest(metric),
        }  # fmt: skip

    def run(r: RunCurves) -> dict[str, Any]:
        return {
            "folder": r.run.folder.name, "seed": r.seed, "status": r.run.status, "failure": r.run.failure,
            "epochs": r.epochs, "last_epoch_error": r.last_error, "commit": commit(r.run),
            "machine": r.run.identity.get("machine", {}), "curves": {k: vars(c) for k, c in r.curves.items()},
        }  # fmt: skip

    def panel(p: Panel) -> dict[str, Any]:
        lines = {
            line.name: {
                "epochs_to_target": {metric: epochs_to_target(line, metric) for metric in METRICS},
                "last_epoch": line.epochs, "last_epoch_error": line.last_error,
                "last_errors": {error: of and {"mean": of.mean, "spread": of.spread, "seeds": of.values}
                                for error in ERRORS for of in [seed_errors(line, error)]},
                "differing": {key: line.runs[0].flat.get(key) for key in report.differing_keys},
                "runs": [run(r) for r in line.runs],
            }
            for line in p.lines
        }  # fmt: skip
        ratios = {metric: (ratio := p.ratio(metric)) and vars(ratio) for metric in METRICS}
        return {"title": p.title, "compare": p.compare, "target": p.target, "published": p.published,
                "lines": lines, "ratio": ratios, "best": p.best and p.best.name,
                "baseline": baseline(p, report.claims).name}  # fmt: skip

    def claim_result(j: ClaimResult) -> dict[str, Any]:
        return {"claim": j.claim.id, "top": j.top, "paper_points": j.paper, "verdict": j.verdict, "lines": j.lines,
                "points": j.ours and 100 * j.ours.mean, "data": j.used,
                "standard_error": None if j.ours is None or j.ours.error is None else 100 * j.ours.error}  # fmt: skip

    absent = [{"folder": r.folder.name, "status": r.status, "failure": r.failure} for r in report.absent]
    return {
        "folder": str(report.folder),
        "primary_metric": next(iter(METRICS)),
        "metrics": METRICS | EVALUATED,
        "panels": [panel(p) for p in report.panels],
        "claims": [claim_result(j) for claim in report.claims for j in judge(claim, report.panels)],
        "without_metrics": absent,
        "notes": report.notes,
    }
