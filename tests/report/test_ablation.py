"""Reports of sweeps of any kind, and the paper's claims beside them: runs built by hand, NumPy as the oracle."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from alexnet_pl.errors import ConfigError
from alexnet_pl.report import ablation, cli, curves, paper, style, tables
from alexnet_pl.report.ablation import ErrorDifference, SeedErrors
from alexnet_pl.report.claims import survey, write_claims
from alexnet_pl.report.compare import collect
from alexnet_pl.report.outputs import write_report
from alexnet_pl.runs.naming import job_folder_name
from alexnet_pl.runs.sweep import record_sweep
from tests.helpers.reports import LRN, NASTY, lrn_run, make_run, rows, settings

CLAIM = paper.Claim(
    "lrn", "LRN", "3.3", "Response normalization lowers the errors.", "lrn", "train sweep=lrn", "net 148",
    [paper.Difference({"model.lrn": []}, {"model.lrn": ["conv1"]}, top1=1.4, top5=1.2)],
    [paper.Value({"model.lrn": []}, 10, 42.034, 19.362), paper.Value({"model.lrn": ["conv1"]}, 10, 40.664, 18.21)],
)  # fmt: skip


@pytest.fixture
def one_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "claims", lambda: (CLAIM,))


# ------------------------------------------------------------------------------------------------ lines


def plain_run(folder: Path, *overrides: str, seed: int = 1, **other: Any) -> None:
    plain = settings(seed=seed, report__compare=[], report__target=None, **other)
    make_run(folder / job_folder_name(overrides, seed), plain, rows(3, 2), True, [*overrides, f"seed={seed}"])


def test_lines_are_what_the_overrides_differ_in(tmp_path: Path) -> None:
    for seed in (1, 2):
        for activation in ("relu", "tanh"):
            own = [f"model.activation={activation}", "name=x", "data.root=/a", "trainer.max_epochs=20"]
            plain_run(tmp_path, "model.lrn=[conv1]", *own, seed=seed, activation=activation, model__lrn=["conv1"])
        plain_run(tmp_path, "name=x", "data.root=/b", seed=seed)  # relu, by default
    (panel,) = collect(tmp_path).panels
    assert panel.compare == ["model.lrn", "model.activation"]
    assert {line.name: len(line.runs) for line in panel.lines} == {
        "model.lrn=[conv1], model.activation=relu": 2,
        "defaults": 2,
        "model.lrn=[conv1], model.activation=tanh": 2,
    }


def test_a_choice_explains_its_groups_keys_and_an_experiment_any(tmp_path: Path) -> None:
    for group, refused in (("model", True), ("experiment", False)):
        folder = tmp_path / group
        plain_run(folder, f"{group}=a", model__towers=1)
        plain_run(folder, f"{group}=b", model__towers=2, lr=0.5, model__input_size=64)
        assert [line.name for line in collect(folder).panels[0].lines] == [f"{group}=a", f"{group}=b"]
        plain_run(folder, f"{group}=c", data__batch_size=64)
        if refused:
            with pytest.raises(ConfigError, match=r"panel 'raw' .*differ in data\.batch_size \(128, 64\).*--allow KEY"):
                collect(folder)
        for allow in ("data.batch_size", "data"):
            assert len(collect(folder, [allow]).panels[0].lines) == 3


def test_what_no_override_explains_is_refused(tmp_path: Path) -> None:
    plain_run(tmp_path, "model.lrn=[]")
    plain_run(tmp_path, "model.lrn=[]", seed=2, train_error_window=500)
    with pytest.raises(ConfigError, match=r"train_error_window \(250, 500\).*report\.compare=\[KEY\]"):
        collect(tmp_path)
    (line,) = collect(tmp_path, ["train_error_window"]).panels[0].lines
    assert (line.name, len(line.runs)) == ("model.lrn=[]", 2)  # alone, it is called by what it was given


def test_a_search_over_rates_is_sorted_and_has_a_best(tmp_path: Path) -> None:
    for lr, crosses in ((0.1, 9), (0.02, 7), (0.004, 8)):
        overrides = [f"optim.lr={lr}"]
        plain = settings(lr=lr, report__compare=[], report__target=None)
        make_run(tmp_path / str(lr), plain, rows(crosses, 5), overrides=overrides)
    (panel,) = collect(tmp_path).panels
    assert [line.name for line in panel.lines] == ["optim.lr=0.004", "optim.lr=0.02", "optim.lr=0.1"]
    assert tables.finding(panel) == "lowest: learning rate 0.02, 37.5 %"


@pytest.mark.slow
def test_eight_lines_look_apart(tmp_path: Path) -> None:
    for i in range(16):
        plain_run(tmp_path, f"data.batch_size={i}", data__batch_size=i)
    (panel,) = collect(tmp_path).panels
    styles = [style.line_style(panel, line) for line in panel.lines]
    assert len(set(styles)) == 16
    assert len({colour for _, colour in styles[:8]}) == 8


# ------------------------------------------------------------------------------------------------ errors


OFF, ON = [0.123, 0.131, 0.118], [0.112, 0.109]


def test_errors_and_their_difference_are_numpys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "claims", lambda: ())
    for name, values in (("off", OFF), ("on", ON)):
        for seed, value in enumerate(values):
            lrn_run(tmp_path, name, seed, value)
    lrn_run(tmp_path, "on", 9, 0.9, done=False)  # does not count beside those that are done
    (panel,) = collect(tmp_path).panels
    off, on = (ablation.seed_errors(line, "validation top-1") for line in panel.lines)
    assert off is not None
    assert on is not None
    assert (off.mean, off.spread) == pytest.approx((np.mean(OFF), np.std(OFF, ddof=1)))
    by = ablation.unpaired_difference(on, off)
    assert by.mean == pytest.approx(np.mean(ON) - np.mean(OFF))
    assert by.error == pytest.approx(np.sqrt(np.var(OFF, ddof=1) / 3 + np.var(ON, ddof=1) / 2))
    ((_, cells),) = tables.errors(collect(tmp_path)).sections
    assert [row[0] for row in cells] == ["model.lrn=[]", "model.lrn=[conv1] (unfinished)"]
    # The running error over the fourth epoch of rows(9, 4): 0.25 + 0.05 * 5.5.
    assert cells[0][1:] == ["3", "12.40 ± 0.66", "52.50 ± 0.00", "baseline"]
    low, high = stats.ttest_rel(ON, OFF[:2]).confidence_interval(0.95)  # the seeds that both have
    mean = np.mean(np.subtract(ON, OFF[:2]))
    assert cells[1][1:] == [
        "2",
        "11.05 ± 0.21",
        "52.50 ± 0.00",
        f"{100 * mean:.2f} [{100 * low:.2f}, +{100 * high:.2f}]",
    ]


@pytest.mark.parametrize(
    ("points", "mean", "error", "said"),
    [
        (1.4, 0.02, 0.004, "same sign"),
        (1.4, -0.02, 0.004, "opposite"),
        (-1.4, -0.02, 0.004, "same sign"),
        (1.4, 0.02, 0.01, "within spread"),
        (1.4, -0.02, 0.01, "within spread"),
        (1.4, 0.0, 0.0, "within spread"),
        (1.4, 0.0001, None, "same sign, one seed"),
        (1.4, -0.3, None, "opposite, one seed"),
        (1.4, 0.0, None, "no difference, one seed"),
    ],
)
def test_verdicts(points: float, mean: float, error: float | None, said: str) -> None:
    assert ablation.verdict(points, ErrorDifference(mean, error, freedom=8)) == said


def test_ten_views_count_where_all_have_them(tmp_path: Path) -> None:
    tens = {"test/error": 0.3, "test/top5_error": 0.1, "val/top5_error": 0.2}
    lrn_run(tmp_path, "off", 1, 0.5, tens, views=10)
    lrn_run(tmp_path, "on", 1, 0.4, {**tens, "test/error": 0.31}, views=10)
    panels = collect(tmp_path).panels
    first, second = ablation.judge(CLAIM, panels)
    assert (first.verdict, first.lines) == ("opposite, one seed", "model.lrn=[] minus model.lrn=[conv1], ten views")
    assert (second.top, second.verdict) == ("top-5", "no difference, one seed")
    views = paper.Difference({"model.lrn": [], "views": 1}, {"model.lrn": [], "views": 10}, top1=1.5)
    (centre,) = ablation.judge(paper.Claim("v", "", "", "", differences=[views]), panels)
    assert centre.ours is not None
    assert centre.ours.mean == pytest.approx(0.5 - 0.3)
    assert centre.lines == "model.lrn=[] (validation) minus model.lrn=[] (ten views)"
    lrn_run(tmp_path, "off", 2, 0.5, {"test/error": 0.5}, views=1)  # a test of centres is none of ten views
    first, second = ablation.judge(CLAIM, collect(tmp_path, ["test_views"]).panels)
    assert (first.verdict, first.lines) == ("same sign, one seed", "model.lrn=[] minus model.lrn=[conv1], validation")
    assert second.verdict == "not measured"  # one of the runs has no top-5 error


def test_arms_are_paired_with_those_that_agree_in_the_rest(tmp_path: Path) -> None:
    for activation in ("relu", "tanh"):
        for lrn, extra in (("off", 0.1), ("on", 0.0)):
            overrides = [f"model.activation={activation}", f"model.lrn={LRN[lrn]}"]
            plain = settings(activation, model__lrn=LRN[lrn], report__compare=[], report__target=None)
            metrics = rows(9, 2)
            metrics[-1]["val/error"] = 0.2 + extra * (1 if activation == "relu" else -1)
            make_run(tmp_path / (activation + lrn), plain, metrics, overrides=overrides)
    judged = [j for j in ablation.judge(CLAIM, collect(tmp_path).panels) if j.top == "top-1"]
    assert [j.verdict for j in judged] == ["same sign, one seed", "opposite, one seed"]
    assert judged[1].lines.count("model.activation=tanh") == 2


def test_a_missing_arm_is_not_run(tmp_path: Path) -> None:
    lrn_run(tmp_path, "off", 1, 0.5)
    lrn_run(tmp_path, "on", 1, 0.5, done=False)
    assert [j.verdict for j in ablation.judge(CLAIM, collect(tmp_path).panels)] == ["not run"] * 2


def test_a_long_curve_is_drawn_by_means() -> None:
    x = np.arange(1, 1301) / 20
    y = np.exp(-x / 30)
    drawn = curves.thin(curves.Curve(list(x), list(y)))
    assert drawn.x == pytest.approx([np.mean(x[i : i + 3]) for i in range(0, 1300, 3)])
    assert drawn.y == pytest.approx([np.mean(y[i : i + 3]) for i in range(0, 1300, 3)])
    short = curves.Curve([1.0], [2.0])
    assert curves.thin(short) is short


# ------------------------------------------------------------------------------------------------ what is written


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over model.lrn, two seeds each, with a nasty panel's title beside it."""
    folder = tmp_path_factory.mktemp("x") / "lrn"
    for seed in (1, 2):
        for lrn, val in (("off", 0.14), ("on", 0.12)):
            lrn_run(folder, lrn, seed, val + seed / 1000, {"val/top5_error": val / 2})
    plain = settings(report__panel=NASTY, report__compare=[], report__target=None)
    make_run(folder / "n", plain, rows(9, 3), False, ["sweep=lrn"]).fail("<i>no</i>")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "claims", lambda: (CLAIM,))
        write_report(folder)
    return folder


