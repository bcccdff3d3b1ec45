"""Predict the five likeliest classes of images, and find out whether the right one is among them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from alexnet_pl.config.suggestions import suggest
from alexnet_pl.data.image_files import ImageFiles, image_batches
from alexnet_pl.data.sources.base import class_name
from alexnet_pl.errors import ConfigError
from alexnet_pl.files import from_csv_cell, read_text
from alexnet_pl.runs.trained import TrainedModel

TOP = 5
IMAGE, CLASS = ("image", "file", "filename", "path", "name"), ("class", "label")
"""What the two columns of a file of right classes are called, if it has a header"""


@dataclass(frozen=True, eq=False)
class Prediction:
    """An image as the net sees it."""

    name: str
    square: Tensor
    """uint8 (S, S, 3); empty where nothing is done with it any more"""
    top: list[tuple[str, float]]
    """class and probability, the likeliest first; fewer than five for a net of fewer classes"""
    label: str | None
    """the right class, where it is known"""
    rank: int | None
    """where the right class stands among all, 1 for the likeliest"""


def predict_images(
    net: TrainedModel, files: ImageFiles, views: int, labels: dict[str, str] | None = None
) -> Iterator[Prediction]:
    """Yield a prediction for each image that can be read.

    Args:
        views: 1, the centre, or 10, over which the probabilities are averaged (section 4.1).
        labels: the right class by an image's name or its file's; None: the name of its folder, where that is a class.
    """
    for numbers, squares in image_batches(files, max(1, 64 // views)):
        # A float32 softmax, as on every device: the likely classes are shown. evaluate ranks all, in float64.
        probabilities = net.logits(squares, views).softmax(2).mean(1).cpu()
        orders = probabilities.sort(stable=True, dim=1, descending=True).indices.tolist()
        for number, square, shares, order in zip(numbers, squares, probabilities.tolist(), orders, strict=True):
            name = files.names[number]
            label = files.labels[number] if labels is None else labels.get(name, labels.get(Path(name).name))
            known = label if label in net.classes else None
            rank = [net.classes[i] for i in order].index(known) + 1 if known else None
            yield Prediction(name, square, [(net.classes[i], shares[i]) for i in order[:TOP]], known, rank)


def read_labels(file: Path, classes: list[str]) -> dict[str, str]:
    """Read the right classes from a CSV file, the class by its name or its number.

    A line is `image,class`; under a header that says so there may be more columns, as in predict's own tables, and
    lines without a class, which count for nothing.

    Raises:
        ConfigError: it cannot be read, a class is none of the net's, or an image has two.
    """
    found: dict[str, str] = {}
    names = {str(number): name for number, name in enumerate(classes)} | {name: name for name in classes}
    try:
        text = read_text(file, "give lines of image,class").removeprefix("\ufeff")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{file} cannot be read as lines of image,class: {error}") from error
    head = [word.strip().lower() for word in rows[0]] if rows else []
    titled = any(word in IMAGE for word in head) and any(word in CLASS for word in head)
    at, of = (next(n for n, word in enumerate(head) if word in kind) for kind in (IMAGE, CLASS)) if titled else (0, 1)
    for row in rows[titled:]:
        if len(row) != (len(head) if titled else 2):
            columns = ",".join(head) if titled else "image,class"
            raise ConfigError(f"{file} has the line {','.join(row)!r}: each must be {columns}")
        name, label = (from_csv_cell(row[column].strip()) for column in (at, of))
        if titled and not label:
            continue
        label = names.get(label, class_name(label))
        if label not in names:
            raise ConfigError(f"{file}: {label} is no class of this net: {suggest(label, classes[:1000])}")
        if found.setdefault(name, label) != label:
            raise ConfigError(f"{file} says that {name} is {found[name]}, and that it is {label}: keep one of them")
    return found


def unmatched_labels(labels: dict[str, str], names: Iterable[str]) -> list[str]:
    """Return the images that a file of right classes names, and that are none of these."""
    there = {known for name in names for known in (name, Path(name).name)}
    return [name for name in labels if name not in there]
