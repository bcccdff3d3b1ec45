"""The runs under docs/evidence are whole, and every number that is published of them is what `report` makes of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from matplotlib import image

from alexnet_pl import ROOT
from alexnet_pl.report.compare import Report, collect
from alexnet_pl.report.curves import METRICS
from alexnet_pl.report.outputs import write_report
from alexnet_pl.report.tables import NAMES
from alexnet_pl.runs.run import Run, find_runs
from tests.helpers.pages import README, TEXTS

EVIDENCE = ROOT / "docs" / "evidence"
RESULTS = TEXTS["docs/results.md"]
FOLDERS = sorted(path for path in EVIDENCE.iterdir() if path.is_dir())
RUNS = [run for folder in FOLDERS for run in find_runs(folder)]
KEPT = {"config.yaml", "run.json", "metrics.csv", "done.json"}


def section(text: str, heading: str) -> str:
    """Return a section of a page, up to the next heading of its rank or a higher one."""
    rank = heading.partition(" ")[0]
    (found,) = re.findall(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(rank)}}} |\Z)", text, re.DOTALL | re.MULTILINE)
    return str(found)


def cells(text: str) -> list[list[str]]:
    """Return the rows of the first table in a text, without its head and without bold."""
    (first, *_) = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    rows = [[cell.strip().strip("*") for cell in line.split("|")[1:-1]] for line in first.splitlines()]
    return [rows[0], *rows[2:]]


@pytest.fixture(scope="module")
def figure1() -> Report:
    return collect(EVIDENCE / "figure1")


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.folder.name)
def test_a_run_is_whole_and_of_a_commit(run: Run) -> None:
    assert {file.name for file in run.folder.iterdir()} == KEPT
    assert run.done
    assert run.identity["git"]["dirty"] is False
    assert not Path(run.config["data"]["root"]).is_absolute()
    assert len(run.metrics) > 10


def test_figure_1_has_several_seeds_of_each_line(figure1: Report) -> None:
    first, second = ({line.name: [run.seed for run in line.runs] for line in panel.lines} for panel in figure1.panels)
    assert first == {"tanh": [1, 2, 3], "relu": [1, 2, 3]}
    assert second == first
    assert {run.config["data"]["kind"] for run in figure1.runs} == {"cifar10"}


def test_the_published_figure_is_drawn_anew(tmp_path: Path) -> None:
    folder = tmp_path / "figure1"
    shutil.copytree(EVIDENCE / "figure1", folder)
    _, paths = write_report(folder)
    drawn, published = (image.imread(path) for path in (paths[0], ROOT / "docs" / "figure1_cifar10.png"))
    assert drawn.shape == published.shape
    assert abs(drawn - published).mean() < 0.02  # fonts may differ


def test_figure_1s_table_is_the_reports(figure1: Report) -> None:
    heads, *rows = cells(section(RESULTS, "## Figure 1: ReLU against tanh"))
    timed = [heads.index(metric) for metric in METRICS]
    assert timed == sorted(timed), "the primary one stands first"
    expected = []
    for panel in figure1.panels:
        for line in sorted(panel.lines, key=lambda line: line.name):  # relu, tanh
            timings = [str(line.timing(metric)) for metric in METRICS]
            expected.append([NAMES.get(line.name, line.name), line.runs[0].value("optim.lr"), *timings])
        expected.append(["ratio", "", *(str(panel.ratio(metric)) for metric in METRICS)])
    assert [[row[1], row[2], *(row[i] for i in timed)] for row in rows] == expected


def test_readme_and_sweep_repeat_the_ratios(figure1: Report) -> None:
    header = " ".join((ROOT / "sweeps" / "figure1.yaml").read_text().replace("#", " ").split())
    table = cells(section(TEXTS[README], "## What is reproduced"))
    ours = [row[2] for row in table if "sweep=figure1 " in row[-1]]
    assert len(ours) == len(figure1.panels) == 2
    for panel, cell in zip(figure1.panels, ours, strict=True):
        ratio = panel.ratio(next(iter(METRICS)))
        assert ratio is not None
        assert cell == f"{ratio} times"
        assert str(ratio) in header
