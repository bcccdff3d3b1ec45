"""Evaluate: how good a trained net is, or several together, on the images of its validation set.

    python -m alexnet_pl.evaluate runs/train/defaults              one run, by the centre of each image
    python -m alexnet_pl.evaluate runs/alexnet/defaults --views 10         by ten views, as in 2012
    python -m alexnet_pl.evaluate runs/seeds                       an ensemble: all runs of a folder that are done
    python -m alexnet_pl.evaluate runs/a runs/b --weights best     of the runs that are named

The probabilities that views and nets give are averaged, as in 2012. Prints errors, calibration and the classes that are
easiest and hardest, and writes evaluation.json, predictions.parquet, classes.csv, confusion.png and calibration.png.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape as literal
from rich.table import Column, Table

from alexnet_pl import files
from alexnet_pl.errors import ConfigError, UserError
from alexnet_pl.evaluate.settings import Settings, find_members, output_folder, run_labels
from alexnet_pl.runs.run import CHECKPOINT_NAMES, Run

if TYPE_CHECKING:
    from alexnet_pl.evaluate.predictions import Predictions

FEW = 5
"""Classes that are named as the easiest, and as the hardest"""


def evaluate(
    found: list[Run], settings: Settings, out: Path, device: str | None, keep_logits: bool, console: Console
) -> None:
    """Evaluate one run, or several as an ensemble; print the figures, write all into a folder.

    A single run's W&B run gets them too.

    Args:
        device: as torch names it; None: a GPU if there is one.
        keep_logits: also write logits.npy, float32 (images, views, classes); of an ensemble logits-1.npy and so on.
    Raises:
        ConfigError: a checkpoint or the images are missing, or the nets cannot look at the same images.
        UserError: a net's answers are no numbers.
    """
    import numpy as np
    import torch

    from alexnet_pl.console import Meter
    from alexnet_pl.evaluate.ensemble import EvalImages, load_models, run_models
    from alexnet_pl.evaluate.outputs import write_classes, write_evaluation, write_predictions
    from alexnet_pl.evaluate.plots import draw_calibration, draw_confusion
    from alexnet_pl.evaluate.predictions import summary
    from alexnet_pl.training.loggers import attach_results

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device} is not here ({str(error).partition(chr(10))[0]}): use cpu") from error
    nets = load_models(found, settings, where)
    images = EvalImages(nets[0], settings)
    classes = images.classes
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        keep = []
        for number in range(len(nets) * keep_logits):
            path = out / (f"logits-{number + 1}.npy" if len(nets) > 1 else "logits.npy")
            part, shape = stack.enter_context(files.beside(path)), (len(images), settings.views, len(classes))
            keep.append(np.lib.format.open_memmap(part, "w+", np.float32, shape))
        meter = stack.enter_context(Meter("evaluating", len(images), console))
        looked = run_models(nets, images, settings, meter.advance, keep)
    together = looked[-1]
    about = {
        "data": {"name": images.name, "root": images.root and str(images.root), "store": images.store},
        "classes": len(classes),
        "device": str(where),
    }
    write_evaluation(looked, found, settings, about, out / "evaluation.json")
    write_predictions(together, images.names(settings.split), classes, out / "predictions.parquet")
    write_classes(together, classes, out / "classes.csv")
    title = describe(found, settings, len(images), images.name)
    draw_confusion(together, classes, title, out / "confusion.png")
    draw_calibration(together, title, out / "calibration.png")
    console.print(title)
    show(looked, found, console)
    show_classes(together, classes, console)
    if len(found) == 1 and settings.data is None:
        results = summary(together).items()
        attach_results(found[0], {f"evaluate/{settings.name}/{key}": value for key, value in results}, {})


def describe(found: list[Run], settings: Settings, images: int, data: str) -> str:
    """What was done, in one line: `an ensemble of 3 nets on 2,000 images (shapes, val), 10 views each`."""
    who = found[0].folder.name.replace(",", ", ") if len(found) == 1 else f"an ensemble of {len(found)} nets"
    looks = "by the centre" if settings.views == 1 else f"{settings.views} views each"
    averaged = f", {settings.average} averaged" if settings.views * len(found) > 1 else ""
    return f"{who} on {images:,} images ({data}, {settings.split}), {looks}{averaged}"


def show(looked: list[Predictions], found: list[Run], console: Console) -> None:
    """Print the figures of each member, and of all together."""
    from alexnet_pl.evaluate.predictions import summary

    table = Table(Column(overflow="fold"), "top-1 error", "top-5 error", "nll", "calibration error", box=SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, answered in zip([*run_labels(found), "ensemble"], looked, strict=True):
        if name == "ensemble" and len(found) == 1:
            continue
        figures = summary(answered)
        shares = [f"{100 * figures[key]:.2f} %" for key in ("error", "top5_error", "calibration_error")]
        table.add_row(literal(name), *shares[:2], f"{figures['nll']:.4f}", shares[2])
    console.print(table)


def show_classes(together: Predictions, classes: list[str], console: Console) -> None:
    """Print the classes with the highest and the lowest accuracy, of those that have images."""
    from alexnet_pl.evaluate.predictions import by_class

    counts = list(zip(*by_class(together, len(classes)), strict=True))
    order = sorted(
        (label for label in range(len(classes)) if counts[label][0]), key=lambda c: -counts[c][1] / counts[c][0]
    )
    few = min(FEW, len(order) // 2)
    table = Table("easiest classes", "accuracy", "hardest classes", "accuracy", box=SIMPLE)

    def cells(label: int) -> list[str]:
        count, correct = counts[label]
        return [literal(classes[label]), f"{100 * correct / count:.1f} % of {count:,}"]

    for easy, hard in zip(order[:few], order[::-1][:few], strict=True):
        table.add_row(*cells(easy), *cells(hard))
    console.print(table)


def main() -> None:
    """The command. Exit code 0: evaluated; 1: a mistake, told in one sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, Settings()
    add("runs", type=Path, nargs="+", metavar="RUN", help="a run, or a folder of runs; several are an ensemble")
    add(
        "--views",
        type=int,
        choices=[1, 10],
        default=default.views,
        help="of each image: centre, or ten (%(default)s)",
    )
    averaged = "what is averaged over views and nets (%(default)s)"
    add("--average", choices=["probabilities", "logits"], default=default.average, help=averaged)
    which = (
        f"checkpoints of each run: {', '.join(CHECKPOINT_NAMES)}, or files; of several the weights are averaged (last)"
    )
    add("--weights", nargs="+", default=default.weights, metavar="NAME", help=which)
    add("--split", choices=["val", "train"], default=default.split, help="which images (%(default)s)")
    add("--data", type=Path, metavar="ROOT", help="where the images are now (where the run had them)")
    add("--out", type=Path, metavar="FOLDER", help="where the results go (the run's evaluation/, or runs/ensembles/)")
    add("--device", help="cpu, cuda, cuda:1, ... (a GPU if there is one)")
    add("--keep-logits", action="store_true", help="also write what the nets put out, logits.npy")
    a = parser.parse_args()
    settings = Settings(a.views, a.average, a.weights, a.split, a.data and a.data.expanduser())
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    try:
        found = find_members(a.runs, settings)
        out = a.out.expanduser() if a.out else output_folder(a.runs, found, settings)
        evaluate(found, settings, out, a.device, a.keep_logits, console)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    for file in sorted(out.iterdir()):
        print(file)
