"""Pack a few images beforehand, to identify the source, to estimate time and size, and to choose the form."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from alexnet_pl.config.choices import Squares
from alexnet_pl.data import decode, sources, store
from alexnet_pl.data.pixel_stats import PixelStats
from alexnet_pl.data.sources.base import Unreadable
from alexnet_pl.errors import ConfigError
from alexnet_pl.prepare.options import Options
from alexnet_pl.prepare.packing import encode

TRIED = 32
"""Number of images of each split to try"""


class Preview:
    """Some packed images of a source, which give its identity, the size of its store, and the time to pack it."""

    def __init__(self, source: sources.Source, options: Options) -> None:
        self.files = sum(len(split) for split in source.splits.values())
        self.size, self.quality, self.workers = options.size, options.quality, options.workers
        self.bytes: list[int] = []  # of each square as a JPEG
        self.sides: list[int] = []  # the shorter ones, in pixels
        reasons = []
        refuse_names([*source.classes, *(name for split in source.splits.values() for name in split.names)])
        identity = hashlib.sha256("\n".join(source.classes).encode())
        plan = store.Plan("", "", "", options.size, "jpeg", options.quality)
        sums, took = PixelStats(options.size), []
        for name, split in source.splits.items():
            identity.update("\n".join([name, *split.names]).encode())
            identity.update(split.labels.tobytes())
            for i in sorted({k * (len(split) - 1) // (TRIED - 1) for k in range(TRIED)}):
                (data,) = split.read(i, i + 1)
                identity.update(str(data).encode() if isinstance(data, Unreadable) else data)
                began = time.perf_counter()
                try:
                    image = decode.decode_image(data)
                    cell = encode(decode.centre_square(image, options.size, Squares[options.resize]), plan)
                    sums.add(decode.decode_stored(bytearray(cell), options.size, "jpeg")[None])
                except Unreadable as error:
                    reasons.append(f"{split.names[i]}: {error}")
                    continue  # it will be listed when its turn comes
                took.append(time.perf_counter() - began)
                self.bytes.append(len(cell))
                self.sides.append(min(image.shape[1:]))
        if not self.bytes:
            raise ConfigError(f"no file that was tried is an image ({reasons[0]}): is this the right folder?")
        self.fingerprint = identity.hexdigest()[:16]
        took = took[1:] or took  # the first one finds the libraries cold
        self.seconds = sum(took) / len(took)  # for one image on one core

    def store_bytes(self, form: str) -> float:
        """Return how many bytes the store will have."""
        return self.files * (3 * self.size**2 if form == "raw" else sum(self.bytes) / len(self.bytes))

    def show(self, plan: store.Plan, root: Path, console: Console) -> None:
        """Print what will be written and how long it will take.

        Raises:
            ConfigError: the disk is too small for it.
        """
        total, other = self.store_bytes(plan.form), "jpeg" if plan.form == "raw" else "raw"
        place = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
        here = sum(path.lstat().st_size for path in root.glob("*.*")) if root.is_dir() else 0
        free = shutil.disk_usage(place).free + here
        kind = "raw" if plan.quality is None else f"JPEG of quality {plan.quality}"
        took = timedelta(seconds=round(self.files * self.seconds / self.workers))
        console.print(
            f"store: {plan.size}x{plan.size} pixels, {kind}, about {format_bytes(total)} "
            f"(--form {other}: {format_bytes(self.store_bytes(other))}); {format_bytes(free)} are free in {place}"
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
                f"{place} has {format_bytes(free)} free, and the store needs about {format_bytes(total)}: "
                "give another disk"
            )


def refuse_names(names: Iterable[str]) -> None:
    """Raise ConfigError if a name is no valid text, since neither a table nor JSON could hold it."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"the name {name!r} is not UTF-8, as old archives have it: rename the file") from error


def format_bytes(number: float) -> str:
    """Return a number of bytes with a unit, `197 kB`."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.3g} {unit}"
        number /= 1000
    raise AssertionError
