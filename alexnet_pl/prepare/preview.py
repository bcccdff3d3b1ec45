"""A few images are packed beforehand: they tell which source it is, what it will take, and which form suits."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from alexnet_pl import cpu
from alexnet_pl.data import decode, sources, store
from alexnet_pl.data.pixel_stats import PixelStats
from alexnet_pl.errors import ConfigError
from alexnet_pl.prepare.packing import encode

TRIED = 32
"""Images of each split that are tried"""


@dataclass
class Options:
    """How to pack, as the command line says it."""

    name: str | None = None
    """what the data set is called; None: as its source"""
    size: int = 256
    """side of the squares in pixels"""
    form: str = "auto"
    """raw, jpeg, or auto: whichever suits this machine"""
    quality: int = 90
    """of the JPEGs"""
    hold_out: float = 0.0
    """share of each class that becomes val, where the source has none"""
    max_skipped: float = 0.01
    """share of the files that may give no image"""
    workers: int = field(default_factory=cpu.count)
    """threads"""


class Preview:
    """What some images of a source, packed beforehand, tell of it: which source it is, how long it will take."""

    def __init__(self, source: sources.Source, options: Options) -> None:
        self.files = sum(len(split) for split in source.splits.values())
        self.size, self.quality, self.workers = options.size, options.quality, options.workers
        self.bytes: list[int] = []  # of each square as a JPEG
        self.sides: list[int] = []  # the shorter ones, in pixels
        refuse_names([*source.classes, *(name for split in source.splits.values() for name in split.names)])
        identity = hashlib.sha256("\n".join(source.classes).encode())
        plan = store.Plan("", "", "", options.size, "jpeg", options.quality)
        sums, took = PixelStats(options.size), []
        for name, split in source.splits.items():
            identity.update("\n".join([name, *split.names]).encode())
            identity.update(split.labels.tobytes())
            for i in sorted({k * (len(split) - 1) // (TRIED - 1) for k in range(TRIED)}):
                (data,) = split.read(i, i + 1)
                identity.update(data)
                began = time.perf_counter()
                try:
                    image = decode.decode_image(data)
                    cell = encode(decode.centre_square(image, options.size), plan)
                    sums.add(decode.decode_stored(bytearray(cell), options.size, "jpeg")[None])
                except decode.Unreadable:
                    continue  # it will be listed when its turn comes
                took.append(time.perf_counter() - began)
                self.bytes.append(len(cell))
                self.sides.append(min(image.shape[1:]))
        if not self.bytes:
            raise ConfigError("none of the files that were tried is a image: is this the right folder?")
        self.fingerprint = identity.hexdigest()[:16]
        took = took[1:] or took  # the first one finds the libraries cold
        self.seconds = sum(took) / len(took)  # for one image on one core

    def total(self, form: str) -> float:
        """Bytes of the store."""
        return self.files * (3 * self.size**2 if form == "raw" else sum(self.bytes) / len(self.bytes))

    def tell(self, plan: store.Plan, root: Path, console: Console) -> None:
        """Say what will be written and how long it will take.

        Raises:
            ConfigError: the disk is too small for it.
        """
        total, other = self.total(plan.form), "jpeg" if plan.form == "raw" else "raw"
        place = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
        here = sum(path.stat().st_size for path in root.glob("*.*")) if root.is_dir() else 0
        free = shutil.disk_usage(place).free + here
        kind = "raw" if plan.quality is None else f"JPEG of quality {plan.quality}"
        took = timedelta(seconds=round(self.files * self.seconds / self.workers))
        console.print(
            f"store: {plan.size}x{plan.size} pixels, {kind}, about {size(total)} "
            f"(--form {other}: {size(self.total(other))}); {size(free)} are free in {place}"
        )
        console.print(f"time:  about {took} on {self.workers} cores, by {len(self.bytes)} images that were tried")
        middle = sorted(self.sides)[len(self.sides) // 2]
        if middle <= plan.size / 2:
            console.print(
                f"hint:  most images have only {middle} pixels: with --size {middle} the store is "
                f"{(plan.size / middle) ** 2:.0f} times smaller, and training enlarges them (data.resize)"
            )
        if total > free:
            raise ConfigError(
                f"{place} has {size(free)} free, and the store needs about {size(total)}: give another disk"
            )


def refuse_names(names: Iterable[str]) -> None:
    """Raise ConfigError where a name is no text: neither a table nor JSON could hold it."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"the name {name!r} is not UTF-8, as old archives have it: rename the file") from error


def size(number: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.3g} {unit}"
        number /= 1000
    raise AssertionError
