"""report.md: the tables for a paper or a README."""

from __future__ import annotations

from alexnet_pl.report.compare import Report
from alexnet_pl.report.tables import VERDICT_HEADS, errors, finding, judged, small_print, timings, verdicts


def markdown(report: Report) -> str:
    """The figure, the tables and the findings as Markdown."""
    name = report.folder.name
    parts = [f"# {literal(name)}", f"![Learning curves](<{name}.png>)"]
    for heads, sections in (timings(report), errors(report)):
        for title, rows in sections:
            parts += [f"## {literal(title)}", table(heads, rows)]
    if found := judged(report):
        parts += ["## Beside the paper", *(f"{literal(claim.says)}" for claim in report.claims)]
        parts += [table(VERDICT_HEADS, verdicts(found))]
    parts += [f"{literal(panel.title)}: {literal(said)}." for panel in report.panels if (said := finding(panel))]
    early = [f"- {run.status}: {literal(run.folder.name)}" for run in report.incomplete]
    parts += ["Not complete:", "\n".join(early)] if early else []
    return "\n\n".join([*parts, *report.notes, literal(small_print(report))]) + "\n"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table; what follows a cell's line break is set behind it; a cell in backticks is code."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    code = text.startswith("`") and text.endswith("`") and len(text) > 1
    return text.replace("|", "\\|") if code else literal(text).replace("\n", ", ")


def literal(text: str) -> str:
    """Text whose every character stands for itself."""
    return "".join(f"\\{c}" if c in "\\`*_|<[" else c for c in text)
