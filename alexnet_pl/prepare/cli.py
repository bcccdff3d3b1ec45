"""Prepare: pack a set of images once, so that training need not decode photographs again and again.

    python -m alexnet_pl.prepare SOURCE STORE              ImageNet as it was downloaded, or any folder of images
    python -m alexnet_pl.prepare SOURCE STORE --size 64    Tiny ImageNet at its own size
    python -m alexnet_pl.prepare --verify STORE            read a store again and compare its checksums

As in 2012 (section 2), each image is scaled so that its shorter side has 256 pixels, and its central square is kept.
It may be stopped at any moment, also by force; the same command continues, and the store is then the same to the byte.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from rich.console import Console

from alexnet_pl import files
from alexnet_pl.console import Meter
from alexnet_pl.data import sources, store
from alexnet_pl.errors import ConfigError, Interrupted, UserError
from alexnet_pl.prepare.packing import Packing
from alexnet_pl.prepare.preview import Options, Preview


def prepare(source: Path, root: Path, options: Options, console: Console, dry_run: bool = False) -> None:
    """Pack a source into a store, or go on with it; a finished one is left as it is.

    Args:
        dry_run: say what would be done, and stop there.
    Raises:
        ConfigError: a mistake, or a store of another source or with other options.
        UserError: the store cannot be finished.
    """
    done, begun = store.read(root), store.read_plan(root)
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file: give the store a folder of its own")
    if not begun and root.is_dir() and any(path.suffix != ".tmp" and path.name != ".lock" for path in root.iterdir()):
        raise ConfigError(f"{root} holds other files: give the store a folder of its own")
    found = sources.find(source, options.hold_out)
    if found.kind == "image folder" and not (source / "train").is_dir() and source.resolve() in root.resolve().parents:
        raise ConfigError(f"{root} lies among the classes of {source}, as if it were one: give the store another place")
    console.print(found.describe())
    trial = Preview(found, options)
    plan = decide(found, source.resolve().stem, trial, options, begun)
    changed = {key: old for key, old in vars(begun or plan).items() if old != vars(plan)[key]}
    if changed:
        said = ", ".join(f"{key} was {old} and is now {vars(plan)[key]}" for key, old in changed.items())
        raise ConfigError(
            f"{root} holds a store of another source or with other options ({said}): give this one a folder of its "
            f"own, or remove that one"
        )
    if done:
        console.print(f"{root} is finished already: {done.summary()}")
        if not dry_run:
            shutil.rmtree(root / "journal", ignore_errors=True)  # left by a stop between the last two steps
        return
    trial.tell(plan, root, console)
    if dry_run:
        return
    root.mkdir(parents=True, exist_ok=True)
    try:
        lock = files.lock(root)
    except BlockingIOError as error:
        raise ConfigError(f"another process is packing into {root}: wait for it, or stop it") from error
    with lock or nullcontext():
        if (store.read(root), store.read_plan(root)) != (done, begun):
            raise ConfigError(f"another process has packed into {root} meanwhile: run the same command again")
        files.write(root / "plan.json", json.dumps(vars(plan), indent=1))
        packing = Packing(found, root, plan, options.max_skipped, options.workers)
        with Meter("packing", trial.files, console) as meter:
            packing.pack(meter.advance)
        with Meter("checking", trial.files, console) as meter:
            done = packing.finish(meter.advance)
    console.print(f"done: {root}: {done.summary()}")


def decide(
    source: sources.Source, source_name: str, trial: Preview, options: Options, begun: store.Plan | None
) -> store.Plan:
    """The plan of a packing: raw where the whole store stays in memory once it was read, as JPEG where it would not."""
    form = options.form
    if form == "auto" and begun:
        form = begun.form
    elif form == "auto":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        form = "raw" if trial.total("raw") < memory / 2 else "jpeg"
    return store.Plan(
        name=options.name or source_name,
        source=source.describe().removeprefix("found: "),
        fingerprint=trial.fingerprint,
        size=options.size,
        form=form,
        quality=options.quality if form == "jpeg" else None,
    )


def verify(root: Path, console: Console) -> None:
    """Compare the checksums of a finished store.

    Raises:
        ConfigError: a file differs, is missing or cut short.
    """
    done = store.require(root)
    parts = [part for of_split in done.parts.values() for part in of_split] + done.others
    for part in parts:
        done.check_size(part)
    with Meter("verifying", len(parts), console) as meter:
        for part in parts:
            done.compare(part)
            meter.advance(1)
    console.print(f"{root} is sound: {done.summary()}")


def main() -> None:
    """The command. Exit code 0: done; 1: a mistake or damage, in one sentence; 128 + signal: stopped by it."""
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, Options()
    layouts = (
        "ILSVRC2012's tar files, train/ and val/, Kaggle's layout, Parquet shards, Tiny ImageNet, a folder per class"
    )
    add("source", type=Path, nargs="?", help=layouts)
    add("store", type=Path, nargs="?", help="the folder to pack into")
    add("--name", help="what the data set is called in figures and tables (the source's own name)")
    add("--size", type=int, default=default.size, help="pixels along a side (%(default)s)")
    forms = (
        "raw is fastest to read, jpeg an eighth as large; auto (the default): raw if half of the memory holds the store"
    )
    add("--form", choices=["auto", "raw", "jpeg"], default=default.form, help=forms)
    add("--quality", type=int, default=default.quality, help="of the JPEGs (%(default)s)")
    share = "where there is no validation set: share of each class to keep for it (%(default)s)"
    add("--hold-out", type=float, default=default.hold_out, help=share)
    skipped = "share of the files that may give no image (%(default)s); skipped.csv lists them"
    add("--max-skipped", type=float, default=default.max_skipped, help=skipped)
    add("--workers", type=int, default=default.workers, help="threads (%(default)s)")
    add("--dry-run", action="store_true", help="say what would be done, and stop")
    add("--verify", type=Path, metavar="STORE", help="only compare a finished store with its checksums")
    arguments = vars(parser.parse_args())
    source, root, dry_run, sound = (arguments.pop(key) for key in ("source", "store", "dry_run", "verify"))
    if not sound and not (source and root):
        parser.error("give a source and a store")
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with a image stands in skipped.csv
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    try:
        if sound:
            verify(sound, console)
        else:
            prepare(source, root, refuse(Options(**arguments)), console, dry_run)
    except (UserError, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            error = Interrupted(error.args[0], "what is packed is kept")
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        sys.exit(f"error: {error.filename or sound or root}: {error.strerror or error}")


def refuse(options: Options) -> Options:
    """The options, if they make sense.

    Raises:
        ConfigError: one does not.
    """
    if not 8 <= options.size <= 4096:
        raise ConfigError(f"--size {options.size} must lie between 8 and 4096 pixels (2012: 256)")
    if not 1 <= options.quality <= 100:
        raise ConfigError(f"--quality {options.quality} must lie between 1 and 100")
    for name in ("hold_out", "max_skipped"):
        if not 0 <= vars(options)[name] < 1:
            raise ConfigError(
                f"--{name.replace('_', '-')} {vars(options)[name]} is a share: it must be at least 0 and below 1"
            )
    if options.workers < 1:
        raise ConfigError(f"--workers {options.workers} must be at least 1")
    return options


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)  # no Exception: what copes with damaged files must let it through
