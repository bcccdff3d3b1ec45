"""Read images in an uncompressed tar file, or in tar files within it, where they are: nothing is unpacked.

Only an image's place is held, its offset and size in the outer file; all threads read through one file descriptor.
"""

from __future__ import annotations

import os
import tarfile
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alexnet_pl.data.sources.base import Split, is_image_name, reading

Place = tuple[int, int]


def tar_contents(path: Path) -> tuple[list[str], dict[str, Place]]:
    """List what a tar holds.

    Returns:
        the names of the tars in it without `.tar`, sorted; and the place of each image by its name, sorted: the name
        of its file, after `<tar>/` where it lies in an inner tar.
    Raises:
        ConfigError: the file is cut short, or no tar.
    """
    inner: list[str] = []
    places: dict[str, Place] = {}
    with reading(path), open(path, "rb", buffering=0) as file:
        for name, place in _files(file, 0):
            if name.endswith(".tar"):
                inner.append(name.removesuffix(".tar"))
                places |= {f"{inner[-1]}/{image}": at for image, at in _files(file, place[0]) if is_image_name(image)}
            elif is_image_name(name):
                places[name] = place
    return sorted(inner), {name: places[name] for name in sorted(places)}


def _files(file: BinaryIO, start: int) -> list[tuple[str, Place]]:
    """List the visible files of the tar that starts here, without their folders; offsets are those in the file."""
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        names = [(os.path.basename(member.name), (member.offset_data, member.size)) for member in tar if member.isreg()]
        file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a missing end for the end
        raise tarfile.ReadError(f"the tar that starts at byte {start} has no end")
    return [(name, place) for name, place in names if not name.startswith(".")]


def in_tar(path: Path, places: dict[str, Place], labels: np.ndarray) -> Split:
    """Return the images of a tar at their places."""
    with reading(path):
        file = open(path, "rb", buffering=0)  # noqa: SIM115  open for as long as the split is
    spans = np.array(list(places.values()), dtype=np.int64).reshape(-1, 2)
    return Split(list(places), labels, spans, partial(map, partial(_read, file)))


def _read(file: BinaryIO, place: np.ndarray) -> bytes:
    offset, size = place.tolist()
    with reading(Path(file.name)):
        data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise EOFError(f"{size} bytes at {offset} are not there")
    return data
