"""Figures: the same under any settings of matplotlib's, every letter drawn or told, nothing cut, no curve covered."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import rcParams
from matplotlib.legend import Legend

from alexnet_pl.console import start_command
from alexnet_pl.evaluate import plots as evaluation
from alexnet_pl.evaluate.predictions import Predictions, make_predictions
from alexnet_pl.predict import plots as predictions
from alexnet_pl.predict.neighbours import Neighbour
from alexnet_pl.predict.predictions import Prediction
from alexnet_pl.report import plots as report
from alexnet_pl.report.compare import collect
from alexnet_pl.runs import provenance
from alexnet_pl.runs.figures import drawable, drawing, shorten, width, wrap
from tests.helpers.commands import environment
from tests.helpers.nets import untrained_model
from tests.helpers.reports import NAMES, lrn_run, make_run, rows, settings

LONG = "a name of many words that goes on and on, " * 5 + "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW"
MARK = "\N{POSITION INDICATOR}"  # STIX has it, DejaVu has not


@pytest.fixture(autouse=True)
def _checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "git_state", lambda: {"commit": "0123456789abcdef", "dirty": False})


# ------------------------------------------------------------------------------------------------ letters and lines


def test_a_letter_is_taken_from_a_font_that_has_it_or_told() -> None:
    with drawing(["cat", f"{MARK} 猫"]):
        assert rcParams["font.family"][0] == "DejaVu Sans"
        assert any(family.startswith("STIX") for family in rcParams["font.family"])
        assert "Last Resort High-Efficiency" not in rcParams["font.family"]
        assert drawable(f"é{MARK}猫:smile:\x1b[1m\n\udcff") == rf"é{MARK}\u732b:smile:\x1b[1m\n\udcff"
    with drawing(["cat"]):
        assert drawable(MARK) == r"\u2316", "what was not announced has no font"


@pytest.mark.parametrize("text", ["WWWW" * 20, "iiii " * 40, LONG, f"{MARK} " * 30, "x"])
def test_lines_are_as_wide_as_they_may_be(text: str) -> None:
    with drawing([text]):
        assert width(shorten(text, 1.5, 9), 9) <= 1.5
        assert max(width(line, 9) for line in wrap(text, 4, 9).splitlines()) <= 4
        assert shorten("short", 1.5, 9) == "short"


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"text.usetex": True}, {"font.family": "none"}, {"savefig.bbox": "tight"}])
def test_the_users_settings_do_not_count(tmp_path: Path, settings: dict[str, Any]) -> None:
    for name in ("own", "theirs"):
        with pytest.MonkeyPatch.context() as patch:
            for key, value in settings.items() if name == "theirs" else ():
                patch.setitem(rcParams, key, value)
            evaluation.draw_calibration(scores(3), "$title$", tmp_path / f"{name}.png")
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_a_command_forgets_a_notebooks_backend(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setenv("MPLBACKEND", backend)
    start_command()
    assert "MPLBACKEND" not in os.environ


@pytest.mark.slow
def test_a_report_is_drawn_under_a_notebooks_backend(tmp_path: Path) -> None:
    make_run(tmp_path / "a", settings(), rows(3, 5))
    given = environment(tmp_path) | {"MPLBACKEND": "module://no_such_module"}
    command = [sys.executable, "-m", "alexnet_pl.report", str(tmp_path)]
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / f"{tmp_path.name}.png").is_file()


# ------------------------------------------------------------------------------------------------ each figure


def scores(classes: int) -> Predictions:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(4 * classes) % classes
    logits = torch.randn(len(labels), classes, generator=generator, dtype=torch.float64)
    return make_predictions(logits.log_softmax(1), labels)


def classes(number: int) -> list[str]:
    return [f"{NAMES[i % len(NAMES)]} {i}" for i in range(number)]


def square(number: int) -> torch.Tensor:
    return torch.full((8, 8, 3), 7 * number, dtype=torch.uint8)


def images() -> list[Prediction]:
    top = [(name, 0.2) for name in NAMES[:5]]
    return [Prediction(f"{name.replace('/', '')}.png", square(i), top, None, None) for i, name in enumerate(NAMES[:6])]


def timed(folder: Path, panels: list[str], **other: Any) -> None:
    for number, panel in enumerate(panels):
        for seed, (activation, crosses) in enumerate((("relu", 2), ("tanh", 9), ("relu", 2.2)), 1):
            plain = settings(activation, seed, report__panel=panel, **other)
            make_run(folder / f"{number}{seed}", plain, rows(crosses, 4 if activation == "relu" else 12))


def searched(folder: Path) -> None:
    for lr in (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064):
        make_run(folder / str(lr), settings(lr=lr, report__compare=["optim.lr"]), rows(2 + 50 * lr, 5))


def compared(folder: Path, panel: str) -> None:
    for seed in (1, 2):
        for lrn in ("off", "on"):
            lrn_run(folder, lrn, seed, 0.1 * seed)
    plain = settings(report__panel=panel, report__compare=[], report__target=None)
    make_run(folder / "n", plain, rows(9, 3), False, [f"model.lrn={LONG}"])


FIGURES: dict[str, Callable[[Path], Any]] = {
    "one panel": lambda folder: timed(folder, ["a"]),
    "two panels": lambda folder: timed(folder, [LONG, "b"]),
    "four panels": lambda folder: timed(folder, [*NAMES[:3], LONG]),
    "search": searched,
    "curves": lambda folder: compared(folder, LONG),
    "matrix": lambda path: evaluation.draw_confusion(scores(12), classes(12), LONG, path),
    "tall matrix": lambda path: evaluation.draw_confusion(scores(30), classes(30), LONG, path),
    "pairs": lambda path: evaluation.draw_confusion(scores(45), classes(45), LONG, path),
    "calibration": lambda path: evaluation.draw_calibration(scores(3), LONG, path),
    "bars": lambda path: predictions.draw_predictions(images(), path),
    "neighbours": lambda path: predictions.draw_neighbours(
        [(one, [(square(n), Neighbour(n, "x", NAMES[n], 12.345)) for n in range(6)]) for one in images()], path
    ),
    "kernels": lambda path: report.draw_kernels(untrained_model("alexnet"), path),
}


@pytest.fixture(params=FIGURES)
def figure(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each figure as it is saved; a warning about a missing letter is an error."""
    saved: list[Any] = []

    def keep(figure: Any, path: Path) -> None:
        figure.draw_without_rendering()
        saved.append(figure)

    for module in (report, evaluation, predictions):
        monkeypatch.setattr(module, "save", keep)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        FIGURES[request.param](tmp_path / "figure.png" if request.param not in list(FIGURES)[:5] else tmp_path)
        if not saved:
            report.draw(collect(tmp_path, ["model"]), tmp_path / "figure.png")
    return saved[0]


@pytest.mark.slow
def test_nothing_is_cut_at_the_edge(figure: Any) -> None:
    drawn, (inches, high) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0, inches - drawn.x1, high - drawn.y1) > -0.02, (drawn, inches, high)


@pytest.mark.slow
@pytest.mark.parametrize("figure", list(FIGURES)[:5], indirect=True)
def test_no_name_or_number_covers_a_curve(figure: Any) -> None:
    legends = [legend for part in (figure, *figure.subfigs, *figure.axes) for legend in part.findobj(Legend)]
    assert legends
    for axes in figure.axes:
        inner = axes.bbox.padded(-2)
        for artist in (*legends, *axes.texts, *figure.texts):
            assert not inner.overlaps(artist.get_window_extent()), getattr(artist, "get_text", artist)
