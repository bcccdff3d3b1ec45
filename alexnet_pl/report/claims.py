"""Write the paper's claims, and how far they are tested, to claims.html and claims.md in a folder of sweeps."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

from alexnet_pl.config.keys import format_value
from alexnet_pl.console import Meter, make_console
from alexnet_pl.errors import ConfigError
from alexnet_pl.report import paper
from alexnet_pl.report.ablation import CENTRE, SEVERAL, ClaimResult, describe_runs, has_settings, judge, seed_errors
from alexnet_pl.report.compare import Report, collect
from alexnet_pl.report.curves import Line, cut_short
from alexnet_pl.report.html_parts import make_page
from alexnet_pl.report.outputs import literal, markdown_table, write_text
from alexnet_pl.report.tables import VERDICTS, VIEWS, finding, format_errors, format_points
from alexnet_pl.runs.naming import parse_overrides
from alexnet_pl.runs.run import Run, find_runs
from alexnet_pl.runs.sweep import read_sweep


@dataclass
class SweepFolder:
    """A folder of runs, with its report if it has one."""

    path: Path
    jobs: int
    done: int
    cut: str  # what makes its runs less than their experiments
    report: Report | None = None
    problem: str = ""  # why there is no report

    @property
    def lines(self) -> list[Line]:
        return [line for _, line in self.report.lines] if self.report else []

    @property
    def findings(self) -> list[str]:
        """Findings of the timed panels that have published numbers."""
        panels = self.report.panels if self.report else []
        texts = (finding(panel) for panel in panels if panel.published)
        return list(dict.fromkeys(filter(None, texts)))


@dataclass
class ClaimStatus:
    """A claim with the folders of its sweep."""

    claim: paper.Claim
    folders: list[SweepFolder] = field(default_factory=list)

    @property
    def state(self) -> str:
        """State of the claim: `not run`; or for each folder `done` or `3 of 4 jobs done`, with the findings so far."""
        if not self.claim.sweep:
            return "needs no sweep: the command shows it"
        return "; ".join(map(self._folder_state, self.folders)) or "not run"

    @property
    def tested(self) -> bool:
        """Return whether a whole sweep is done."""
        return any(folder.done == folder.jobs and not folder.cut for folder in self.folders)

    def _folder_state(self, folder: SweepFolder) -> str:
        state = "done" if folder.done == folder.jobs else f"{folder.done} of {folder.jobs} jobs done"
        if folder.cut:
            state = f"only tried with {folder.cut}, {folder.done} of {folder.jobs} jobs"
        if not folder.report:
            return f"{state}: {folder.problem}" if folder.problem and folder.done else state
        tops: dict[str, list[str]] = {}
        for result in self.results(folder):
            tops.setdefault(result.verdict, []).append(result.top)
        verdicts = [f"{verdict} ({', '.join(dict.fromkeys(of))})" for verdict, of in tops.items()]
        outcomes = (list(tops) if len(tops) == 1 else verdicts) + folder.findings
        outcome = f": {', '.join(outcomes)}" if outcomes else ""
        return f"{state}{outcome} on {describe_runs(folder.lines)}"

    def results(self, folder: SweepFolder) -> list[ClaimResult]:
        """Return a folder's differences beside the paper's, if it has both arms."""
        results = judge(self.claim, folder.report.panels if folder.report else [])
        return [result for result in results if result.lines]

    @property
    def paper_numbers(self) -> list[str]:
        """Return the paper's numbers: first those outside of tables, then one for each difference or arm."""
        differences = [
            f"{format_arm(d.of)} against {format_arm(d.against)}: {format_errors(d.top1, d.top5, '+g')} points"
            for d in self.claim.differences
        ]
        errors = []
        for value in self.claim.values:
            arm = f"{format_arm(value.arm)}: " if value.arm else ""
            errors.append(f"{arm}{format_errors(value.top1, value.top5)} % {VIEWS[value.views]}".rstrip())
        return [*filter(None, [self.claim.numbers]), *differences, *errors]

    @property
    def ours(self) -> list[str]:
        """Return our numbers beside the paper's, and the data that they were measured on."""
        texts = []
        for folder in self.folders:
            for r in self.results(folder):
                texts.append(f"{r.top} {format_points(r.ours)} points ({r.lines}; {r.used}): {r.verdict}")
            for line in folder.lines:
                if any(has_settings(line, value.arm) for value in self.claim.values):
                    texts += _line_errors(line)
            texts += [f"{text} ({describe_runs(folder.lines)})" for text in folder.findings]
            if folder.problem:
                texts.append(f"{folder.path.name}: {folder.problem}")
        return texts


def _line_errors(line: Line) -> list[str]:
    """Return a line's errors for each number of views: `model.lrn=[]: 14.15 / 7.00 %, validation (...)`."""
    texts = []
    for kind in (SEVERAL, CENTRE):
        found = (seed_errors(line, f"{kind} {top}") for top in ("top-1", "top-5"))
        top1, top5 = (100 * error.mean if error else None for error in found)
        if numbers := format_errors(top1, top5):
            texts.append(f"{line.name}: {numbers} %, {kind} ({describe_runs([line])})")
    return texts


