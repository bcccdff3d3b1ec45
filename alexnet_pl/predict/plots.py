"""Figure 4: images with the net's five likeliest classes (left), and with their nearest neighbours (right)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

from torch import Tensor

from alexnet_pl import files
from alexnet_pl.data.image_files import STDIN
from alexnet_pl.errors import ConfigError
from alexnet_pl.predict.guesses import TOP, Guess
from alexnet_pl.predict.neighbours import NEAREST, Neighbour

PICTURES, ROWS = 32, 8
"""Most that a figure holds: images with bars, and rows of neighbours"""
SUFFIXES = (".png", ".svg", ".pdf")
RIGHT, WRONG = "#f4a6a0", "#a9c4e4"
"""Of bars, as in the paper: the right class, and the others"""

Row = tuple[Guess, list[tuple[Tensor, Neighbour]]]
"""A image, and its neighbours as they look, uint8 (S, S, 3)"""


def drawable(path: Path) -> Path:
    """The path, if a figure can be written there by its name.

    Raises:
        ConfigError: it cannot.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--figure {path} must end with {', '.join(SUFFIXES)}: its name says what is written")
    return path


def draw_guesses(guesses: Sequence[Guess], path: Path) -> list[Path]:
    """Each image over its label and its five bars, 32 in a figure; returns the files written."""
    return [_save(_bars, part, place) for part, place in _shared(guesses, PICTURES, path)]


def draw_neighbours(rows: Sequence[Row], path: Path) -> list[Path]:
    """Each image at the left of its neighbours, 8 rows in a figure; returns the files written."""
    return [_save(_rows, part, place) for part, place in _shared(rows, ROWS, path)]


def _shared(items: Sequence[Any], most: int, path: Path) -> list[tuple[Sequence[Any], Path]]:
    """Items over several files: figure.png, figure-2.png and so on."""
    starts = range(0, len(items), most)
    return [(items[i : i + most], path.with_stem(path.stem + f"-{n}" * (n > 1))) for n, i in enumerate(starts, 1)]


def _save(draw: Any, items: Sequence[Any], path: Path) -> Path:
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False, "svg.fonttype": "none"}):  # a $ in a name is a $
        figure = draw(items)
        with files.beside(path) as part:
            figure.savefig(part, format=path.suffix[1:].lower())
    return path


def _bars(guesses: Sequence[Guess]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(len(guesses), 4 if len(guesses) <= 16 else 8)
    rows = ceil(len(guesses) / columns)
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.03, hspace=0.02, wspace=0.02)
    figure = Figure(figsize=(1.9 * columns, 3.1 * rows), dpi=150, layout=layout)
    cells = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1.75, 0.95] * rows)
    for axes in cells.flat:
        axes.set_axis_off()
    for number, guess in enumerate(guesses):
        row, column = divmod(number, columns)
        image, bars = cells[2 * row, column], cells[2 * row + 1, column]
        image.imshow(guess.square.numpy())
        name = guess.label or _file(guess)
        bars.set_title(_short(name, 24), fontsize=8.5, weight="bold" if guess.label else "normal", pad=3)
        for place, (label, share) in enumerate(guess.top):
            bars.barh(place, share, height=0.82, color=RIGHT if label == guess.label else WRONG)
            bars.text(0.015, place, _short(label, 28), va="center", fontsize=7.5)
        bars.set(xlim=(0, 1), ylim=(TOP - 0.5, -0.5))
        bars.axvline(0, color="#777777", linewidth=0.8)
    return figure


def _rows(rows: Sequence[Row]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.35 * (NEAREST + 1) + 0.3, 1.6 * len(rows)), dpi=150, layout="constrained")
    widths = [1, 0.12, *[1] * NEAREST]  # a gap, as in the paper
    grid = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (guess, nearest) in zip(grid, rows, strict=True):
        shown = [(guess.square, _short(guess.label or _file(guess), 22))]
        shown += [(square, f"{_short(each.label, 16)}  {each.distance:.3g}") for square, each in nearest]
        for axes, (square, said) in zip([line[0], *line[2:]], shown, strict=False):
            axes.imshow(square.numpy())
            axes.set_title(said, fontsize=7.5, y=-0.03, va="top", pad=0)
    figure.supxlabel("beneath each: its class or folder, and its distance in the last hidden layer", fontsize=7)
    return figure


def _file(guess: Guess) -> str:
    return "standard input" if guess.name == STDIN else Path(guess.name).stem


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
