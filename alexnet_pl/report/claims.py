"""The paper's claims and how far they are tested: claims.html and claims.md in a folder of sweeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from rich.console import Console
from rich.progress import track

from alexnet_pl import files
from alexnet_pl.errors import ConfigError
from alexnet_pl.report import paper
from alexnet_pl.report.ablation import Judged, fits, judge, measured, what
from alexnet_pl.report.compare import Report, collect
from alexnet_pl.report.curves import spelled
from alexnet_pl.report.markdown import table
from alexnet_pl.report.page import VERDICTS, page
from alexnet_pl.report.tables import finding, points
from alexnet_pl.runs.naming import parse_overrides
from alexnet_pl.runs.run import find_runs


@dataclass
class Folder:
    """A folder of runs, and what can be said of it."""

    path: Path
    jobs: int
    done: int
    report: Report | None = None
    problem: str = ""  # why there is no report


@dataclass
class Tested:
    """A claim with the folders of its sweep."""

    claim: paper.Claim
    folders: list[Folder] = field(default_factory=list)

    @property
    def state(self) -> str:
        """`not run`; or for each folder `3 of 4 jobs done`, or `done`, and what came out so far."""
        return "; ".join(map(self._state, self.folders)) or "not run"

    def _state(self, folder: Folder) -> str:
        state = "done" if folder.done == folder.jobs else f"{folder.done} of {folder.jobs} jobs done"
        if not folder.report:
            return f"{state}: {folder.problem}" if folder.problem and folder.done else state
        tops: dict[str, list[str]] = {}
        for one in self._judged(folder):
            tops.setdefault(one.verdict, []).append(one.top)
        said = [f"{verdict} ({', '.join(dict.fromkeys(of))})" for verdict, of in tops.items()]
        said = (list(tops) if len(tops) == 1 else said) + _findings(folder)
        return f"{state}{': ' * bool(said)}{', '.join(said)} on {what([line for _, line in folder.report.lines])}"

    def _judged(self, folder: Folder) -> list[Judged]:
        """Its differences beside the paper's, where the folder has both arms."""
        return [judged for judged in judge(self.claim, folder.report.panels if folder.report else []) if judged.lines]

    @property
    def published(self) -> list[str]:
        """The paper's numbers, one difference or arm each."""
        differences = [
            f"{arm(d.of)} against {arm(d.against)}: {both(d.top1, d.top5, '+g')} points" for d in self.claim.differences
        ]
        errors = [
            f"{arm(value.arm)}{': ' * bool(value.arm)}{both(value.top1, value.top5, '.2f')} %{VIEWS[value.views]}"
            for value in self.claim.values
        ]
        return differences + errors

    @property
    def ours(self) -> list[str]:
        """Our numbers beside those, and what they were measured on."""
        said = []
        for folder in self.folders:
            judged = self._judged(folder)
            said += [f"{j.top} {points(j.ours)} points ({j.lines}; {j.used}): {j.verdict}" for j in judged]
            for _, line in folder.report.lines if folder.report else []:
                if not any(fits(value.arm, line) for value in self.claim.values):
                    continue
                for kind in ("ten views", "validation"):
                    found = (measured(line, f"{kind} {top}") for top in ("top-1", "top-5"))
                    top1, top5 = (100 * error.mean if error else None for error in found)
                    numbers = both(top1, top5, ".2f")
                    said += [f"{line.name}: {numbers} %, {kind} ({what([line])})"] if numbers else []
            said += _findings(folder)
            said += [f"{folder.path.name}: {folder.problem}"] if folder.problem else []
        return said


def _findings(folder: Folder) -> list[str]:
    """What the timed panels show that have published numbers."""
    panels = folder.report.panels if folder.report else []
    said = (finding(panel) for panel in panels if panel.published)
    return list(dict.fromkeys(filter(None, said)))


VIEWS = {10: ", ten views", 1: ", centre", None: ""}


def arm(settings: dict[str, object]) -> str:
    """`model.lrn=[], model.spatial_norm=[]`."""
    return ", ".join(f"{key}={spelled(value)}" for key, value in settings.items())


def both(top1: float | None, top5: float | None, form: str) -> str:
    """Top-1 and top-5 error, whichever there is."""
    return " / ".join(f"{error:{form}}" for error in (top1, top5) if error is not None)


