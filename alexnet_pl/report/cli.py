"""Report: a folder of runs as one figure, one page and one file of numbers.

    python -m alexnet_pl.report runs/figure1
    python -m alexnet_pl.report runs/pair --kernels     Figure 3: the first kernels of each run
    python -m alexnet_pl.report --claims          what of the paper is tested, by all that lies in runs/

Writes into the folder <its name>.png and .svg, report.html (one file, opens without a network), report.md and
report.json. It reads run folders only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape as literal
from rich.table import Column, Table

from alexnet_pl import files
from alexnet_pl.errors import ConfigError, UserError
from alexnet_pl.report.claims import Tested, write_claims
from alexnet_pl.report.compare import Report, collect
from alexnet_pl.report.curves import METRICS
from alexnet_pl.report.kernels import kernels, verdict
from alexnet_pl.report.markdown import markdown
from alexnet_pl.report.numbers import as_json
from alexnet_pl.report.page import html
from alexnet_pl.report.plots import draw
from alexnet_pl.report.tables import VERDICT_HEADS, errors, finding, judged, timings, verdicts
from alexnet_pl.report.workspace import publish
from alexnet_pl.runs.run import find_runs


def write(folder: Path, allow: Sequence[str] = ()) -> tuple[Report, list[Path]]:
    """Write figures, page, tables and numbers into the folder; returns the report and the paths of figure and page.

    Raises:
        ConfigError: nothing to draw, or runs that must not be compared; nothing is written then.
    """
    folder = folder.resolve()
    report = collect(folder, allow)
    figure, page = folder / f"{folder.name}.png", folder / "report.html"
    draw(report, figure, figure.with_name(f"{folder.name}.svg"))
    files.write(page, html(report))
    files.write(folder / "report.md", markdown(report))
    files.write(folder / "report.json", json.dumps(as_json(report), indent=1, allow_nan=False))
    return report, [figure, page]


def show(report: Report, console: Console) -> None:
    """Print the table, the metrics' definitions, what is not complete, and the notes."""
    tables = [(heads, *section) for heads, sections in (timings(report), errors(report)) for section in sections]
    if found := judged(report):
        tables.append((VERDICT_HEADS, "Beside the paper", verdicts(found)))
    for heads, title, rows in tables:
        console.print(shown(title, heads, rows), soft_wrap=False)
    for panel in report.panels:
        if said := finding(panel):
            console.print(f"{panel.title}: {said}", markup=False)
    for metric, said in METRICS.items() if any(panel.target is not None for panel in report.panels) else []:
        console.print(f"{metric}: {said}", markup=False)
    for run in report.incomplete:
        console.print(f"{run.status}: {run.folder.name}{': ' * bool(run.failure)}{run.failure}", markup=False)
    for note in report.notes:
        console.print(note, markup=False)


def shown(title: str, heads: list[str], rows: list[list[str]]) -> Table:
    """A table for the terminal, without small print."""
    columns = [Column(head, overflow="fold") for head in heads]
    out = Table(*columns, title=literal(title), title_justify="left", box=SIMPLE)
    for row in rows:
        out.add_row(*(literal(cell.partition("\n")[0]) for cell in row))
    return out


def overview(surveyed: list[Tested]) -> Table:
    """The paper's claims for the terminal."""
    rows = [[t.claim.section, t.claim.topic, t.claim.says, t.state, t.claim.command] for t in surveyed]
    return shown("The paper's claims", ["section", "about", "claim", "state", "command"], rows)


def draw_kernels(folder: Path) -> list[Path]:
    """Draw the first kernels of each finished run, also into its W&B run, and print what they come to.

    Raises:
        ConfigError: no run of the folder is done, or one has no checkpoint.
    """
    from alexnet_pl.runs import trained
    from alexnet_pl.training import loggers

    done = [run for run in find_runs(folder) if run.done]
    if not done:
        raise ConfigError(f"no run in {folder} is done: its kernels are drawn when it is")
    for run in done:
        found = kernels(trained.load(run.folder))
        towers = [f"{found[f'tower{i}']:.2f} ± {found[f'tower{i}_spread']:.2f}" for i in (1, 2) if f"tower{i}" in found]
        print(f"{run.folder.name}: colourfulness {' and '.join(towers)}. {verdict(found)}")
        loggers.attach_results(
            run, {f"kernels/{key}": value for key, value in found.items()}, {"kernels": run.folder / "kernels.png"}
        )
    return [run.folder / "kernels.png" for run in done]


def main() -> None:
    """The command. Exit code 0: written; 1: a mistake, told in one sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.report",
        description="Draw the runs of a folder: writes <folder's name>.png and .svg, report.html, report.md and "
        "report.json into it and prints its tables. Runs that must not be compared are refused by name.",
    )
    parser.add_argument("folder", nargs="?", type=Path, help="a run, or a folder of runs such as runs/figure1")
    parser.add_argument(
        "--allow",
        metavar="KEY",
        action="append",
        default=[],
        help="a key in which runs may differ that are compared; `trainer` is all keys that begin with it (repeatable)",
    )
    parser.add_argument(
        "--claims",
        metavar="RUNS",
        nargs="?",
        const=Path("runs"),
        type=Path,
        help="instead: list the paper's claims and how far each is tested by the sweeps in a folder (runs), in "
        "claims.html and claims.md there",
    )
    parser.add_argument(
        "--kernels",
        action="store_true",
        help="instead: draw each run's first kernels, tower by tower (the paper's Figure 3), into its kernels.png, and "
        "print how colourful each tower's are",
    )
    parser.add_argument(
        "--wandb",
        metavar="ENTITY/PROJECT",
        help="also make a workspace of the runs in the W&B project they were sent to, or update the one made before",
    )
    parser.add_argument(
        "--wandb-dry-run",
        action="store_true",
        help="only write that workspace to wandb_workspace.json in the folder; needs neither key nor network",
    )
    args = parser.parse_args()
    if (args.folder is None) == (args.claims is None):
        parser.error("give a folder, or --claims")
    if (args.claims or args.kernels) and (args.wandb or args.allow or (args.claims and args.kernels)):
        parser.error("--claims and --kernels stand alone")
    if args.wandb_dry_run and not args.wandb:
        parser.error("--wandb-dry-run needs --wandb ENTITY/PROJECT")
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
    workspace = ""
    try:
        if args.claims:
            surveyed, paths = write_claims(args.claims.resolve())
            console.print(overview(surveyed), soft_wrap=False)
        elif args.kernels:
            paths = draw_kernels(args.folder)
        else:
            report, paths = write(args.folder, args.allow)
            show(report, console)
            if args.wandb:
                workspace = publish(report, args.wandb, send=not args.wandb_dry_run)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    for path in paths:
        print(path)
    if workspace:
        print(workspace)
