"""Write the report of a folder of runs: figures and page, its tables as Markdown, CSV and LaTeX, its numbers as JSON.

Names of runs, classes and files are escaped in each format, so that no part of them is markup or a formula.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from alexnet_pl import files
from alexnet_pl.errors import ConfigError, visible, visible_line
from alexnet_pl.report.ablation import ERRORS, ClaimResult, baseline, judge, seed_errors
from alexnet_pl.report.compare import Panel, Report, collect, commit
from alexnet_pl.report.curves import EVALUATED, METRICS, Line, RunCurves
from alexnet_pl.report.kernels import describe_tower, doubt, verdict
from alexnet_pl.report.page import report_page
from alexnet_pl.report.plots import draw, draw_kernels
from alexnet_pl.report.tables import Table, finding, report_tables, small_print
from alexnet_pl.runs.mirror import attach_results
from alexnet_pl.runs.naming import names_weights, safe_file_name
from alexnet_pl.runs.run import find_runs

if TYPE_CHECKING:
    from alexnet_pl.runs.trained import TrainedModel


def write_report(folder: Path, allow: Sequence[str] = ()) -> tuple[Report, list[Path]]:
    """Write figures, page, tables and numbers into the folder; return the report and the paths of figure and page.

    Args:
        allow: keys that may differ between any runs, as for `collect`.
    Raises:
        ConfigError: there is nothing to draw, or runs must not be compared. Nothing is written then.
    """
    folder = folder.resolve()
    report = collect(folder, allow)
    figure, page = folder / f"{folder.name}.png", folder / "report.html"
    draw(report, figure, figure.with_name(f"{folder.name}.svg"))
    write_text(page, report_page(report))
    write_text(folder / "report.md", markdown(report))
    for table in report_tables(report):
        write_text(folder / f"report-{table.name}.csv", csv_table(table))
        write_text(folder / f"report-{table.name}.tex", latex_table(table))
    files.write(folder / "report.json", json.dumps(as_json(report), indent=1, allow_nan=False))
    return report, [figure, page]


def write_kernels(folder: Path) -> list[Path]:
    """Draw the first kernels of each finished run, also into its W&B run, and print how colourful they are.

    Figures of published weights go into runs/published/.

    Raises:
        ConfigError: no run of the folder is done, or one has no checkpoint.
    """
    from alexnet_pl.runs import trained  # and torch, which nothing else here needs

    if names_weights(str(folder)):
        net = trained.load(folder)
        path = Path("runs/published") / safe_file_name(net.name) / "kernels.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        print(describe_kernels(net.name, net, draw_kernels(net, path)))
        return [path]
    done = [run for run in find_runs(folder) if run.done]
    if not done:
        raise ConfigError(f"no run in {folder} is done: draw the kernels when one has finished")
    for run in done:
        net = trained.load(run.folder)
        found = draw_kernels(net)
        print(describe_kernels(run.folder.name, net, found))
        attach_results(
            run, {f"kernels/{key}": value for key, value in found.items()}, {"kernels": run.folder / "kernels.png"}
        )
    return [run.folder / "kernels.png" for run in done]


def describe_kernels(name: str, net: TrainedModel, found: dict[str, float]) -> str:
    """Return a line about the colourfulness of a net's kernels."""
    towers = "; ".join(f"tower {i}: {describe_tower(found, i)}" for i in (1, 2) if f"tower{i}" in found)
    return f"{visible(name)}: {towers}. {verdict(found, doubt(net))}"


def write_text(path: Path, text: str) -> None:
    """Write a whole text file. Bytes of a folder's name that are no UTF-8 are escaped."""
    files.write(path, text.encode("utf-8", "backslashreplace").decode())


# ------------------------------------------------------------------------------------------------ Markdown


def markdown(report: Report) -> str:
    """Return the figure, the tables and the findings as Markdown."""
    parts = [f"# {literal(report.folder.name)}", f"![Learning curves](<{quote(os.fsencode(report.folder.name))}.png>)"]
    for table in report_tables(report):
        parts += [f"## {table.title}"]
        for title, rows in table.sections:
            parts += [f"### {literal(title)}", markdown_table(table.heads, rows)]
        parts += [literal(table.note)]
    parts += [literal(f"{panel.title}: {text}.") for panel in report.panels if (text := finding(panel))]
    incomplete = [f"- {run.status}: {literal(run.folder.name)}" for run in report.incomplete]
    parts += ["Not complete:", "\n".join(incomplete)] if incomplete else []
    return "\n\n".join([*parts, *map(literal, report.notes), literal(small_print(report))]) + "\n"