@pytest.mark.slow
def test_both_figures_show_both_lines(written: Path) -> None:
    root = ElementTree.parse(written / "lrn.svg").getroot()
    text = ElementTree.tostring(root, encoding="unicode").lower()
    assert root.tag.endswith("svg")
    for colour in ("#0072b2", "#d55e00"):
        assert text.count(f"stroke: {colour}") >= 3  # two axes, and the legend
    assert (written / "lrn.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_has_errors_and_verdicts(written: Path) -> None:
    page = (written / "report.html").read_text()
    for text in ("14.15 ± 0.07", "+2.00 [+2.00, +2.00]", "42.03 / 19.36 by ten views", "same sign", "+1.4",
                 "validation top-5", "Response normalization lowers", "shapes (10 classes), 4 epochs"):  # fmt: skip
        assert text in page, text
    assert "published (%)" in page
    assert "published (%): top-1 / top-5 error of the authors&#x27; own runs" in page
    assert "Epochs to the target" not in page
    assert "<i>no</i>" not in page
    assert "alert(1)</script>" not in page


def test_the_markdown_is_tables_of_one_width(written: Path) -> None:
    text = (written / "report.md").read_text()
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    (row,) = [line for line in blocks[0].splitlines() if line.startswith("| model.lrn=\\[] |")]
    assert "| 2 | 14.15 ± 0.07 | 7.00 ± 0.00 |" in row
    assert "<script>" not in text.replace("\\<", "")
    assert "| same sign |" in blocks[2]


def test_the_json_has_the_verdicts(written: Path) -> None:
    plain = json.loads((written / "report.json").read_text())
    (top1, top5) = plain["claims"]
    assert (top1["claim"], top1["verdict"], top1["paper_points"]) == ("lrn", "same sign", 1.4)
    assert top1["points"] == pytest.approx(2.0)
    assert top1["paired"]
    assert (top1["standard_error"], *top1["interval"]) == pytest.approx((0, 2, 2))  # each seed's difference is the same
    assert top5["points"] == pytest.approx(1.0)
    panel = next(panel for panel in plain["panels"] if panel["title"] == "lrn")
    assert panel["baseline"] == "model.lrn=[conv1]"
    assert panel["lines"]["model.lrn=[]"]["last_errors"]["validation top-1"]["seeds"] == pytest.approx([0.141, 0.142])


def test_a_mixed_report_has_both_kinds_of_panels(tmp_path: Path) -> None:
    make_run(tmp_path / "a", settings(), rows(3, 5))
    plain_run(tmp_path, "model.lrn=[conv1]", model__lrn=["conv1"], report__panel="other")
    collected, _ = write_report(tmp_path)
    assert [panel.target for panel in collected.panels] == [0.25, None]
    page = (tmp_path / "report.html").read_text()
    assert "Epochs to the target" in page
    assert "Errors at the end" in page
    assert "published (%)" not in page, "no claim is about these runs"


# ------------------------------------------------------------------------------------------------ claims


def test_the_papers_claims_can_be_read() -> None:
    ids = [claim.id for claim in paper.claims()]
    assert {"figure1", "gpus", "lrn", "pooling"} <= set(ids)
    by = {claim.id: claim for claim in paper.claims()}
    for claim in ("lrn", "pooling", "gpus"):  # what the runs' notes say is what the paper rounds
        (difference,), (of, against) = by[claim].differences, by[claim].values
        assert (difference.of, difference.against) == (of.arm, against.arm)
        assert round(of.top1 - against.top1, 1) == difference.top1  # type: ignore[operator]
        assert of.top5 - against.top5 == pytest.approx(difference.top5, abs=0.06)  # type: ignore[operator]


GOOD = {"id": "a", "topic": "T", "section": "3.3", "says": "S", "sweep": "lrn", "command": "train sweep=lrn"}
ARMS = {"of": {"model.lrn": []}, "against": {"model.lrn": ["conv1"]}}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"sais": "S"}, "a: .*sais"),
        ({"id": "No Spaces"}, "No Spaces: an id is of small letters"),
        ({"command": "train sweep=lrn2"}, "a: the command does not have sweep=lrn"),
        ({"differences": [ARMS]}, "neither top1 nor top5"),
        ({"differences": [{**ARMS, "against": ARMS["of"], "top1": 1.0}]}, "between two arms"),
        ({"differences": [{**ARMS, "of": {"model.lrn": [], "views": 3}, "top1": 1.0}]}, "views must be 1 or 10"),
        ({"values": [{"arm": {}, "views": 3, "top1": 1.0}]}, "views of a value must be 1 or 10"),
        ({"values": [{"arm": {"seed": 1}, "top1": 10.0, "top5": 20.0}]}, "top-5 error at most the top-1 error"),
        ({"values": [{"arm": {"seed": 1}, "top1": "many"}]}, "a: .*many"),
    ],
)
def test_a_wrong_claim_is_named(tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    file = tmp_path / "paper.yaml"
    file.write_text(json.dumps([GOOD | entry]))  # JSON is YAML
    with pytest.raises(ConfigError, match=rf"paper\.yaml: {said}" if said[1:2] == ":" else said):
        paper.claims(file)


def test_two_claims_have_two_names(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text(json.dumps([GOOD, GOOD]))
    with pytest.raises(ConfigError, match="a is the id of 2 claims"):
        paper.claims(tmp_path / "paper.yaml")


@pytest.mark.usefixtures("one_claim")
def test_claims_are_tested_as_far_as_their_sweeps_are(tmp_path: Path) -> None:
    def state() -> str:
        (claim,) = survey(tmp_path)
        return claim.state

    assert state() == "not run"
    folder = tmp_path / "any_name"
    record_sweep(folder, {"x": ["model.lrn=[]", "sweep=lrn"], "y": ["sweep=lrn"]})
    assert state() == "0 of 2 jobs done"
    (folder / "sweep.json").unlink()
    lrn_run(folder, "off", 1, 0.14)
    lrn_run(folder, "on", 1, 0.12, done=False)
    assert state() == "1 of 2 jobs done on shapes (10 classes), 4 epochs"
    lrn_run(folder, "on", 2, 0.12)
    lrn_run(folder, "off", 2, 0.15)
    said = "same sign, one seed (top-1), not measured (top-5) on shapes (10 classes), 4 epochs"
    assert state() == f"3 of 4 jobs done: {said}"
    lrn_run(tmp_path / "mixed", "on", 1, 0.1)
    plain_run(tmp_path / "mixed", "sweep=lrn", train_error_window=500, report__panel="")
    (claim,) = survey(tmp_path)
    assert claim.state.startswith(f"3 of 4 jobs done: {said}; done: panel"), "a folder each, and why one has no report"
    assert any(said.startswith("mixed: panel") for said in claim.ours), "what cannot be compared does not stop the rest"


@pytest.mark.usefixtures("one_claim")
def test_claims_are_written(written: Path) -> None:
    claims, paths = write_claims(written.parent)
    assert [path.name for path in paths] == ["claims.html", "claims.md"]
    assert claims[0].state == "4 of 5 jobs done: same sign on shapes (10 classes), 3 to 4 epochs"
    for path in paths:
        text = path.read_text().replace("\\", "")
        for said in ("3.3", "sweep=lrn", "+1.4 / +1.2 points", "42.03 / 19.36 % by ten views", "4 of 5 jobs done",
                     "top-1 +2.00 [+2.00, +2.00] points", "model.lrn=[]: 14.15 / 7.00 %, validation",
                     "1 claims, of which 0 need no sweep"):  # fmt: skip
            assert said in text, said
    assert 'href="lrn/report.html"' in paths[0].read_text()
    assert "http" not in paths[0].read_text()


@pytest.mark.usefixtures("one_claim")
def test_the_command_lists_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", "--claims"])
    cli.main()
    out = capsys.readouterr().out
    assert "not run" in out
    assert out.splitlines()[-1] == str(tmp_path / "runs" / "claims.md")
    monkeypatch.setattr(sys, "argv", ["report"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2


def test_the_command_lets_keys_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, window in ((1, 250), (2, 500)):
        plain_run(tmp_path, seed=seed, train_error_window=window)
    drawn: list[Any] = []
    write: Callable[..., Any] = cli.write_report
    monkeypatch.setattr(cli, "write_report", lambda *args: drawn.append(args) or write(*args))
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "--allow", "train_error_window", "--allow", "data.size"])
    cli.main()
    assert drawn == [(tmp_path, ["train_error_window", "data.size"])]


def test_differences_equal_welchs_test() -> None:
    """Standard error, degrees of freedom and the bound for 95 %, against SciPy's; the same runs are paired."""
    a, b = [0.41, 0.43, 0.40], [0.39, 0.395, 0.401, 0.37]
    ours = ablation.unpaired_difference(SeedErrors(a), SeedErrors(b))
    theirs = stats.ttest_ind(a, b, equal_var=False)
    assert ours.error == pytest.approx(ours.mean / theirs.statistic)
    assert ours.freedom == pytest.approx(theirs.df)
    assert (abs(ours.mean) > ours.margin) == (theirs.pvalue < 0.05)
    low, high = theirs.confidence_interval(0.95)
    assert ours.margin == pytest.approx((high - low) / 2)
    pairs, theirs = ablation.paired_difference(list(zip(a, b[:3], strict=True))), stats.ttest_rel(a, b[:3])
    assert (pairs.mean / pairs.error, pairs.freedom) == pytest.approx((theirs.statistic, theirs.df))
