"""Draw Figure 4: images with the net's five likeliest classes (left), and with their nearest neighbours (right)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

from torch import Tensor

from alexnet_pl.data.image_files import STDIN
from alexnet_pl.predict.neighbours import NEAREST, Neighbour
from alexnet_pl.predict.predictions import TOP, Prediction
from alexnet_pl.runs.figures import drawing, save, shorten

IMAGES, ROWS = 32, 8
"""Most images with bars in a figure, and most rows of neighbours"""
RIGHT, WRONG = "#f4a6a0", "#a9c4e4"
"""Colours of bars, as in the paper: the right class, and the others"""

Row = tuple[Prediction, list[tuple[Tensor, Neighbour]]]
"""An image, and its neighbours as pixels, uint8 (S, S, 3)"""


def draw_predictions(predictions: Sequence[Prediction], path: Path) -> list[Path]:
    """Draw each image over its label and its five bars, 32 in a figure; return the files written."""
    return [_save(_bars, part, file, _words(part)) for part, file in _split(predictions, IMAGES, path)]


def draw_neighbours(rows: Sequence[Row], path: Path) -> list[Path]:
    """Draw each image to the left of its neighbours, 8 rows in a figure; return the files written."""
    files = []
    for part, file in _split(rows, ROWS, path):
        words = _words([prediction for prediction, _ in part])
        files.append(_save(_rows, part, file, words + [each.label for _, near in part for _, each in near]))
    return files


def _words(predictions: Sequence[Prediction]) -> list[str]:
    """Return the names of images and of classes."""
    return [word for one in predictions for word in (one.name, one.label or "", *(label for label, _ in one.top))]


def _split(items: Sequence[Any], most: int, path: Path) -> list[tuple[Sequence[Any], Path]]:
    """Split items over several files: figure.png, figure-2.png and so on."""
    parts = [items[i : i + most] for i in range(0, len(items), most)]
    return [(part, path if n == 1 else path.with_stem(f"{path.stem}-{n}")) for n, part in enumerate(parts, 1)]


def _save(draw: Any, items: Sequence[Any], path: Path, words: list[str]) -> Path:
    with drawing(words, svg__fonttype="none"):
        save(draw(items), path)
    return path


def _bars(predictions: Sequence[Prediction]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(len(predictions), 4 if len(predictions) <= 16 else 8)
    rows = ceil(len(predictions) / columns)
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.03, hspace=0.02, wspace=0.02)
    figure = Figure(figsize=(1.9 * columns, 3.1 * rows), dpi=150, layout=layout)
    cells = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1.75, 0.95] * rows)
    for axes in cells.flat:
        axes.set_axis_off()
    for number, prediction in enumerate(predictions):
        row, column = divmod(number, columns)
        image, bars = cells[2 * row, column], cells[2 * row + 1, column]
        image.imshow(prediction.square.numpy())
        name = prediction.label or _file(prediction)
        bars.set_title(shorten(name, 1.6, 8.5), fontsize=8.5, weight="bold" if prediction.label else "normal", pad=3)
        for place, (label, share) in enumerate(prediction.top):
            bars.barh(place, share, height=0.82, color=RIGHT if label == prediction.label else WRONG)
            bars.text(0.015, place, shorten(label, 1.75, 7.5), va="center", fontsize=7.5)
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
    for line, (prediction, nearest) in zip(grid, rows, strict=True):
        cells = [(prediction.square, shorten(prediction.label or _file(prediction), 1.25, 7.5))]
        cells += [(square, f"{shorten(each.label, 0.8, 7.5)}  {each.distance:.3g}") for square, each in nearest]
        for axes, (square, title) in zip([line[0], *line[2:]], cells, strict=False):
            axes.imshow(square.numpy())
            axes.set_title(title, fontsize=7.5, y=-0.03, va="top", pad=0)
    figure.supxlabel("beneath each: its class or folder, and its distance in the last hidden layer", fontsize=7)
    return figure


def _file(prediction: Prediction) -> str:
    return "standard input" if prediction.name == STDIN else Path(prediction.name).stem
