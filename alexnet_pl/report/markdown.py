"""Make report.md: the tables for a paper or a README."""

from __future__ import annotations

from alexnet_pl.report.compare import Report
from alexnet_pl.report.tables import VERDICT_HEADS, claim_results, errors, finding, small_print, timings, verdict_rows


def markdown(report: Report) -> str:
    """Return the figure, the tables and the findings as Markdown."""
    name = report.folder.name
    parts = [f"# {literal(name)}", f"![Learning curves](<{name}.png>)"]
    for heads, sections in (timings(report), errors(report)):
        for title, rows in sections:
            parts += [f"## {literal(title)}", make_table(heads, rows)]
    if results := claim_results(report):
        parts += ["## Beside the paper", *(f"{literal(claim.says)}" for claim in report.claims)]
        parts += [make_table(VERDICT_HEADS, verdict_rows(results))]
    parts += [f"{literal(panel.title)}: {literal(text)}." for panel in report.panels if (text := finding(panel))]
    incomplete = [f"- {run.status}: {literal(run.folder.name)}" for run in report.incomplete]
    parts += ["Not complete:", "\n".join(incomplete)] if incomplete else []
    return "\n\n".join([*parts, *report.notes, literal(small_print(report))]) + "\n"


def make_table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table; what follows a cell's line break is set behind it; a cell in backticks is code."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    code = text.startswith("`") and text.endswith("`") and len(text) > 1
    return text.replace("|", "\\|") if code else literal(text).replace("\n", ", ")


def literal(text: str) -> str:
    """Return text in which every character stands for itself."""
    return "".join(f"\\{c}" if c in "\\`*_|<[" else c for c in text)
