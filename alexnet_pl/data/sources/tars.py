"""Read images in an uncompressed tar file, or in tar files within it, without unpacking.

The place of an image is its offset and size in the outer file. All threads read through one file descriptor.
"""

from __future__ import annotations

import os
import tarfile
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alexnet_pl.data.sources.base import Split, Unreadable, check_size, is_hidden, is_image_name, reading

Place = tuple[int, int]


def tar_contents(path: Path) -> tuple[list[str], dict[str, Place], list[str]]:
    """List the contents of a tar.

    Returns:
        The names of the tars in it without `.tar`, sorted. The place of each image by its name, sorted; the name is
        that of its file, after `<tar>/` if it lies in an inner tar. The names of all other files.
    Raises:
        ConfigError: the file is cut short, or no tar.
    """
    inner: list[str] = []
    places: dict[str, Place] = {}
    others: list[str] = []
    with reading(path), open(path, "rb", buffering=0) as file:
        for name, place in tar_files(file):
            if name.endswith(".tar"):
                inner.append(name.removesuffix(".tar"))
                found = [(f"{inner[-1]}/{image}", at) for image, at in tar_files(file, *place)]
            else:
                found = [(name, place)]
            places |= {image: at for image, at in found if is_image_name(os.path.basename(image))}
            others += [other for other, _ in found if not is_image_name(os.path.basename(other))]
    return sorted(inner), {name: places[name] for name in sorted(places)}, others


def tar_files(file: BinaryIO, start: int = 0, size: int | None = None) -> list[tuple[str, Place]]:
    """List the visible files of the tar that starts here, without their folders, with offsets in the outer file.

    Args:
        size: bytes of the tar; None: to the end of the file.
    Raises:
        tarfile.ReadError: it is no tar, is cut short, or a member claims more bytes than there are.
    """
    stop = file.seek(0, os.SEEK_END) if size is None else start + size
    file.seek(start)
    found = []
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.issparse() or not 0 <= member.size <= stop - member.offset_data:
                raise tarfile.ReadError(f"{member.name} is sparse, or its {member.size:,} bytes are not all there")
            if member.isreg() and not any(map(is_hidden, Path(member.name).parts)):
                found.append((os.path.basename(member.name), (member.offset_data, member.size)))
        file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a missing end for the end
        raise tarfile.ReadError(f"the tar that starts at byte {start} has no end")
    return found


def in_tar(path: Path, places: dict[str, Place], labels: np.ndarray) -> Split:
    """Return the images of a tar at their places."""
    with reading(path):
        file = open(path, "rb", buffering=0)  # noqa: SIM115  open for as long as the split is
    spans = np.array(list(places.values()), dtype=np.int64).reshape(-1, 2)
    return Split(list(places), labels, spans, partial(map, partial(_read, file)))


def _read(file: BinaryIO, place: np.ndarray) -> bytes | Unreadable:
    offset, size = place.tolist()
    with reading(Path(file.name)):
        try:
            check_size(size)
        except Unreadable as error:
            return error
        data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise EOFError(f"{size} bytes at {offset} are not there")
    return data