# ------------------------------------------------------------------------------------------------ a folder of sweeps


def survey(root: Path) -> list[Tested]:
    """Every claim with the folders below `root` whose runs are of its sweep."""
    if (root / "run.json").is_file():
        raise ConfigError(f"{root} is not a folder with folders of runs in it: give one such as runs")
    claims = [Tested(claim) for claim in paper.claims()]
    begun = {path.parent.parent for path in root.rglob("run.json")} | {path.parent for path in root.rglob("sweep.json")}
    console = Console(stderr=True)
    for path in track(sorted(begun), "reading runs", console=console, transient=True, disable=not console.is_terminal):
        names = _sweeps(path)
        here = [one for one in claims if one.claim.sweep and one.claim.sweep in names]
        if here:
            folder = _folder(path)
            for one in here:
                one.folders.append(folder)
    return claims


def _sweeps(folder: Path) -> set[str]:
    """The named sweeps that a folder's runs are of."""
    asked: Iterable[list[str]] = files.read_json(folder / "sweep.json").values()
    begun = [files.read_json(path).get("overrides", []) for path in folder.glob("*/run.json")]
    return {name for overrides in [*asked, *begun] if (name := parse_overrides(overrides).get("sweep"))}


def _folder(path: Path) -> Folder:
    there = find_runs(path)
    folder = Folder(path, len(there), sum(bool(run.done) for run in there))
    try:
        folder.report = collect(path)
    except ConfigError as error:
        folder.problem = str(error)
    return folder


HEADS = ["section", "claim", "the paper's numbers", "command", "state", "our numbers"]


def write_claims(root: Path) -> tuple[list[Tested], list[Path]]:
    """Write claims.html and claims.md into a folder of sweeps; returns the claims and the paths.

    Raises:
        ConfigError: the folder is a run, or a file of a run is not what a run writes.
    """
    root.mkdir(parents=True, exist_ok=True)
    claims = survey(root)
    rows = [
        [one.claim.section, f"{one.claim.topic}: {one.claim.says}", "; ".join(one.published) or "-",
         f"`{one.claim.command}`" if one.claim.command else "-", one.state, "; ".join(one.ours) or "-"]
        for one in claims
    ]  # fmt: skip
    path, text = root / "claims.html", root / "claims.md"
    files.write(path, html(claims, root))
    files.write(text, f"# The paper's claims\n\n{table(HEADS, rows)}\n\n{SAID}\n")
    return claims, [path, text]


SAID = (
    "Of the authors' runs: top-1 / top-5 error. Differences are in percentage points of error, ours ± their standard "
    "error. What our runs were is in brackets: only ImageNet at full length is the paper's experiment."
)


def html(claims: list[Tested], root: Path) -> str:
    """The page: a row for each claim."""
    rows = []
    for one in claims:
        claim = one.claim
        links = [
            f'<a href="{escape(folder.path.relative_to(root).as_posix())}/report.html">{escape(folder.path.name)}</a>'
            for folder in one.folders
            if (folder.path / "report.html").is_file()
        ]
        runs_ = f'<p class="small">{escape(claim.runs)}</p>' if claim.runs else ""
        cells = [
            escape(claim.section),
            f"<b>{escape(claim.topic)}</b><br>{escape(claim.says)}{runs_}",
            _list(one.published),
            f"<code>{escape(claim.command)}</code>" if claim.command else "-",
            f"<b>{escape(one.state)}</b> {' '.join(links)}",
            _list(one.ours),
        ]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = "".join(f"<th>{head}</th>" for head in HEADS)
    body = f"""<style>main {{ max-width: 1500px }} td:first-child {{ min-width: 3rem }} code {{ font-size: .8rem }}
td {{ overflow-wrap: anywhere; min-width: 9rem }} td p {{ margin: 0 0 .4rem }}</style>
<p>What the paper claims in numbers, the command that tests each claim, and what came out of it so far.</p>
<div class="wide"><table><tr>{heads}</tr>{"".join(rows)}</table></div>
{VERDICTS}"""
    return page("The paper's claims", body)


def _list(said: list[str]) -> str:
    return "".join(f"<p>{escape(one)}</p>" for one in said) or "-"
