"""Pack a dataset of images once, so that training need not decode photographs each time.

    python -m alexnet_pl.prepare data/photographs data/packed    from SOURCE to STORE
    python -m alexnet_pl.prepare SOURCE STORE --size 64          Tiny ImageNet at its own size
    python -m alexnet_pl.prepare --verify STORE                  compare a store with its checksums

SOURCE is ImageNet as it was downloaded, or any folder of images with a folder for each class.
STORE is the packed dataset: a folder with all images in a few large files. As in 2012 (section 2),
each image is scaled so that its shorter side has 256 pixels, and its central square is kept.
You can stop the command at any moment, also by force. The same command continues from there, and
the store is then the same to the byte.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from alexnet_pl.config.choices import Squares
from alexnet_pl.console import exit_on_error, make_console, start_command
from alexnet_pl.prepare.options import Options


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, Options()
    layouts = (
        "ILSVRC2012's tar files, train/ and val/, Kaggle's layout, Parquet shards, Tiny ImageNet, a folder per class"
    )
    add("source", type=Path, nargs="?", metavar="SOURCE", help=layouts)
    add("store", type=Path, nargs="?", metavar="STORE", help="the folder to pack into")
    add("--name", help="name of the dataset in figures and tables (default: the source's own name)")
    add("--size", type=int, default=default.size, help="side of the packed images in pixels (default: %(default)s)")
    squares = (
        "centre: scale the shorter side and keep the middle. torchvision: the same except for half a pixel. "
        "warp: scale both sides, as for Caffe's numbers (default: %(default)s)"
    )
    add("--resize", choices=list(Squares.__members__), default=default.resize, help=squares)
    forms = (
        "raw is fastest to read, jpeg is an eighth as large, auto is raw if half of the memory holds the store "
        "(default: %(default)s)"
    )
    add("--form", choices=["auto", "raw", "jpeg"], default=default.form, help=forms)
    add("--quality", type=int, default=default.quality, help="quality of the JPEGs (default: %(default)s)")
    share = "share of each class to keep for validation, if there is no validation set (default: %(default)s)"
    add("--hold-out", type=float, metavar="SHARE", default=default.hold_out, help=share)
    skipped = "share of the files that may give no image (default: %(default)s). skipped.csv lists them."
    add("--max-skipped", type=float, metavar="SHARE", default=default.max_skipped, help=skipped)
    add("--workers", type=int, metavar="N", default=default.workers, help="number of threads (default: %(default)s)")
    add("--dry-run", action="store_true", help="print what the command would do, and stop")
    add("--verify", type=Path, metavar="STORE", help="instead of packing, compare a finished store with its checksums")
    return parser


def main() -> None:
    """Run the command. Exit code 0: done; 1: a mistake or damage, in one sentence; 128 + signal: stopped by it."""
    start_command()
    parser = make_parser()
    arguments = vars(parser.parse_args())
    source, root, dry_run, finished = (arguments.pop(key) for key in ("source", "store", "dry_run", "verify"))
    if bool(finished) == bool(source and root) or (finished and source):
        parser.error("give a source and a store, or --verify and a store")
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image stands in skipped.csv
    options, console = Options(**arguments), make_console()
    with exit_on_error(finished or root, "" if finished else "what is packed is kept"):
        options.check()
        from alexnet_pl.prepare.prepare import prepare, verify  # and torch, which takes seconds

        if finished:
            verify(finished, console)
        else:
            prepare(source, root, options, console, dry_run)
