"""Tables: what ± and brackets are, and arms that share their seeds; captions that say what was drawn."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from alexnet_pl import compose
from alexnet_pl.prepare.options import Options
from alexnet_pl.prepare.prepare import prepare
from alexnet_pl.report.ablation import SeedErrors, compare_errors
from alexnet_pl.report.compare import collect
from alexnet_pl.report.outputs import csv_table, latex_table, markdown, write_report
from alexnet_pl.report.page import plot, report_page
from alexnet_pl.report.tables import axis_limits, report_tables, small_print
from tests.helpers.reports import lrn_run, make_run, rows, settings
from tests.helpers.sources import draw_source, write_folders

A, B = [0.41, 0.43, 0.40], [0.39, 0.395, 0.401]


def test_arms_that_share_seeds_are_compared_in_pairs() -> None:
    ours = compare_errors(SeedErrors(A, [1, 2, 3]), SeedErrors(B[::-1], [3, 2, 1]))
    theirs = stats.ttest_rel(A, B)
    assert ours.paired
    assert ours.mean / ours.error == pytest.approx(theirs.statistic)  # type: ignore[operator]
    assert ours.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_of_seeds_that_only_one_arm_has_none_is_compared() -> None:
    ours = compare_errors(SeedErrors(A, [1, 2, 3]), SeedErrors([*B, 0.9], [9, 2, 3, 8]))
    assert ours.paired
    assert ours.mean == pytest.approx(np.mean(np.subtract(A[1:], B[1:])))


@pytest.mark.parametrize("others", [[4, 5, 6], [3, 5, 6]])
def test_other_seeds_are_independent(others: list[int]) -> None:
    ours = compare_errors(SeedErrors(A, [1, 2, 3]), SeedErrors(B, others))
    theirs = stats.ttest_ind(A, B, equal_var=False)
    assert not ours.paired
    assert ours.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_one_seed_has_no_interval() -> None:
    assert compare_errors(SeedErrors([0.4], [1]), SeedErrors([0.3], [1])).interval is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of two lines beside a panel that is timed."""
    folder = tmp_path_factory.mktemp("x") / "lrn"
    for seed, (off, on) in enumerate(zip(A, B, strict=True), 1):
        lrn_run(folder, "off", seed, off)
        lrn_run(folder, "on", seed, on)
        make_run(folder / f"r{seed}", settings(seed=seed, report__panel="timed"), rows(2 + seed / 10, 5))
    write_report(folder)
    return folder


@pytest.mark.slow
def test_every_format_has_the_same_rows_and_says_what_the_signs_are(folder: Path) -> None:
    report = collect(folder)
    page, text = report_page(report), markdown(report).replace("\\", "")
    for table in report_tables(report):
        latex = latex_table(table).replace(r"$\pm$", "±").replace("{-}", "-").replace("{[}", "[").replace("\\%", "%")
        read = list(csv.reader(csv_table(table).splitlines()))
        assert [row[1:] for row in read[1:]] == [
            [cell.partition("\n")[0] for cell in row] for _, members in table.sections for row in members
        ]
        assert (folder / f"report-{table.name}.csv").read_text() == csv_table(table)
        assert (folder / f"report-{table.name}.tex").read_text() == latex_table(table)
        for row in [row for _, members in table.sections for row in members]:
            for cell in (cell.partition("\n")[0] for cell in row):
                assert all(cell.replace("\\", "") in where for where in (page, text)), cell
        for place, head in enumerate(table.heads):
            cells = [row[place] for _, members in table.sections for row in members]
            if any("±" in cell for cell in cells):
                assert head.endswith("mean ± sd over seeds")
            if any(" [" in cell for cell in cells):
                assert head.endswith("[95 % interval]")
        if "±" in str(table.sections):
            assert all("sd is the standard deviation, n - 1" in where for where in (latex, page, text))
    (errors,) = [table for table in report_tables(report) if table.name == "errors"]
    theirs = stats.ttest_rel(B, A).confidence_interval(0.95)
    ours = f"{100 * np.mean(np.subtract(B, A)):+.2f} [{100 * theirs.low:+.2f}, {100 * theirs.high:+.2f}]"
    assert ours in errors.sections[0][1][1]
    assert ours in page


# ------------------------------------------------------------------------------------------------ captions


def test_the_caption_has_the_windows_that_there_were(tmp_path: Path) -> None:
    """An epoch of 1,000 images cannot have windows of 10,000."""
    whole = [row for row in rows(9, 3) if row["images_seen"] % 1000 == 0]
    make_run(tmp_path / "a", settings(train_error_window=10_000), whole)
    assert "in windows of about 1,000 images" in small_print(collect(tmp_path))


@pytest.mark.slow
def test_ones_own_photographs_are_called_what_they_are(tmp_path: Path) -> None:
    source = write_folders(tmp_path / "holiday", draw_source(train=4, val=2))
    prepare(source, tmp_path / "store", Options(size=24, workers=1), Console(file=io.StringIO()))
    own = compose("data=packed", f"data.root={tmp_path / 'store'}").data.name
    make_run(tmp_path / "a", settings(data__name=own), rows(9, 2))
    assert "Data: holiday." in small_print(collect(tmp_path))


@pytest.mark.parametrize(("epochs", "menus"), [(1, False), (3, True)])
def test_a_menu_is_named_where_there_is_one(tmp_path: Path, epochs: int, menus: bool) -> None:
    plain = settings(report__target=None, report__compare=[])
    metrics = [{key: value for key, value in row.items() if "train_eval" not in key} for row in rows(9, epochs)]
    make_run(tmp_path / "a", plain, metrics if menus else metrics[:2])
    report = collect(tmp_path)
    drawn, has = plot(report)
    assert has is menus
    assert ('"updatemenus":[{' in drawn) is menus
    assert ("The menu chooses another error" in report_page(report)) is menus


def test_bands_are_within_the_axes(tmp_path: Path) -> None:
    for seed, (val, crosses) in enumerate(((0.02, 3.0), (0.62, 14.0), (0.3, 9.0)), 1):
        plain = settings(seed=seed, report__target=None, report__compare=[])
        metrics = rows(crosses, 4)
        metrics[-1]["val/error"] = val
        make_run(tmp_path / str(seed), plain, metrics)
    (panel,) = collect(tmp_path).panels
    low, high = axis_limits(panel, ("running", "validation"))
    (line,) = panel.lines
    for metric in ("running", "validation"):
        for curve in line.mean(metric):
            assert all(low <= y <= high for x, y in zip(curve.x, curve.y, strict=True) if x > 0.2)
