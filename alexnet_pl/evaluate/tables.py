"""Print an evaluation: a title, the results of each member, the easiest and the hardest classes."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from alexnet_pl.errors import visible
from alexnet_pl.evaluate.predictions import Predictions, class_counts, summary
from alexnet_pl.evaluate.settings import Member, Settings, member_labels

FEW = 5
"""Number of easiest classes to show, and of hardest"""


def describe(members: list[Member], settings: Settings, images: int, data: str) -> str:
    """Return one line about an evaluation: `an ensemble of 3 nets on 2,000 images (shapes, val), 10 views each`."""
    alone = len(members) == 1
    nets = members[0].name.replace(",", ", ") if alone else f"an ensemble of {len(members)} nets"
    views = "by the centre" if settings.views == 1 else f"{settings.views} views each"
    averaged = f", {settings.average} averaged" if settings.views * len(members) > 1 else ""
    return visible(f"{nets} on {images:,} images ({data}, {settings.split}), {views}{averaged}")


def show_members(predictions: list[Predictions], members: list[Member], console: Console) -> None:
    """Print the results of each member. The last predictions are those of the ensemble, if there are several."""
    table = Table(Column(overflow="fold"), "top-1 error", "top-5 error", "nll", "calibration error", box=SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    names = member_labels(members) + (["ensemble"] if len(members) > 1 else [])
    for name, own in zip(names, predictions, strict=False):
        figures = summary(own)
        shares = [f"{100 * figures[key]:.2f} %" for key in ("error", "top5_error", "calibration_error")]
        table.add_row(visible(name), *shares[:2], f"{figures['nll']:.4f}", shares[2])
    console.print(table)


def show_classes(predictions: Predictions, classes: list[str], console: Console) -> None:
    """Print the classes with the highest and the lowest accuracy, among those with images."""
    counts = list(zip(*class_counts(predictions, len(classes)), strict=True))
    present = [label for label, (images, _) in enumerate(counts) if images]
    order = sorted(present, key=lambda label: -counts[label][1] / counts[label][0])
    few = min(FEW, len(order) // 2)
    table = Table("easiest classes", "accuracy", "hardest classes", "accuracy", box=SIMPLE)

    def cells(label: int) -> list[str]:
        images, correct = counts[label]
        return [visible(classes[label]), f"{100 * correct / images:.1f} % of {images:,}"]

    for easy, hard in zip(order[:few], order[::-1][:few], strict=True):
        table.add_row(*cells(easy), *cells(hard))
    console.print(table)
