"""Show a folder of runs as one figure, one page and one file of numbers.

    python -m alexnet_pl.report runs/figure1              compare the runs of a folder
    python -m alexnet_pl.report runs/figure1 --kernels    draw the first kernels of each run (Figure 3)
    python -m alexnet_pl.report torchvision --kernels     draw those of published weights
    python -m alexnet_pl.report --claims                  list the paper's claims and what runs/ tests

The command writes <folder's name>.png and .svg, report.html, report.md and report.json into the
folder. report.html is one file and opens without a network. Each table is also written as .csv and
.tex (booktabs), and printed. The command reads run folders only. It refuses, by name, runs that
must not be compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from alexnet_pl.console import exit_on_error, make_console, start_command
from alexnet_pl.errors import ConfigError, visible, visible_line
from alexnet_pl.report.claims import ClaimStatus, total, write_claims
from alexnet_pl.report.compare import Report
from alexnet_pl.report.curves import METRICS
from alexnet_pl.report.outputs import main_text, write_kernels, write_report
from alexnet_pl.report.tables import finding, report_tables
from alexnet_pl.report.workspace import publish, split_project

RUNS = Path("runs")
"""The folder of sweeps. A claims page makes it before the first sweep."""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "folder",
        nargs="?",
        type=Path,
        metavar="FOLDER",
        help="a run, or a folder of runs such as runs/figure1; with --kernels also published weights",
    )
    allow = "allow runs to differ in a key; `trainer` stands for all its keys (repeatable)"
    add("--allow", metavar="KEY", action="append", default=[], help=allow)
    claims = (
        "instead of a report, list the paper's claims and how far the sweeps in a folder test them (default: runs), "
        "in claims.html and claims.md there"
    )
    add("--claims", metavar="RUNS", nargs="?", const=RUNS, type=Path, help=claims)
    kernels = (
        "instead of a report, draw each run's first kernels, tower by tower (the paper's Figure 3), into its "
        "kernels.png. Print how colourful each tower's kernels are. FOLDER may be wandb:ENTITY/PROJECT/NAME:ALIAS."
    )
    add("--kernels", action="store_true", help=kernels)
    project = "also make or update a workspace of the runs, in the W&B project that has them"
    add("--wandb", metavar="ENTITY/PROJECT", help=project)
    dry = "only write that workspace to wandb_workspace.json in the folder, without key and network"
    add("--wandb-dry-run", action="store_true", help=dry)
    return parser


# ------------------------------------------------------------------------------------------------ what is printed


def show_report(report: Report, console: Console) -> None:
    """Print the tables, the metrics' definitions, the incomplete runs, and the notes."""
    for table in report_tables(report):
        for title, rows in table.sections:
            console.print(make_table(title, table.heads, rows), soft_wrap=False)
        console.print(table.note)
    for panel in report.panels:
        if text := finding(panel):
            console.print(visible(f"{panel.title}: {text}"))
    if any(panel.target is not None for panel in report.panels):
        for metric, meaning in METRICS.items():
            console.print(f"{metric}: {meaning}")
    for run in report.incomplete:
        reason = f": {run.failure}" if run.failure else ""
        console.print(visible(f"{run.status}: {run.folder.name}{reason}"))
    for note in report.notes:
        console.print(visible(note))


def show_claims(claims: list[ClaimStatus], console: Console) -> None:
    """Print the paper's claims and how far each is tested."""
    rows = [[s.claim.section, s.claim.topic, s.claim.says, s.state, s.claim.command] for s in claims]
    heads = ["section", "about", "claim", "state", "command"]
    console.print(make_table("The paper's claims", heads, rows), soft_wrap=False)
    console.print(total(claims))


def make_table(title: str, heads: list[str], rows: list[list[str]]) -> Table:
    """Return a table for the terminal, without small print."""
    columns = (Column(main_text(head), overflow="fold") for head in heads)
    table = Table(*columns, title=visible_line(title), title_justify="left", box=SIMPLE)
    for row in rows:
        table.add_row(*(visible_line(main_text(cell)) for cell in row))
    return table


def main() -> None:
    """Run the command. Exit code 0: written; 1: a mistake, in one sentence; 128 + signal: stopped by it."""
    start_command()
    parser = make_parser()
    args = parser.parse_args()
    if (args.folder is None) == (args.claims is None):
        parser.error("give a folder, or --claims")
    if (args.claims or args.kernels) and (args.wandb is not None or args.allow or (args.claims and args.kernels)):
        parser.error("--claims and --kernels stand alone")
    if args.wandb_dry_run and args.wandb is None:
        parser.error("--wandb-dry-run needs --wandb ENTITY/PROJECT")
    console = make_console()
    with exit_on_error(args.claims or args.folder):
        if args.wandb is not None:
            split_project(args.wandb)  # told before the work
        if args.claims:
            if args.claims != RUNS and not args.claims.exists():
                raise ConfigError(f"--claims {args.claims} does not exist: give the folder with your sweeps ({RUNS})")
            claims, paths = write_claims(args.claims.resolve())
            show_claims(claims, console)
        elif args.kernels:
            paths = write_kernels(args.folder)
        else:
            report, paths = write_report(args.folder, args.allow)
            show_report(report, console)
        workspace = [publish(report, args.wandb, send=not args.wandb_dry_run)] if args.wandb is not None else []
        for line in (*paths, *workspace):
            print(visible(str(line)))
