"""Reports of runs built by hand, whose curves are straight lines: every crossing is known exactly."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from alexnet_pl.errors import ConfigError
from alexnet_pl.report import cli, curves
from alexnet_pl.report.compare import collect
from alexnet_pl.report.outputs import as_json, write_report
from alexnet_pl.report.page import report_page
from alexnet_pl.report.tables import finding, report_tables
from alexnet_pl.runs.sweep import record_sweep
from tests.helpers.reports import NASTY, make_run, rows, settings


def only_line(folder: Path) -> curves.Line:
    (panel,) = collect(folder).panels
    (line,) = panel.lines
    return line


def mean(line: curves.Line, metric: str) -> float | None:
    timing = line.timing(metric)
    assert timing is not None
    return timing.mean


# ------------------------------------------------------------------------------------------------ numbers


def test_crossing() -> None:
    assert curves.crossing([1, 2, 4], [0.5, 0.3, 0.1], 0.25) == pytest.approx(2.5)
    assert curves.crossing([1, 2], [0.5, 0.25], 0.25) == 2  # at the target counts
    assert curves.crossing([1, 2, 3], [0.5, 0.2, 0.9], 0.25) == pytest.approx(1 + 0.25 / 0.3)  # the first time
    assert curves.crossing([1, 2], [0.2, 0.1], 0.25) == 1
    assert curves.crossing([1, 2], [0.5, 0.26], 0.25) is None
    assert curves.crossing([], [], 0.25) is None


def test_each_metric_crosses_where_its_line_does(tmp_path: Path) -> None:
    make_run(tmp_path / "a", settings(), rows(crosses=6.13, epochs=9, ahead=1.7))
    line = only_line(tmp_path)
    assert mean(line, "running") == pytest.approx(6.13)  # only if windows stand at their centres
    assert mean(line, "averaged") == pytest.approx(6.13)  # only if they are weighted by size
    assert mean(line, "train_eval") == pytest.approx(6.13 - 1.7)


def test_a_lucky_window_moves_the_running_error_only(tmp_path: Path) -> None:
    make_run(tmp_path / "a", settings(), rows(crosses=6.9, epochs=9, wobble=0.03))
    line = only_line(tmp_path)
    # The first window under 0.25 is the 3rd of the seventh epoch, centred at 6.6; the one before is at 6.4.
    before, after = 0.25 + 0.05 * (6.9 - 6.4) + 0.03, 0.25 + 0.05 * (6.9 - 6.6) - 0.03
    assert mean(line, "running") == pytest.approx(6.4 + 0.2 * (before - 0.25) / (before - after))
    averaged = line.runs[0].curves["averaged"]
    whole = [y for x, y in zip(averaged.x, averaged.y, strict=True) if x % 1 == pytest.approx(0.5)]
    assert whole == pytest.approx([0.25 + 0.05 * (6.9 - (n + 0.5)) for n in range(9)])


def test_lucky_windows_do_not_move_what_is_reported_first(tmp_path: Path) -> None:
    make_run(tmp_path / "r", settings("relu"), rows(crosses=2.0, epochs=5, wobble=0.04))
    make_run(tmp_path / "t", settings("tanh"), rows(crosses=9.0, epochs=12, wobble=0.04))
    (panel,) = collect(tmp_path).panels
    averaged, running = panel.ratio("averaged"), panel.ratio("running")
    assert averaged is not None
    assert running is not None
    assert f"{running.value:.1f}" != f"{averaged.value:.1f}" == "4.5"
    assert finding(panel) == "tanh needs 4.5 times as many epochs as ReLU (paper: 6)"
    assert as_json(collect(tmp_path))["primary_metric"] == "averaged"
    (table,) = report_tables(collect(tmp_path))
    assert table.heads[1] == "averaged"


def test_mean_spread_and_ratio_over_seeds(tmp_path: Path) -> None:
    fast, slow = [2.1, 2.4, 2.2], [7.3, 8.9, 7.7]
    for seed in range(3):
        make_run(tmp_path / f"r{seed}", settings("relu", seed), rows(fast[seed], 5))
        make_run(tmp_path / f"t{seed}", settings("tanh", seed, lr=0.5), rows(slow[seed], 11))
    (panel,) = collect(tmp_path).panels
    for line, values in zip(panel.lines, (fast, slow), strict=True):
        timing = line.timing("running")
        assert timing is not None
        assert timing.mean == pytest.approx(np.mean(values))
        assert timing.spread == pytest.approx(np.std(values, ddof=1))
        assert (len(timing.values), len(timing.crossings)) == (3, 3)
    ratio = panel.ratio("running")
    assert ratio is not None
    assert (ratio.slow, ratio.fast, ratio.at_least) == ("tanh", "relu", False)
    assert ratio.value == pytest.approx(np.mean(slow) / np.mean(fast))
    assert ratio.spread == pytest.approx(np.std(np.divide(slow, fast), ddof=1))
    assert panel.paper_ratio == "6"


def test_seeds_that_end_apart_are_averaged_where_all_have_points(tmp_path: Path) -> None:
    make_run(tmp_path / "a", settings(seed=1), rows(3, 4))
    make_run(tmp_path / "b", settings(seed=2), rows(5, 6))
    middle, low, high = only_line(tmp_path).mean("running")
    assert middle.x == pytest.approx([e + c for e in range(4) for c in (0.15, 0.4, 0.6, 0.85)])
    assert middle.y[0] == pytest.approx(0.25 + 0.05 * (4 - 0.15))
    assert (low.y[0], high.y[0]) == pytest.approx((0.25 + 0.05 * (3 - 0.15), 0.25 + 0.05 * (5 - 0.15)))


def test_what_never_crossed_is_a_bound(tmp_path: Path) -> None:
    make_run(tmp_path / "r1", settings("relu", 1), rows(2.0, 5))
    make_run(tmp_path / "t1", settings("tanh", 1), rows(9.0, 11))
    make_run(tmp_path / "t2", settings("tanh", 2), rows(90.0, 11))
    (panel,) = collect(tmp_path).panels
    timing = panel.lines[1].timing("running")
    assert timing is not None
    assert (timing.mean, timing.spread) == (None, None)
    assert str(timing) == "> 10.85 (1 of 2 seeds crossed)"  # where the curve ends: its last window's centre
    ratio = panel.ratio("running")
    assert ratio is not None
    assert ratio.at_least
    assert ratio.value == pytest.approx((9.0 + 10.85) / 2 / 2.0)
    assert str(ratio).startswith("> 4.96")


def test_no_ratio_where_neither_crossed(tmp_path: Path) -> None:
    make_run(tmp_path / "r1", settings("relu"), rows(50, 3))
    make_run(tmp_path / "t1", settings("tanh"), rows(60, 3))
    assert collect(tmp_path).panels[0].ratio("running") is None


def test_best_of_a_learning_rate_search(tmp_path: Path) -> None:
    compare = {"report__compare": ["optim.lr"]}
    for name, lr, crosses, epochs in (("a", 0.1, 9, 5), ("b", 0.02, 7, 5), ("c", 0.004, 8, 5), ("d", 0.5, 3, 3)):
        make_run(tmp_path / name, settings(lr=lr, **compare), rows(crosses, epochs), done=epochs == 5)
    (panel,) = collect(tmp_path).panels
    assert [line.name for line in panel.lines] == ["0.004", "0.02", "0.1", "0.5"]
    assert [line.last_error for line in panel.lines[:2]] == pytest.approx([0.425, 0.375])
    assert panel.best is panel.lines[1]  # not the one that was lower when it stopped early
    assert panel.paper_ratio == ""


# ------------------------------------------------------------------------------------------------ records as they come


def test_a_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    make_run(tmp_path / "a", settings(), rows(3, 5))
    path = tmp_path / "a" / "metrics.csv"
    whole = only_line(tmp_path).runs[0].curves
    path.write_text(path.read_text() + "5.3,5300,0.")
    assert only_line(tmp_path).runs[0].curves == whole


def test_a_window_whose_start_was_not_recorded_is_left_out(tmp_path: Path) -> None:
    make_run(tmp_path / "a", settings(), [row for row in rows(6.13, 9) if row["epoch"] > 3.4])
    line = only_line(tmp_path)
    assert line.runs[0].curves["running"].x[0] == pytest.approx(3.6)
    assert mean(line, "running") == pytest.approx(6.13)
    assert line.runs[0].curves["averaged"].x[0] == pytest.approx(4.0)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    make_run(tmp_path / "a", settings(), rows(3, 2))
    (tmp_path / "a" / "metrics.csv").write_text("epoch,train/error\nx,y\n")
    with pytest.raises(ConfigError, match=r"metrics\.csv is damaged"):
        collect(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({}, {"activation": "tanh", "data__kind": "cifar10"}, r"panel 'raw' .* data\.kind \(shapes, cifar10\): report"),
        ({}, {"activation": "tanh", "train_error_window": 500}, r"panel 'raw' .* train_error_window \(250, 500\)"),
        ({}, {"activation": "tanh", "report__target": 0.3}, r"report\.target \(0\.25, 0\.3\)"),
        ({}, {"seed": 2, "lr": 0.5}, r"line relu of panel 'raw' .* optim\.lr \(0\.01, 0\.5\)"),
        (
            {},
            {"seed": 2, "stop_at_train_error": 0.1},
            r"line relu of panel 'raw' .* stop_at_train_error \(None, 0\.1\)",
        ),
        ({}, {}, r"has seed 1 2 times: remove one of a and b"),
    ],
)
def test_mixtures_are_refused_by_name(tmp_path: Path, first: dict, second: dict, said: str) -> None:
    make_run(tmp_path / "a", settings(**first), rows(3, 2))
    make_run(tmp_path / "b", settings(**second), rows(3, 2))
    with pytest.raises(ConfigError, match=said):
        write_report(tmp_path)
    assert not list(tmp_path.glob("*.*"))  # nothing written


@pytest.mark.parametrize(
    ("key", "values", "names"),
    [("model.lrn", ([], ["conv1"]), ["[]", "[conv1]"]), ("model.widths.conv1", (32, 8), ["8", "32"])],
)
def test_lists_and_single_layers_can_be_compared(tmp_path: Path, key: str, values: Any, names: list[str]) -> None:
    for i, value in enumerate(values):
        dotted = {"model__widths": {"conv1": value}} if "widths" in key else {"model__lrn": value}
        make_run(tmp_path / str(i), settings(report__compare=[key], **dotted), rows(3, 2))
    assert [line.name for line in collect(tmp_path).panels[0].lines] == names


def test_lines_may_differ_in_rate_and_length_and_panels_in_anything(tmp_path: Path) -> None:
    make_run(tmp_path / "a", settings(), rows(3, 2))
    make_run(tmp_path / "b", settings("tanh", lr=0.5, stop_at_train_error=0.1, trainer__max_epochs=3), rows(3, 2))
    make_run(tmp_path / "c", settings(data__kind="cifar10", report__panel="other", data__root="/x"), rows(3, 2))
    collected = collect(tmp_path)
    assert [panel.title for panel in collected.panels] == ["raw", "other"]
    assert collected.differing_keys == [
        "data.kind",
        "model.activation",
        "optim.lr",
        "stop_at_train_error",
        "trainer.max_epochs",
    ]


def test_runs_from_other_commits_or_versions_are_named(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        make_run(tmp_path / name, settings(seed=seed), rows(3, 2))
        identity = json.loads((tmp_path / name / "run.json").read_text())
        identity["git"] = {"commit": "0123456789abcdef", "dirty": name == "b"}
        identity["versions"] = {"torch": f"2.1{seed}"}
        (tmp_path / name / "run.json").write_text(json.dumps(identity))
    assert collect(tmp_path).notes == [
        "The runs differ in git commit: 012345678 (1 run), 012345678 + uncommitted changes (1 run).",
        "The runs differ in torch: 2.11 (1 run), 2.12 (1 run).",
    ]


# ------------------------------------------------------------------------------------------------ figure and page


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two panels, one with a nasty title, one run failed and one missing; reported twice."""
    folder = tmp_path_factory.mktemp("x") / "figure1"
    for seed in (1, 2):
        make_run(folder / f"r{seed}", settings("relu", seed), rows(2 + seed / 10, 5))
        make_run(folder / f"t{seed}", settings("tanh", seed), rows(9 + seed, 14))
    make_run(folder / "n", settings(report__panel=NASTY), rows(60, 3), done=False).fail("it broke: <b>badly</b>")
    record_sweep(folder, {"never_begun": ["seed=9"]})
    (folder / "report.html").write_text("old")
    (folder / "figure1.png").write_text("old")
    write_report(folder)
    write_report(folder)
    return folder


