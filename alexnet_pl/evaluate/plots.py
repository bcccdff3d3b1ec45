"""Draw two figures of an evaluation: the confusions of classes, and the calibration of probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alexnet_pl.evaluate.predictions import BINS, Predictions, calibration, class_counts, confused_pairs, confusion
from alexnet_pl.runs.figures import drawing, save, shorten, width, wrap

MATRIX = 40
"""Most classes for a matrix of confusions; with more classes, the figure has the most frequent pairs"""
PAIRS = 25
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"  # Okabe and Ito's, which colour-blind readers can tell apart


def draw_confusion(predictions: Predictions, classes: list[str], title: str, path: Path) -> None:
    """Write a PNG: a matrix with a row for each right class, or bars of the pairs that are confused most often."""
    from matplotlib.figure import Figure

    with drawing([title, *classes], font__size=10):
        names = [_short(name) for name in classes]
        if len(classes) <= MATRIX:
            side = 0.34 * max(len(classes), 8) + max(width(name, 9) for name in names)
            figure = Figure(figsize=(side + 2, side + 1.2), dpi=150, layout="compressed")
            _matrix(figure, confusion(predictions, len(classes)), names)
        else:
            pairs = confused_pairs(predictions)[:PAIRS]
            figure = Figure(figsize=(9, 1.4 + 0.27 * max(len(pairs), 3)), dpi=150, layout="constrained")
            _bars(figure.subplots(), pairs, class_counts(predictions, len(classes))[0], names)
        _save(figure, title, path)


def _matrix(figure: Any, counts: np.ndarray, names: list[str]) -> None:
    axes = figure.subplots()
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    matrix = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90 if len(names) > 12 else 40, ha="center" if len(names) > 12 else "right",
                    rotation_mode="default" if len(names) > 12 else "anchor")  # fmt: skip
    axes.set_yticks(ticks, names)
    axes.tick_params(labelsize=9, length=0)
    axes.set(xlabel="predicted class", ylabel="right class")
    axes.spines[:].set_visible(False)
    if len(names) <= 20:
        for row, column in zip(*counts.nonzero(), strict=True):
            ink = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(matrix, ax=axes, fraction=0.045, pad=0.02)
    bar.ax.yaxis.set_major_formatter(_percent)
    bar.set_label("share of the right class's images")


def _bars(axes: Any, pairs: list[tuple[int, int, int]], images: np.ndarray, names: list[str]) -> None:
    if not pairs:
        axes.text(0.5, 0.5, "no image is taken for another class", ha="center", va="center")
        axes.set_axis_off()
        return
    counts = [count for *_, count in pairs]
    axes.barh(range(len(pairs)), counts, color=BLUE, height=0.72)
    for place, (right, _, count) in enumerate(pairs):
        text = f" {count:,} of {images[right]:,}"
        axes.text(count, place, text, va="center", fontsize=8, color=GREY)
    axes.set_yticks(
        range(len(pairs)), [f"{names[right]} → {names[predicted]}" for right, predicted, _ in pairs], fontsize=9
    )
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set(xlim=(0, 1.15 * max(counts)), xlabel="images of the first class that are taken for the second")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_calibration(predictions: Predictions, title: str, path: Path) -> None:
    """Write a PNG: the share of right predictions in each bin of confidence, against the mean confidence."""
    from matplotlib.figure import Figure

    bins = calibration(predictions)
    left, width = np.arange(BINS) / BINS, 1 / BINS
    filled = bins.images > 0
    with drawing([title], font__size=10):
        figure = Figure(figsize=(5.6, 6.4), dpi=150, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.bar(left[filled], bins.accuracy[filled], width, align="edge", color=BLUE, edgecolor="white",
                  label="right answers")  # fmt: skip
        upper.plot(bins.confidence[filled], bins.confidence[filled], "o", color=ORANGE, markersize=5,
                   label="mean probability")  # fmt: skip
        upper.vlines(bins.confidence[filled], bins.accuracy[filled], bins.confidence[filled], color=ORANGE, linewidth=1)
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (6, 4)))
        upper.set_title(f"expected calibration error {100 * bins.error:.2f} %", fontsize=10, weight="bold")
        upper.legend(frameon=False, loc="upper left")
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right answers")
        upper.yaxis.set_major_formatter(_percent)
        lower.bar(left, bins.images / bins.images.sum(), width, align="edge", color=GREY, edgecolor="white")
        lower.set(xlabel="probability of the predicted class", ylabel="share of images")
        for formatted in (lower.xaxis, lower.yaxis):
            formatted.set_major_formatter(_percent)
        for axes in (upper, lower):
            axes.spines[["top", "right"]].set_visible(False)
        _save(figure, title, path)


def _short(name: str) -> str:
    """Return the first of a class's names, cut if it is long."""
    return shorten(name.split(",")[0], 1.9, 9)


def _percent(value: float, _: int | None = None) -> str:
    return f"{100 * value:.0f} %"


def _save(figure: Any, title: str, path: Path) -> None:
    figure.suptitle(wrap(title, figure.get_figwidth(), 10), fontsize=10)
    save(figure, path)
