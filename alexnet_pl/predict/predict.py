"""Predict the classes of images, find their neighbours, print both, and write the requested files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet_pl import files
from alexnet_pl.console import Meter, make_console
from alexnet_pl.data.image_files import ImageFiles, StoreImages, Warn, find_images
from alexnet_pl.errors import UserError, visible
from alexnet_pl.model.build import set_arithmetic
from alexnet_pl.predict.neighbours import Neighbour, hidden_layers, nearest_images
from alexnet_pl.predict.options import Options
from alexnet_pl.predict.outputs import to_csv, to_json
from alexnet_pl.predict.plots import draw_neighbours, draw_predictions
from alexnet_pl.predict.predictions import Prediction, predict_images, read_labels, unmatched_labels
from alexnet_pl.runs.mirror import attach_results
from alexnet_pl.runs.trained import TrainedModel, load

WIDTH = 24
"""Characters of a bar for a probability of 1"""


def predict(options: Options) -> bool:
    """Predict as the options say; return whether every image could be read.

    Raises:
        UserError: a mistake, or not one image could be read.
    """
    warnings: list[str] = []
    console = make_console()

    def warn(sentence: str) -> None:
        print(visible(sentence), file=sys.stderr)
        warnings.append(sentence)

    net = load(options.run, mean=options.mean)
    set_arithmetic()
    net = net.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    gallery = open_gallery(options.neighbours, net, warn) if options.neighbours else None
    images = ImageFiles(find_images(options.images, warn), net.resized_size, warn, net.squares)
    given = [options.run, options.labels or "", *images.names, *(gallery.names if gallery else [])]
    files.refuse_overwriting(options.outputs, map(Path, given))
    keep = bool(gallery or options.figure)
    predictions = predict_and_show(net, images, console, options.views, options.labels, keep)
    nearest = find_neighbours(net, predictions, gallery, console) if gallery else []
    if options.csv:
        files.write(options.csv, to_csv(predictions))
    if options.json:
        files.write(options.json, to_json(net, options.views, predictions, nearest))
    if options.figure:
        draw(net, predictions, gallery, nearest, options.figure, console)
    return not warnings


def open_gallery(place: str, net: TrainedModel, warn: Warn) -> ImageFiles | StoreImages:
    """Return the gallery to compare with: the images of a packed store, or the files that a word names."""
    root = files.expand(place)
    if (root / "plan.json").is_file():
        return StoreImages(root)
    return ImageFiles(find_images([place], warn), net.resized_size, warn, net.squares)


def predict_and_show(
    net: TrainedModel,
    images: ImageFiles,
    console: Console,
    views: int = 1,
    labels: Path | None = None,
    keep: bool = True,
) -> list[Prediction]:
    """Predict the classes of image files, and print each prediction as it is made.

    Args:
        views: 1, or 10 to average over.
        labels: right classes, as `read_labels` returns them.
        keep: whether to keep the squares; those of many images fill the memory.
    Raises:
        UserError: none of them could be read, or the labels are not of this net.
    """
    right = read_labels(labels, net.classes) if labels else None
    if right is not None and (unmatched := unmatched_labels(right, images.names)):
        print(
            f"{labels} names {len(unmatched):,} of {len(right):,} images that are not among these, as "
            f"{visible(unmatched[0])}",
            file=sys.stderr,
        )
    predictions = []
    for prediction in predict_images(net, images, views, right):
        show(prediction, console)
        predictions.append(prediction if keep else replace(prediction, square=torch.empty(0)))
    if not predictions:
        raise UserError("there is no image to look at: give files, folders or patterns that hold some")
    if ranks := [prediction.rank for prediction in predictions if prediction.rank]:
        top1, top5 = (sum(rank <= most for rank in ranks) for most in (1, 5))
        console.print(f"of {len(ranks)} whose class is known, {top1} right at once, {top5} among five")
    return predictions


def show(prediction: Prediction, console: Console) -> None:
    """Print an image's name and its likeliest classes with bars; the right one is green."""
    table = Table.grid(padding=(0, 1))
    for label, share in prediction.top:
        right = label == prediction.label
        bar = Bar(1, 0, share, width=WIDTH, color="green" if right else "blue")
        table.add_row(f"{100 * share:7.2f} %", bar, Text(visible(label), "green" if right else ""))
    console.print(visible(prediction.name), style="bold")
    console.print(table)


def find_neighbours(
    net: TrainedModel, predictions: Sequence[Prediction], gallery: ImageFiles | StoreImages, console: Console
) -> list[list[Neighbour]]:
    """Find the images of a gallery that are most like each of some images to the net, and print them.

    Raises:
        UserError: the gallery has no image.
    """
    hidden = hidden_layers(net)
    batches = (predictions[i : i + 64] for i in range(0, len(predictions), 64))
    units = torch.cat([hidden.outputs(torch.stack([each.square for each in batch]))[:, 0] for batch in batches])
    with Meter("comparing", len(gallery.names), make_console(stderr=True)) as meter:
        nearest = nearest_images(hidden, units, [each.name for each in predictions], gallery, meter.advance)
    if not any(nearest):
        raise UserError("there is no image to compare with: give --neighbours a folder or packed store with some")
    for prediction, row in zip(predictions, nearest, strict=True):
        console.print(f"most like {visible(prediction.name)}", style="bold")
        for each in row:
            console.print(f"  {each.distance:8.4g}  {visible(each.name)}")
    return nearest


def draw(
    net: TrainedModel,
    predictions: Sequence[Prediction],
    gallery: ImageFiles | StoreImages | None,
    nearest: list[list[Neighbour]],
    path: Path,
    console: Console,
) -> None:
    """Draw predictions, or neighbours if there is a gallery. A run's W&B run gets the first figure if it is a PNG."""
    if gallery:
        squares = [[(next(gallery.read([each.number]))[1], each) for each in row] for row in nearest]
        figures = draw_neighbours(list(zip(predictions, squares, strict=True)), path)
    else:
        figures = draw_predictions(predictions, path)
    console.print(f"drawn: {', '.join(map(str, figures))}")
    if net.run and figures[0].suffix == ".png":
        attach_results(net.run, {}, {"predictions": figures[0]})
