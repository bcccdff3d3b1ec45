"""Pack a source into a store, or continue a packing that was stopped; verify a finished store."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from alexnet_pl import cpu, files
from alexnet_pl.console import Meter
from alexnet_pl.data import sources, store
from alexnet_pl.errors import ConfigError, visible
from alexnet_pl.prepare.options import Options
from alexnet_pl.prepare.packing import Packing
from alexnet_pl.prepare.preview import Preview, refuse_names


def prepare(source: Path, root: Path, options: Options, console: Console, dry_run: bool = False) -> None:
    """Pack a source into a store, or continue. A finished store stays as it is.

    Args:
        dry_run: whether to stop after saying what would be done.
    Raises:
        ConfigError: a mistake, or a store of another source or with other options.
        UserError: the store cannot be finished.
    """
    done, begun = store.read(root), store.read_plan(root)
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file: give the store a folder of its own")
    if not begun and root.is_dir() and any(path.name != ".lock" and not files.is_part(path) for path in root.iterdir()):
        raise ConfigError(f"{root} holds other files: give the store a folder of its own")
    found = sources.find(source, options.hold_out)
    if found.kind == "image folder" and not (source / "train").is_dir() and source.resolve() in root.resolve().parents:
        raise ConfigError(f"{root} lies among the classes of {source}, as if it were one: give the store another place")
    console.print(found.describe())
    for note in found.notes:
        console.print(f"note:  {visible(note)}")
    preview = Preview(found, options)
    plan = make_plan(found, source, preview, options, begun)
    if begun:
        refuse_change(begun, plan, root)
    if done:
        console.print(f"{root} is finished already: {done.summary()}")
        if not dry_run:
            shutil.rmtree(root / "journal", ignore_errors=True)  # left by a stop between the last two steps
        return
    preview.show(plan, root, console)
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
        with Meter("packing", preview.files, console) as meter:
            packing.pack(meter.advance)
        with Meter("checking", preview.files, console) as meter:
            done = packing.finish(meter.advance)
    console.print(f"done: {root}: {done.summary()}")


def make_plan(
    found: sources.Source, source: Path, preview: Preview, options: Options, begun: store.Plan | None
) -> store.Plan:
    """Return the plan of a packing.

    `--form auto` is raw if the whole store can stay in memory once it was read, else JPEG. A packing that was begun
    keeps its form, and its name if none is given. The default name is that of the folder or the zip file.
    """
    given = source.resolve()
    name = options.name or (begun.name if begun else given.stem if given.is_file() else given.name)
    refuse_names([name])
    form = options.form
    if form == "auto" and begun:
        form = begun.form
    elif form == "auto":
        form = "raw" if preview.store_bytes("raw") < cpu.memory() / 2 else "jpeg"
    return store.Plan(
        name=name,
        source=found.describe().removeprefix("found: "),
        fingerprint=preview.fingerprint,
        size=options.size,
        form=form,
        quality=options.quality if form == "jpeg" else None,
        squares=options.resize,
    )


def refuse_change(begun: store.Plan, plan: store.Plan, root: Path) -> None:
    """Raise ConfigError if the plan is not the one with which the store was begun."""
    old, new = vars(begun), vars(plan)
    if changed := [f"{key} was {old[key]} and is now {new[key]}" for key in old if old[key] != new[key]]:
        raise ConfigError(
            f"{root} holds a store of another source or with other options ({', '.join(changed)}): give this one a "
            f"folder of its own, or remove that one"
        )


def verify(root: Path, console: Console) -> None:
    """Compare the files of a finished store with its checksums.

    Raises:
        ConfigError: a file differs, is missing or cut short.
    """
    done = store.require(root)
    shards = [shard for of_split in done.parts.values() for shard in of_split] + done.others
    for shard in shards:
        done.check_size(shard)
    with Meter("verifying", len(shards), console) as meter:
        for shard in shards:
            done.compare(shard)
            meter.advance(1)
    console.print(f"{root} is sound: {done.summary()}")
