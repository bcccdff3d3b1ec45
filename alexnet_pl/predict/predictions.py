"""Predict the five likeliest classes of images, and find out whether the right one is among them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from alexnet_pl.config.suggestions import suggest
from alexnet_pl.data.image_files import ImageFiles, image_batches
from alexnet_pl.errors import ConfigError
from alexnet_pl.runs.trained import TrainedModel

TOP = 5


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
    """Read the right classes from a CSV file of lines `image,class`, the class by its name or its number.

    Raises:
        ConfigError: it cannot be read, or a class is none of the net's.
    """
    found = {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.reader(lines):
                if len(row) != 2:
                    raise ConfigError(f"{file} has the line {','.join(row)!r}: each must be image,class")
                name, label = (word.strip() for word in row)
                if label not in classes and label.isdecimal() and int(label) < len(classes):
                    label = classes[int(label)]
                if label not in classes:
                    raise ConfigError(f"{file}: {label} is no class of this net: {suggest(label, classes[:1000])}")
                found[name] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file} cannot be read as lines of image,class: {error}") from error
    return found
