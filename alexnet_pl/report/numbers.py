"""Make report.json: everything on the page as plain numbers."""

from __future__ import annotations

from typing import Any

from alexnet_pl.report.ablation import ERRORS, ClaimResult, baseline, judge, seed_errors
from alexnet_pl.report.compare import Panel, Report, commit
from alexnet_pl.report.curves import EVALUATED, METRICS, Line, RunCurves


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
