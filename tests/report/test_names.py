"""What a stranger calls a run, a panel, a data set or a class stands for itself in every file that is written."""

from __future__ import annotations

import csv
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from markdown_it import MarkdownIt

from alexnet_pl.console import make_console
from alexnet_pl.errors import visible
from alexnet_pl.evaluate.outputs import write_classes
from alexnet_pl.evaluate.predictions import Predictions
from alexnet_pl.evaluate.tables import show_classes
from alexnet_pl.files import from_csv_cell
from alexnet_pl.report.claims import write_claims
from alexnet_pl.report.cli import show_report
from alexnet_pl.report.compare import Report, collect
from alexnet_pl.report.outputs import NUMBER, csv_table, latex_table, literal, markdown, markdown_table, write_report
from alexnet_pl.report.page import report_page
from alexnet_pl.report.tables import report_tables
from alexnet_pl.runs.run import Run
from tests.helpers.reports import NAMES, make_run, rows, settings

FORMULA = tuple("=+-@\t\r")


class Html(HTMLParser):
    """The tags, attributes and texts of a page; what is inside scripts and styles is none."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a folder with a panel, a data set and a failed run of each name."""
    folder = tmp_path_factory.mktemp("x") / "<b>`a` =c & [d] $e$ :f:"
    for number, name in enumerate(NAMES):
        other = {"report__panel": name, "report__target": 0.25 if number % 2 else None, "data__name": name}
        run = make_run(folder / f"{number}{name.replace('/', '')}", settings(**other), rows(3, 4), False)
        run.fail(name)
        identity = (run.folder / "run.json").read_text()
        (run.folder / "run.json").write_text(identity.replace("0123456789abcdef", "<b>12345</b>"))
    return collect(folder)


def shown(name: str) -> str:
    return visible(" ".join(name.split()))


def test_markdown_is_text(report: Report) -> None:
    text = markdown(report)
    page = Html(MarkdownIt().enable(["table", "strikethrough"]).render(text))
    assert page.tags <= {"h1", "h2", "h3", "p", "img", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert {key for key, _ in page.attributes} <= {"src", "alt"}
    assert not [name for name in NAMES if page.text.count(shown(name)) < 2]
    assert not re.search(r"(?<!\\)(:[\w+-]+:|\$)|[\x00-\x09\x0b-\x1f]", text)


@pytest.mark.slow
def test_html_is_text(report: Report) -> None:
    page = Html(re.sub(r"<script.*?</script>", "", report_page(report), flags=re.DOTALL))
    assert not page.tags & {"img", "input", "a", "iframe"}
    assert not [key for key, _ in page.attributes if key.startswith("on")]
    assert not [name for name in NAMES if page.text.count(" ".join(name.split())) < 3]


def test_csv_has_no_formula(report: Report) -> None:
    cells: list[str] = []
    for table in report_tables(report):
        read = list(csv.reader(csv_table(table).splitlines()))
        assert {len(row) for row in read} == {1 + len(table.heads)}
        cells += [cell for row in read for cell in row]
    assert not [cell for cell in cells if cell.startswith(FORMULA) and not NUMBER.fullmatch(cell)]
    for name in NAMES:
        assert any(shown(name.partition("\n")[0]) in cell for cell in cells), name


def test_latex_is_text(report: Report) -> None:
    known = {"begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "addlinespace", "multicolumn",
             "textit", "footnotesize", "pm", "textbackslash", "textasciitilde", "textasciicircum", "resizebox", "ifdim",
             "width", "linewidth", "else", "fi", "shortstack"}  # fmt: skip
    for table in report_tables(report):
        rest = latex_table(table).partition("\n")[2]
        assert set(re.findall(r"\\([a-zA-Z]+)", rest.replace(r"\\", " "))) <= known
        bare = re.sub(r"\\[{}$&#_%]|\\\\", "", rest)
        assert not set("%#_^~\x1b") & set(bare)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert not re.search(r"\\\\\s*\[", rest)
        for row in re.findall(r"^.* \\\\$", rest, re.MULTILINE):
            columns = len(re.findall(r"(?<!\\)&", row))
            assert columns == (0 if "multicolumn" in row else len(table.heads) - 1)


def test_a_terminal_is_told_nothing_but_text(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    show_report(report, make_console())
    show_classes(scores(), list(NAMES), make_console())
    out = capsys.readouterr().out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    for name in ("dog :smile:", "[x](javascript:alert(3))", "\\x1b[31mred"):
        assert out.count(name) >= 3, name


def scores() -> Predictions:
    """Of an image of each class, all of them right."""
    labels = np.arange(len(NAMES))
    return Predictions(labels, labels * 0 + 1, labels * 0.0, labels[:, None], labels[:, None] * 0.0)


def test_a_class_is_no_formula(tmp_path: Path) -> None:
    write_classes(scores(), list(NAMES), tmp_path / "classes.csv")
    with (tmp_path / "classes.csv").open(newline="") as file:
        read = [row["class"] for row in csv.DictReader(file)]
    assert not [cell for cell in read if cell.startswith(FORMULA)]
    assert [from_csv_cell(cell) for cell in read] == list(NAMES)


@pytest.mark.parametrize("text", ["+1.4", "-1.35 ± 0.41", "-2.00 [-2.10, +1.90]", "-", "+"])
def test_numbers_stay_numbers(text: str) -> None:
    assert NUMBER.fullmatch(text)


@pytest.mark.parametrize("text", ["-2+3", "+cmd|x", "-1 [Book]Sheet!A1", "=1", "-1.35 ± 0.4+1", "--1"])
def test_what_is_more_than_a_number_is_none(text: str) -> None:
    assert not NUMBER.fullmatch(text)


@pytest.mark.parametrize("name", [*NAMES, "- x", "+ x", "1) x", "> x", "==", "a:b", ":a:b:"])
def test_a_line_of_markdown_is_text(name: str) -> None:
    page = Html(MarkdownIt().enable(["table", "strikethrough"]).render(literal(name)))
    assert (page.tags, page.text) == ({"p"}, shown(name))
    table = Html(MarkdownIt().enable("table").render(markdown_table([name], [[name]])))
    assert table.text.count(shown(name.replace("\n", ", "))) == 2


@pytest.fixture
def sweeps(tmp_path: Path) -> Path:
    for name in ("javascript:alert(1)", "a#b?c%41", "<b>", "=x", os.fsdecode(b"\xff")):
        make_run(tmp_path / name / "r", settings(), rows(3, 4), overrides=["sweep=figure1"])
        (tmp_path / name / "report.html").write_text("")
    return tmp_path


def test_links_lead_to_the_folders(sweeps: Path) -> None:
    _, (page, text) = write_claims(sweeps)
    links = [value for key, value in Html(page.read_text()).attributes if key == "href"]
    assert len(links) == 5
    for link in links:
        assert ":" not in link
        assert (sweeps / unquote(link, errors="surrogateescape")).is_file()
    assert "<b>" not in text.read_text().replace("\\<", "")


@pytest.mark.slow
def test_a_folder_whose_name_is_no_text_has_a_report(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    make_run(folder / os.fsdecode(b"\xff"), settings(report__panel=""), rows(3, 4))
    assert isinstance(Run(folder), Run)
    _, (figure, page) = write_report(folder)
    assert figure.is_file()
    assert "caf\\udce9" in page.read_text()
    assert "caf\\\\udce9" in (folder / "report.md").read_text()
