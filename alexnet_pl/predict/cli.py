"""Predict the classes of images with a trained net, and find their nearest neighbours.

    python -m alexnet_pl.predict runs/alexnet cat.jpg photographs/ "more/*.png"
    python -m alexnet_pl.predict runs/alexnet - < cat.jpg                        standard input
    python -m alexnet_pl.predict torchvision photographs/                        published weights
    python -m alexnet_pl.predict caffe:bvlc_alexnet.caffemodel photographs/      Caffe's, without Caffe
    python -m alexnet_pl.predict runs/alexnet cat.jpg --figure figure4.png       Figure 4, left
    python -m alexnet_pl.predict runs/alexnet cat.jpg --neighbours data/packed --figure figure4.png

The last line draws Figure 4, right. If an image cannot be read, the command names it, goes on, and
ends with exit code 1. xargs passes names from a file:

    xargs -d '\\n' python -m alexnet_pl.predict runs/alexnet < names.txt
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from alexnet_pl.console import exit_on_error, start_command
from alexnet_pl.predict.options import SUFFIXES, Options
from alexnet_pl.runs.naming import WEIGHTS_WORDS


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", metavar="RUN", help=f"a run folder, a folder of one run, a checkpoint, {WEIGHTS_WORDS}")
    add("images", metavar="IMAGE", nargs="+", help='files, folders, patterns, or "-" for standard input')
    add("--mean", metavar="FILE", type=Path, help="Caffe's mean image (.binaryproto), for its weights")
    views = "views of each image: 1 (the centre) or 10 (10-crop) (default: %(default)s)"
    add("--views", type=int, choices=[1, 10], default=1, help=views)
    right = "a CSV file of image,class (default: the name of an image's folder, if it is a class)"
    add("--labels", metavar="FILE", type=Path, help=right)
    near = "find the six nearest images, by the last hidden layer, in a folder, a pattern, or a packed store"
    add("--neighbours", metavar="SET", help=near)
    add("--csv", metavar="FILE", type=Path, help="write the predictions as a table")
    add("--json", metavar="FILE", type=Path, help="write predictions and neighbours")
    figure = f"draw the predictions, or the neighbours with --neighbours ({', '.join(SUFFIXES)})"
    add("--figure", metavar="FILE", type=Path, help=figure)
    return parser


def main() -> None:
    """Run the command. Exit code 0: all images were read; 1: a mistake, or images not read, a sentence each."""
    start_command()
    options = Options(**vars(make_parser().parse_intermixed_args()))
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is printed
    with exit_on_error(", ".join(map(str, options.outputs)) or "the output"):
        options.check()
        from alexnet_pl.predict.predict import predict  # and torch, which takes seconds

        if not predict(options):
            sys.exit(1)
