"""Evaluate runs together: run the nets over the images, write the files and print the tables."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from alexnet_pl import files
from alexnet_pl.console import Meter
from alexnet_pl.errors import ConfigError, first_line
from alexnet_pl.evaluate.ensemble import EvalImages, load_models, run_models
from alexnet_pl.evaluate.outputs import write_classes, write_evaluation, write_predictions
from alexnet_pl.evaluate.plots import draw_calibration, draw_confusion
from alexnet_pl.evaluate.predictions import Predictions, summary
from alexnet_pl.evaluate.settings import Member, Settings
from alexnet_pl.evaluate.tables import describe, show_classes, show_members
from alexnet_pl.model.build import set_arithmetic
from alexnet_pl.runs.mirror import attach_results
from alexnet_pl.runs.trained import TrainedModel


def evaluate(
    members: list[Member], settings: Settings, out: Path, device: str | None, keep_logits: bool, console: Console
) -> None:
    """Evaluate one run, or several as an ensemble. Print the results, and write all files into a folder.

    A single run's W&B run gets the results, too.

    Args:
        device: torch's name of the device; None: a GPU if there is one.
        keep_logits: whether to write logits.npy, float32 (images, views, classes); logits-1.npy etc. for an ensemble.
    Raises:
        ConfigError: a checkpoint or the images are missing, or the nets cannot take the same images.
        UserError: a net's outputs are not finite.
    """
    where = find_device(device)
    nets = load_models(members, settings, where)
    images = EvalImages(nets[0], settings)
    classes = images.classes
    out.mkdir(parents=True, exist_ok=True)
    predictions = run(nets, images, settings, out if keep_logits else None, console)
    ensemble = predictions[-1]
    about = {
        "data": {"name": images.name, "root": images.root and str(images.root), "store": images.store},
        "classes": len(classes),
        "device": str(where),
    }
    write_evaluation(predictions, members, settings, about, out / "evaluation.json")
    write_predictions(ensemble, images.names(settings.split), classes, out / "predictions.parquet")
    write_classes(ensemble, classes, out / "classes.csv")
    title = describe(members, settings, len(images), images.name)
    draw_confusion(ensemble, classes, title, out / "confusion.png")
    draw_calibration(ensemble, title, out / "calibration.png")
    console.print(title)
    if note := images.squares_note(nets):
        console.print(note)
    show_members(predictions, members, console)
    show_classes(ensemble, classes, console)
    if len(members) == 1 and members[0].run and settings.data is None:
        results = summary(ensemble).items()
        attach_results(members[0].run, {f"evaluate/{settings.name}/{key}": value for key, value in results}, {})


def find_device(name: str | None) -> torch.device:
    """Return the device of a name, ready to compute in fp32; without a name, a GPU if there is one.

    Raises:
        ConfigError: this machine has no such device.
    """
    set_arithmetic()
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        there = torch.zeros(1, device=name)
        there.cpu()  # which a device without numbers, as meta, refuses
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = first_line(error).partition(". ")[0]
        raise ConfigError(f"--device {name} is not here ({reason}): use cpu") from error
    return there.device


def run(
    nets: list[TrainedModel], images: EvalImages, settings: Settings, logits: Path | None, console: Console
) -> list[Predictions]:
    """Run the nets over the images, with a meter. Return the predictions of each net, and last those of the ensemble.

    Args:
        logits: folder for the nets' outputs; None: they are not stored.
    """
    with ExitStack() as stack:
        arrays = []
        if logits:
            names = ["logits.npy"] if len(nets) == 1 else [f"logits-{number}.npy" for number in range(1, len(nets) + 1)]
            shape = (len(images), settings.views, len(images.classes))
            parts = [stack.enter_context(files.atomic_path(logits / name)) for name in names]
            arrays = [np.lib.format.open_memmap(part, "w+", np.float32, shape) for part in parts]
            if hasattr(os, "posix_fallocate"):  # not on macOS; a disk that fills up later ends the process by a signal
                for part in parts:
                    with part.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
        meter = stack.enter_context(Meter("evaluating", len(images), console))
        return run_models(nets, images, settings, meter.advance, arrays)
