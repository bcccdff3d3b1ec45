"""Predict: what a trained net sees in images, and which images it finds alike.

    python -m alexnet_pl.predict runs/alexnet cat.jpg photographs/ "more/*.png"     a run, or a checkpoint
    curl -s https://... | python -m alexnet_pl.predict runs/alexnet -               one image's bytes
    python -m alexnet_pl.predict photographs/ --torchvision                         torchvision's published weights
    python -m alexnet_pl.predict runs/alexnet photographs/ --figure figure4.png     the paper's Figure 4, left
    python -m alexnet_pl.predict runs/alexnet cat.jpg --neighbours data/packed --figure figure4.png    and right

A image that cannot be read is told, the others are still looked at, and the exit code is then 1. Names in a file are
for xargs: xargs -d '\\n' python -m alexnet_pl.predict runs/alexnet < names.txt
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet_pl import files
from alexnet_pl.console import Meter
from alexnet_pl.data.image_files import ImageFiles, StoreImages, Warn, find_images
from alexnet_pl.errors import UserError
from alexnet_pl.predict.guesses import Guess, guesses, read_labels
from alexnet_pl.predict.neighbours import Neighbour, hidden, neighbours
from alexnet_pl.predict.plots import SUFFIXES, draw_guesses, draw_neighbours, drawable
from alexnet_pl.runs.trained import TrainedModel, load, torchvision_net

WIDTH = 24
"""Characters of a bar for certainty"""


def predict(
    net: TrainedModel,
    chosen: ImageFiles,
    console: Console,
    views: int = 1,
    labels: Path | None = None,
    keep: bool = True,
) -> list[Guess]:
    """Look at image files, and print what is seen as it is seen.

    Args:
        views: 1, or 10 to average over.
        labels: as `read_labels` takes them.
        keep: the squares, too; of many images they fill the memory.
    Raises:
        UserError: none of them could be read, or the labels are not of this net.
    """
    right = read_labels(labels, net.classes) if labels else None
    found = []
    for guess in guesses(net, chosen, views, right):
        show(guess, console)
        found.append(guess if keep else replace(guess, square=torch.empty(0)))
    if not found:
        raise UserError("there is no image to look at: give files, folders or patterns that hold some")
    if ranks := [guess.rank for guess in found if guess.rank]:
        top1, top5 = (sum(rank <= most for rank in ranks) for most in (1, 5))
        console.print(f"of {len(ranks)} whose class is known, {top1} right at once, {top5} among five")
    return found


def alike(
    net: TrainedModel, found: Sequence[Guess], gallery: ImageFiles | StoreImages, console: Console
) -> list[list[Neighbour]]:
    """Find the images of a gallery that the net finds most like each of some images, and print them.

    Raises:
        UserError: the gallery has no image.
    """
    last = hidden(net)
    parts = [last.outputs(torch.stack([g.square for g in found[i : i + 64]]))[:, 0] for i in range(0, len(found), 64)]
    with Meter("comparing", len(gallery.names), Console(stderr=True)) as meter:
        nearest = neighbours(last, torch.cat(parts), [guess.name for guess in found], gallery, meter.advance)
    if not any(nearest):
        raise UserError("there is no image to compare with: give --neighbours a folder or packed store with some")
    for guess, row in zip(found, nearest, strict=True):
        console.print(f"most like {guess.name}", style="bold")
        for each in row:
            console.print(f"  {each.distance:8.4g}  {each.name}")
    return nearest


def show(guess: Guess, console: Console) -> None:
    """Print a image's name and its likeliest classes with bars; the right one is green."""
    table = Table.grid(padding=(0, 1))
    for label, share in guess.top:
        right = label == guess.label
        bar = Bar(1, 0, share, width=WIDTH, color="green" if right else "blue")
        table.add_row(f"{100 * share:7.2f} %", bar, Text(label, "green" if right else ""))
    console.print(guess.name, style="bold")
    console.print(table)