def format_arm(settings: dict[str, object]) -> str:
    """Return `model.lrn=[], model.spatial_norm=[]`."""
    return ", ".join(f"{key}={format_value(value)}" for key, value in settings.items())


def total(claims: list[ClaimStatus]) -> str:
    """Return how many claims there are, and how many of them are tested."""
    swept = [one for one in claims if one.claim.sweep]
    done = sum(one.tested for one in swept)
    begun = sum(bool(one.folders) and not one.tested for one in swept)
    return (
        f"{len(claims)} claims, of which {len(claims) - len(swept)} need no sweep. Of the sweeps of the other "
        f"{len(swept)}, {done} {'is' if done == 1 else 'are'} done, {begun} begun or only tried, and "
        f"{len(swept) - done - begun} not run."
    )


# ------------------------------------------------------------------------------------------------ a folder of sweeps


def survey(root: Path) -> list[ClaimStatus]:
    """Return every claim with the folders below `root` that hold runs of its sweep."""
    if (root / "run.json").is_file():
        raise ConfigError(f"{root} is not a folder with folders of runs in it: give one such as runs")
    claims = [ClaimStatus(claim) for claim in paper.claims()]
    begun = {path.parent.parent for path in root.rglob("run.json")} | {path.parent for path in root.rglob("sweep.json")}
    with Meter("reading runs", len(begun), make_console(stderr=True), transient=True) as meter:
        for path in sorted(begun):
            names = _sweep_names(path)
            if here := [status for status in claims if status.claim.sweep and status.claim.sweep in names]:
                folder = _read_folder(path)
                for status in here:
                    status.folders.append(folder)
            meter.advance(1)
    return claims


def _sweep_names(folder: Path) -> set[str]:
    """Return the named sweeps of a folder's runs."""
    asked: Iterable[list[str]] = read_sweep(folder).values()
    begun = [Run(path.parent).identity.get("overrides", []) for path in folder.glob("*/run.json")]
    return {name for overrides in [*asked, *begun] if (name := parse_overrides(overrides).get("sweep"))}


def _read_folder(path: Path) -> SweepFolder:
    runs = find_runs(path)
    cuts = [cut_short(run) for run in runs if run.identity]
    folder = SweepFolder(path, len(runs), sum(bool(run.done) for run in runs), next(filter(None, cuts), ""))
    try:
        folder.report = collect(path)
    except ConfigError as error:
        folder.problem = str(error)
    return folder


COMMAND = "command"
HEADS = ["section", "claim", "the paper's numbers", COMMAND, "state", "our numbers"]


def write_claims(root: Path) -> tuple[list[ClaimStatus], list[Path]]:
    """Write claims.html and claims.md into a folder of sweeps; return the claims and the paths.

    Raises:
        ConfigError: the folder is a run or no folder, or a file of a run is damaged.
    """
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file: give a folder with folders of runs in it, such as runs")
    root.mkdir(parents=True, exist_ok=True)
    claims = survey(root)
    rows = [
        [one.claim.section, f"{one.claim.topic}: {one.claim.says}", "; ".join(one.paper_numbers) or "-",
         one.claim.command, one.state, "; ".join(one.ours) or "-"]
        for one in claims
    ]  # fmt: skip
    page, text = root / "claims.html", root / "claims.md"
    write_text(page, claims_page(claims, root))
    parts = [
        "# The paper's claims",
        total(claims),
        markdown_table(HEADS, rows, COMMAND),
        literal(f"{ERRORS} {VERDICTS}"),
    ]
    write_text(text, "\n\n".join(parts) + "\n")
    return claims, [page, text]


ERRORS = "Errors are top-1 / top-5, the paper's those of the authors' own runs."


def claims_page(claims: list[ClaimStatus], root: Path) -> str:
    """Return the HTML page: a row for each claim."""
    rows = []
    for one in claims:
        claim = one.claim
        links = [
            f'<a href="{quote(os.fsencode(folder.path.relative_to(root)))}/report.html">{escape(folder.path.name)}</a>'
            for folder in one.folders
            if (folder.path / "report.html").is_file()
        ]
        runs = f'<p class="small">{escape(claim.runs)}</p>' if claim.runs else ""
        cells = [
            escape(claim.section),
            f"<b>{escape(claim.topic)}</b><br>{escape(claim.says)}{runs}",
            _paragraphs(one.paper_numbers),
            f"<code>{escape(claim.command)}</code>",
            f"<b>{escape(one.state)}</b> {' '.join(links)}",
            _paragraphs(one.ours),
        ]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = "".join(f"<th>{head}</th>" for head in HEADS)
    body = f"""<style>main {{ max-width: 1500px }} td:first-child {{ min-width: 3rem }} code {{ font-size: .8rem }}
td {{ overflow-wrap: anywhere; min-width: 9rem }} td p {{ margin: 0 0 .4rem }}</style>
<p>What the paper claims in numbers, the command that tests each claim, and what came out of it so far.
<b>{total(claims)}</b></p>
<div class="wide"><table><tr>{heads}</tr>{"".join(rows)}</table></div>
<p class="small">{escape(f"{ERRORS} {VERDICTS}")}</p>"""
    return make_page("The paper's claims", body)


def _paragraphs(texts: list[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts) or "-"
