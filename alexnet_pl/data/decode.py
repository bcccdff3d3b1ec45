"""Turn an image file into a square: decode it, scale its shorter side, cut out its centre (section 2 of the paper).

simplejpeg decodes JPEG: it is the fastest decoder that keeps every pixel and refuses a file that ends before its image
(others fill the rest with grey). Pillow knows how a JPEG was held, and decodes all else, and what simplejpeg cannot
read. Smaller DCTs are not used: they move edges by parts of a pixel, and save no time at these sizes.
"""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
import simplejpeg
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

from alexnet_pl.config.choices import Squares
from alexnet_pl.data.sources.base import Unreadable
from alexnet_pl.errors import one_line

LONGEST = 40
"""So many times as long as wide an image may be: scaled by its shorter side, a longer one would fill the memory."""
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
"""What Pillow turns into RGB of 0..255 as a viewer would; the others have more than 8 bits."""
SMALL = 2**16
"""Pixels of a JPEG up to which Pillow's look at its header, too, would add a tenth to the time or more"""
JPEG = b"\xff\xd8"
"""How a JPEG begins"""
APP1 = b"\xff\xe1"
"""The marker of a JPEG's segments that may note how it was held, as EXIF or XMP"""

Image.preinit()  # so that the usual formats are tried first
Image.init()  # Pillow would load its rarer formats when it first meets one, which is not safe among threads
COMMON = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "AVIF")
FORMATS: list[str] = [name for name in COMMON if name in Image.OPEN]
"""What people keep images in. Pillow's others are rare and less looked after, and EPS would run a program."""


def decode_image(data: bytes | Unreadable) -> Tensor:
    """Decode the bytes of an image file into uint8 (3, height, width), upright.

    Greyscale becomes three equal colours, CMYK and palettes RGB; transparency is dropped; of several images the first
    counts; a camera's note of how it was held (EXIF) is obeyed if it can be read. What a file is named does not matter.

    Raises:
        Unreadable: no image, a damaged one, or one of more than 8 bits; or what was read is itself the reason.
    """
    if isinstance(data, Unreadable):
        raise data
    if not data:
        raise Unreadable("an empty file")
    try:
        if data.startswith(JPEG) and (small := _decode_small_jpeg(data)) is not None:
            return torch.from_numpy(small).permute(2, 0, 1)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.format in ("JPEG", "MPO"):
                try:
                    pixels = simplejpeg.decode_jpeg(data, "RGB")
                except ValueError as error:
                    if "remature end" in str(error):
                        raise Unreadable("the file ends before the image does") from error
                    pixels = None  # Pillow takes some that it refuses, and names what is wrong with others
                if pixels is not None and image.mode != "CMYK" and _orientation(image) == 1:
                    return torch.from_numpy(pixels).permute(2, 0, 1)
            if image.mode not in MODES:
                raise Unreadable(f"{image.format} of mode {image.mode}, which has more than 8 bits")
            image.load()
            upright: Image.Image = image
            if _orientation(image) != 1:
                with suppress(Exception):  # a note that cannot be read is none
                    upright = ImageOps.exif_transpose(image)
            return functional.pil_to_tensor(upright.convert("RGB"))
    except Unreadable:
        raise
    except Exception as error:  # damage makes Pillow raise nearly anything
        reason = one_line(error)
        if "cannot identify image file" in reason:
            reason = f"not an image of a format that is read (it begins with {data[:12]!r})"
        raise Unreadable(reason) from error


def _decode_small_jpeg(data: bytes) -> np.ndarray | None:
    """Decode a small JPEG into uint8 (height, width, 3), where it is sound and surely upright; None where it is not."""
    with suppress(ValueError):
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        if height * width <= SMALL and colors not in ("CMYK", "YCCK") and APP1 not in data:
            return simplejpeg.decode_jpeg(data, "RGB")
    return None


def _orientation(image: Image.Image) -> int:
    """Return how the camera was held, by its note: 1 is upright, and what a note that cannot be read is taken for."""
    with suppress(Exception):
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def centre_square(image: Tensor, size: int, squares: Squares = Squares.centre) -> Tensor:
    """Scale an image and cut out its centre: uint8 (3, height, width) -> uint8 (size, size, 3).

    The shorter side is scaled to `size` and the longer to the whole number below its share, bilinear and smoothed; then
    the centre is cut out at a whole pixel, where the margin is odd one pixel nearer the top and left.

    Args:
        squares: torchvision rounds half a pixel of an odd margin to the even number, as its CenterCrop does for crops
            of any even margin; warp scales both sides to `size`, and cuts nothing off.

    Raises:
        Unreadable: it is far longer than wide, or wider than long.
    """
    height, width = image.shape[1:]
    shorter, longer = min(height, width), max(height, width)
    if longer > LONGEST * shorter:
        raise Unreadable(f"{width}x{height} pixels, more than {LONGEST} times as long as wide")
    height, width = size * height // shorter, size * width // shorter
    if squares is Squares.warp:
        height = width = size
    if image.shape[1:] != (height, width):
        image = functional.resize(image, [height, width], antialias=True)
    top, left = (height - size) // 2, (width - size) // 2
    if squares is Squares.torchvision:
        top, left = round((height - size) / 2), round((width - size) / 2)
    return image[:, top : top + size, left : left + size].permute(1, 2, 0)


def encode_jpeg(image: Tensor, quality: int) -> bytes:
    """Encode uint8 (H, W, 3) as a JPEG that keeps colours at full resolution (4:4:4)."""
    return simplejpeg.encode_jpeg(image.numpy(), quality, "RGB", "444")


def decode_jpeg_into(cell: bytearray, image: Tensor) -> None:
    """Decode a JPEG of a packed store into uint8 (size, size, 3), without a copy.

    Raises:
        ValueError: the bytes are not those of an image.
    """
    simplejpeg.decode_jpeg(cell, "RGB", buffer=image.numpy())


def decode_stored(cell: bytearray, size: int, form: str) -> Tensor:
    """Decode an image of a packed store from its bytes there: uint8 (size, size, 3).

    Raises:
        ValueError: the bytes are not those of an image.
    """
    if form == "raw":
        return torch.frombuffer(cell, dtype=torch.uint8).view(size, size, 3)
    return torch.from_numpy(simplejpeg.decode_jpeg(cell, "RGB"))