def as_csv(found: Sequence[Guess]) -> str:
    """A line for each guess: image, class (the right one, where it is known), rank, guess, probability."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", "class", "rank", "guess", "probability"])
    for each in found:
        for rank, (label, share) in enumerate(each.top, 1):
            writer.writerow([each.name, each.label or "", rank, label, f"{share:.7g}"])
    return out.getvalue()


def as_json(net: TrainedModel, views: int, found: Sequence[Guess], nearest: Sequence[list[Neighbour]]) -> str:
    """All of it: the net, and for each image its guesses and its neighbours."""
    rows = []
    for number, each in enumerate(found):
        top = [{"class": label, "probability": share} for label, share in each.top]
        row = {"image": each.name, "class": each.label, "rank": each.rank, "guesses": top}
        if nearest:
            near = [{"image": n.name, "class": n.label, "distance": n.distance} for n in nearest[number]]
            row["neighbours"] = near
        rows.append(row)
    return json.dumps({"net": net.name, "views": views, "images": rows}, indent=1)


def main() -> None:
    """The command. Exit code 0: all images were looked at; 1: some could not be, or a mistake, told in a sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", metavar="RUN", nargs="?", help="a run folder, a folder of one run, or a checkpoint")
    add("images", metavar="PICTURE", nargs="*", help='files, folders, patterns, or "-" for standard input')
    published = "torchvision's published weights instead of a run: from its .pth file, or downloaded; put it last"
    add("--torchvision", metavar="FILE", nargs="?", const="", help=published)
    add("--views", type=int, choices=[1, 10], default=1, help="average over ten views of each image (%(default)s)")
    right = "a CSV file of image,class; otherwise the name of a image's folder counts, where it is a class"
    add("--labels", metavar="FILE", type=Path, help=right)
    near = "find the six nearest by the last hidden layer in a folder, a pattern, or a packed store"
    add("--neighbours", metavar="SET", help=near)
    add("--csv", metavar="FILE", type=Path, help="write the guesses as a table")
    add("--json", metavar="FILE", type=Path, help="write guesses and neighbours")
    drawn = f"draw the guesses, or the neighbours with --neighbours ({', '.join(SUFFIXES)})"
    add("--figure", metavar="FILE", type=Path, help=drawn)
    arguments = parser.parse_intermixed_args()
    words = [word for word in (arguments.run, *arguments.images) if word is not None]
    if len(words) < 2 - (arguments.torchvision is not None):
        parser.error("give a run and images")
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with a image is told
    try:
        failed = _run(arguments, words)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'output'}: {error.strerror or error}")
    if failed:
        sys.exit(1)


def _run(arguments: argparse.Namespace, words: list[str]) -> bool:
    """Whether a image could not be read."""
    said: list[str] = []
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def tell(sentence: str) -> None:
        print(sentence, file=sys.stderr)
        said.append(sentence)

    if arguments.figure:
        drawable(arguments.figure)
    for path in (arguments.csv, arguments.json, arguments.figure):
        if path and not path.parent.is_dir():
            raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    net = load(words.pop(0)) if arguments.torchvision is None else torchvision_net(arguments.torchvision or None)
    net = net.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    gallery = _gallery(arguments.neighbours, net, tell) if arguments.neighbours else None
    chosen = ImageFiles(find_images(words, tell), net.resized_size, tell)
    keep = bool(gallery or arguments.figure)
    found = predict(net, chosen, console, arguments.views, arguments.labels, keep)
    nearest = alike(net, found, gallery, console) if gallery else []
    if arguments.csv:
        files.write(arguments.csv, as_csv(found))
    if arguments.json:
        files.write(arguments.json, as_json(net, arguments.views, found, nearest))
    if arguments.figure:
        if gallery:
            shown = [[(next(gallery.read([each.number]))[1], each) for each in row] for row in nearest]
            written = draw_neighbours(list(zip(found, shown, strict=True)), arguments.figure)
        else:
            written = draw_guesses(found, arguments.figure)
        console.print(f"drawn: {', '.join(map(str, written))}")
        if net.run and written[0].suffix == ".png":
            from alexnet_pl.training import loggers  # and Lightning with it, which nothing else needs

            loggers.attach_results(net.run, {}, {"predictions": written[0]})
    return bool(said)


def _gallery(place: str, net: TrainedModel, tell: Warn) -> ImageFiles | StoreImages:
    root = Path(place).expanduser()
    if (root / "plan.json").is_file():
        return StoreImages(root)
    return ImageFiles(find_images([place], tell), net.resized_size, tell)
