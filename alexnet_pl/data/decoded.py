"""Images that were decoded once stay in the user's cache: $XDG_CACHE_HOME/alexnet_pl, else ~/.cache/alexnet_pl.

The name of such a file holds the checksum of the files that were decoded, so it is never out of date, wherever they
lie. It is written whole or not at all; where it cannot be written, images are decoded each time.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alexnet_pl import files

DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
"""What NumPy raises for a file that is not there, or is none of ours; the archive has checksums of its own"""


def decode_once(
    name: str, sources: Sequence[Path], decode: Callable[[], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return images and labels from the cache; where it lacks them, from `decode`, and keep them.

    Args:
        name: what the file's name begins with.
        sources: the files that are decoded, in their order.
        decode: what raises an error about files that cannot be decoded; nothing is kept then.
    """
    if not all(source.is_file() for source in sources):
        return decode()
    path = files.expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "alexnet_pl" / f"{name}-{_sum(sources)}.npz"
    with suppress(*DAMAGE), np.load(path) as kept:
        return torch.from_numpy(kept["images"]), torch.from_numpy(kept["labels"])
    images, labels = decode()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, images=images.numpy(), labels=labels.numpy())
    return images, labels


def _sum(sources: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for source in sources:
        with source.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]