def markdown_table(heads: list[str], rows: list[list[str]], code: str = "") -> str:
    """Return a table. The text after a cell's line break follows in the same line.

    Args:
        code: the head of a column of commands, which readers copy.
    """
    lines = [[literal(inline(head)) for head in heads], ["---"] * len(heads)]
    for row in rows:
        cells = zip(heads, row, strict=True)
        lines.append([f"`{cell}`" if head == code else literal(inline(cell)) for head, cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def inline(cell: str) -> str:
    """Return a cell of a table in one line, with its small print after a comma."""
    return cell.replace("\n", ", ")


def main_text(cell: str) -> str:
    """Return a cell without its small print."""
    return cell.partition("\n")[0]


def literal(text: str) -> str:
    """Return one line of Markdown with no character as markup, in CommonMark and on GitHub (`$x$`, `:smile:`)."""
    escaped = "".join(f"\\{c}" if c in "\\`*_|<>[&$~#" else c for c in visible_line(text))
    return re.sub(r":(?=[\w+-]+:)|^[-+](?= )|(?<=^\d)[.)](?= )", r"\\\g<0>", escaped)


# ------------------------------------------------------------------------------------------------ CSV and LaTeX

NUMBER = re.compile(r"[+-]([\d.]+( ± [\d.]+| \[[-+\d., ]+\])?)?")
"""Texts that begin like a formula but are none"""


def csv_table(table: Table) -> str:
    """Return a table as CSV, without small print in its cells. Its first column is the section."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["section", *map(inline, table.heads)])
    for title, members in table.sections:
        for row in members:
            cells = [visible_line(main_text(cell)) for cell in (title, *row)]
            rows.writerow([cell if NUMBER.fullmatch(cell) else files.csv_cell(cell) for cell in cells])
    return text.getvalue()


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$",
    "[": "{[}", "-": "{-}",
}  # fmt: skip
"""Characters that are special to LaTeX -> as letters. `[` after the end of a row would be its height, `--` a dash."""


def latex_table(table: Table) -> str:
    """Return a float to \\input: its caption, its rows without small print, and what they mean.

    The table is scaled down where it would be wider than the text.
    """
    width = len(table.heads)
    lines = [" & ".join(map(_latex_head, table.heads)) + r" \\", r"\midrule"]
    for number, (title, rows) in enumerate(table.sections):
        lines += [r"\addlinespace"] if number else []
        lines += [rf"\multicolumn{{{width}}}{{l}}{{\textit{{{latex(title)}}}}} \\", *map(_latex_row, rows)]
    body = "\n".join(lines)
    return rf"""% needs \usepackage{{booktabs,graphicx}}
\begin{{table}}
\centering
\caption{{{latex(table.title)}}}
\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{\begin{{tabular}}{{l{"r" * (width - 1)}}}
\toprule
{body}
\bottomrule
\end{{tabular}}}}

\footnotesize {latex(table.note)}
\end{{table}}
"""


def latex(text: str) -> str:
    """Return a text of LaTeX with every character as a letter."""
    return "".join(LATEX.get(letter, letter) for letter in visible_line(text))


def _latex_head(head: str) -> str:
    """Return the head of a column in short lines, its small print below."""
    lines = [part for text in head.split("\n") for part in textwrap.wrap(visible_line(text), 16)]
    return r"\shortstack{" + r"\\".join(map(latex, lines)) + "}"


def _latex_row(cells: list[str]) -> str:
    texts = map(main_text, cells)
    return " & ".join(_latex_number(text) if NUMBER.fullmatch(text) else latex(text) for text in texts) + r" \\"


def _latex_number(text: str) -> str:
    return "$" + text.replace("±", r"\pm") + "$" if text[1:] else "--"


# ------------------------------------------------------------------------------------------------ report.json


def as_json(report: Report) -> dict[str, Any]:
    """Return epochs and shares of wrong predictions as a dict; None stands for never, or not measured.

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
        interval = j.ours and j.ours.interval
        return {"claim": j.claim.id, "top": j.top, "paper_points": j.paper, "verdict": j.verdict, "lines": j.lines,
                "points": j.ours and 100 * j.ours.mean, "data": j.used, "paired": j.ours and j.ours.paired,
                "standard_error": None if j.ours is None or j.ours.error is None else 100 * j.ours.error,
                "interval": interval and [100 * end for end in interval]}  # fmt: skip

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
