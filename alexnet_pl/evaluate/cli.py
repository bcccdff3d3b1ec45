"""Evaluate a run, or several runs as an ensemble, with a centre crop or with ten crops.

    python -m alexnet_pl.evaluate runs/train/defaults              centre crop of each image
    python -m alexnet_pl.evaluate runs/train/defaults --views 10   ten views (10-crop), as in 2012
    python -m alexnet_pl.evaluate runs/seeds                       all finished runs, as an ensemble
    python -m alexnet_pl.evaluate runs/a runs/b --weights best     these runs, as an ensemble
    python -m alexnet_pl.evaluate torchvision --data STORE         published weights

The images are those of the validation set. The probabilities of several views and nets are averaged,
as in 2012. The command prints errors, calibration and the easiest and hardest classes. It writes
evaluation.json, predictions.parquet, classes.csv, confusion.png and calibration.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from alexnet_pl.console import exit_on_error, make_console, start_command
from alexnet_pl.errors import visible
from alexnet_pl.evaluate.settings import Settings, find_members, output_folder
from alexnet_pl.files import expand
from alexnet_pl.runs.naming import WEIGHTS_WORDS
from alexnet_pl.runs.run import CHECKPOINT_NAMES


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, Settings()
    given = f"a run, a folder of runs, {WEIGHTS_WORDS}. Several are an ensemble."
    add("runs", type=Path, nargs="+", metavar="RUN", help=given)
    views = "views of each image: 1 (the centre), 9 (a 3x3 grid) or 10 (10-crop) (default: %(default)s)"
    add("--views", type=int, choices=[1, 9, 10], default=default.views, help=views)
    averaged = "what to average over views and nets (default: %(default)s)"
    add("--average", choices=["probabilities", "logits"], default=default.average, help=averaged)
    which = (
        f"checkpoints of each run: {', '.join(CHECKPOINT_NAMES)}, or files (default: last). The weights of several "
        "are averaged."
    )
    add("--weights", nargs="+", default=default.weights, metavar="NAME", help=which)
    add("--split", choices=["val", "train"], default=default.split, help="images to use (default: %(default)s)")
    add("--data", type=Path, metavar="ROOT", help="folder of the images (default: that of the run)")
    add("--mean", metavar="FILE", type=Path, help="Caffe's mean image (.binaryproto), for its weights")
    results = "folder for the results (default: the run's evaluation/, or runs/ensembles/)"
    add("--out", type=Path, metavar="FOLDER", help=results)
    add("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    add("--keep-logits", action="store_true", help="also write the nets' outputs, logits.npy")
    return parser


def main() -> None:
    """Run the command. Exit code 0: done; 1: a mistake, in one sentence; 128 + signal: stopped by it."""
    start_command()
    a = make_parser().parse_args()
    settings = Settings(a.views, a.average, a.weights, a.split, a.data and expand(a.data), a.mean)
    with exit_on_error():
        members = find_members(a.runs, settings)
        out = expand(a.out) if a.out else output_folder(a.runs, members, settings)
    with exit_on_error(out):
        from alexnet_pl.evaluate.evaluate import evaluate  # and torch, which takes seconds

        evaluate(members, settings, out, a.device, a.keep_logits, make_console())
        for file in sorted(out.iterdir()):
            print(visible(str(file)))
