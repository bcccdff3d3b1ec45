"""Predict the five likeliest classes of images, and find the rank of the right class."""

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
"""Names of the two columns in a file of right classes, if it has a header"""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for an image."""

    name: str
    square: Tensor
    """uint8 (S, S, 3); empty if it is not needed any more"""
    top: list[tuple[str, float]]
    """class and probability, the likeliest first; fewer than five for a net of fewer classes"""
    label: str | None
    """the right class, if it is known"""
    rank: int | None
    """rank of the right class among all; 1 is the likeliest"""


def predict_images(
    net: TrainedModel, files: ImageFiles, views: int, labels: dict[str, str] | None = None
) -> Iterator[Prediction]:
    """Yield a prediction for each image that can be read.

    Args:
        views: 1 for the centre, or 10; the probabilities of ten views are averaged (section 4.1).
        labels: the right class by an image's name or its file's; None: the name of its folder, if that is a class.
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
    """Read the right classes from a CSV file. A class is given by its name or its number.

    A line is `image,class`. Below a header there may be more columns, as in predict's own tables. Lines without a class
    are ignored.

    Raises:
        ConfigError: it cannot be read, the net does not have a class, or an image has two classes.
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
    """Return the images that a file of right classes names, but that are not among these."""
    there = {known for name in names for known in (name, Path(name).name)}
    return [name for name in labels if name not in there]