def test_nothing_is_left_beside(written: Path) -> None:
    assert {path.name for path in written.iterdir() if path.is_file()} == {
        ".lock", "figure1.png", "figure1.svg", "report-epochs.csv", "report-epochs.tex", "report.html", "report.json",
        "report.md", "sweep.json"
    }  # fmt: skip


def test_the_figure_shows_both_lines(written: Path) -> None:
    pixels = image.imread(written / "figure1.png")[..., :3]
    assert pixels.shape[1] >= 1200
    for colour in ("0072B2", "D55E00"):
        rgb = np.array(list(bytes.fromhex(colour))) / 255
        assert (np.abs(pixels - rgb).max(-1) < 0.01).any(0).sum() > 200  # columns: a curve is wider than its label


def test_the_page_needs_no_network_and_escapes(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert not re.search(r"""<(script|img|iframe)\s[^>]*src=["']?http|<link[^>]*href=["']?http""", page)
    assert "Plotly.newPlot" in page
    assert "alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x^$ [b]" in page
    assert '"text":"&lt;script&gt;alert(1)' in page  # the plot's title too: plotly reads a little HTML
    assert "<b>badly</b>" not in page


def test_the_page_has_the_numbers_beside_the_papers(written: Path) -> None:
    page = (written / "report.html").read_text()
    for text in (
        "2.15 ± 0.07",
        "10.50 ± 0.71",
        "35 to 36",
        "4.88 ± 0.17",
        "tanh needs 4.9 times as many epochs as ReLU",
    ):
        assert text in page, text
    assert "(paper: 6)" in page
    for sentence in curves.METRICS.values():
        assert sentence.split("'")[0] in page


def test_failed_and_missing_runs_are_named_first(written: Path) -> None:
    page = (written / "report.html").read_text()
    box = page[page.index('<div class="box">') : page.index("How fast nets learn")]
    assert "<b>failed</b> n: it broke: &lt;b&gt;badly&lt;/b&gt;" in box
    assert "<b>missing</b> never_begun" in box
    assert "r1" not in box
    plain = json.loads((written / "report.json").read_text())
    assert plain["without_metrics"] == [{"folder": "never_begun", "status": "missing", "failure": ""}]
    (nasty,) = [panel for panel in plain["panels"] if panel["title"] == NASTY]
    (run,) = nasty["lines"]["relu"]["runs"]
    assert (run["status"], run["failure"]) == ("failed", "it broke: <b>badly</b>")


def test_the_json_has_the_numbers(written: Path) -> None:
    plain = json.loads((written / "report.json").read_text())
    raw = next(panel for panel in plain["panels"] if panel["title"] == "raw")
    running = raw["lines"]["tanh"]["epochs_to_target"]["running"]
    assert running["mean"] == pytest.approx(10.5)
    assert running["seeds"] == pytest.approx([10, 11])
    assert running["spread"] == pytest.approx(np.std([10, 11], ddof=1))
    assert raw["ratio"]["running"]["value"] == pytest.approx(10.5 / 2.15)
    never = next(p for p in plain["panels"] if p["title"] == NASTY)["lines"]["relu"]["epochs_to_target"]["running"]
    assert (never["mean"], never["crossed"], never["seeds"]) == (None, 0, [None])
    assert never["not_before"] == pytest.approx(2.85)
    assert len(raw["lines"]["relu"]["runs"][0]["curves"]["running"]["x"]) == 20


def test_all_complete_means_no_box(tmp_path: Path) -> None:
    make_run(tmp_path / "a", settings(), rows(3, 5))
    assert '<div class="box">' not in report_page(collect(tmp_path))


# ------------------------------------------------------------------------------------------------ the command


def command(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["report", str(folder)])
    cli.main()


def test_the_command_ends_with_the_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "one run", settings(report__panel="[red]"), rows(3.21, 5))
    command(monkeypatch, run.folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [str(run.folder / "one run.png"), str(run.folder / "report.html")]
    assert any("3.21" in line for line in lines)
    assert any("[red]" in line for line in lines)


@pytest.mark.parametrize("case", ["empty", "absent", "no metrics"])
def test_mistakes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    folder = tmp_path / "absent" if case == "absent" else tmp_path
    if case == "no metrics":
        make_run(tmp_path / "a", settings(), [])
    said = {
        "empty": "holds no run",
        "absent": "is not a folder",
        "no metrics": r"logger=none .*\(1 done\)|\(1 done\).*logger=none",
    }
    with pytest.raises(SystemExit, match="1"):
        command(monkeypatch, folder)
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("error: ")
    assert re.search(said[case], sentence)
