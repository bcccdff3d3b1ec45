"""Print a report's tables and the paper's claims on a terminal."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from alexnet_pl.report.claims import ClaimStatus
from alexnet_pl.report.compare import Report
from alexnet_pl.report.curves import METRICS
from alexnet_pl.report.tables import VERDICT_HEADS, claim_results, errors, finding, timings, verdict_rows


def show_report(report: Report, console: Console) -> None:
    """Print the tables, the metrics' definitions, what is not complete, and the notes."""
    tables = [(heads, *section) for heads, sections in (timings(report), errors(report)) for section in sections]
    if results := claim_results(report):
        tables.append((VERDICT_HEADS, "Beside the paper", verdict_rows(results)))
    for heads, title, rows in tables:
        console.print(make_table(title, heads, rows), soft_wrap=False)
    for panel in report.panels:
        if text := finding(panel):
            console.print(f"{panel.title}: {text}")
    if any(panel.target is not None for panel in report.panels):
        for metric, meaning in METRICS.items():
            console.print(f"{metric}: {meaning}")
    for run in report.incomplete:
        reason = f": {run.failure}" if run.failure else ""
        console.print(f"{run.status}: {run.folder.name}{reason}")
    for note in report.notes:
        console.print(note)


def show_claims(claims: list[ClaimStatus], console: Console) -> None:
    """Print the paper's claims and how far each is tested."""
    rows = [[s.claim.section, s.claim.topic, s.claim.says, s.state, s.claim.command] for s in claims]
    heads = ["section", "about", "claim", "state", "command"]
    console.print(make_table("The paper's claims", heads, rows), soft_wrap=False)


def make_table(title: str, heads: list[str], rows: list[list[str]]) -> Table:
    """Return a table for the terminal, without the small print of its cells."""
    table = Table(*(Column(head, overflow="fold") for head in heads), title=title, title_justify="left", box=SIMPLE)
    for row in rows:
        table.add_row(*(cell.partition("\n")[0] for cell in row))
    return table
