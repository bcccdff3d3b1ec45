"""Turn an image file into a square: decode it, scale its shorter side, cut out its centre (section 2 of the paper).

simplejpeg decodes JPEG. It is the fastest decoder that keeps every pixel, and that refuses a file that ends too early;
others fill the rest with grey. Pillow reads the orientation of a JPEG. It decodes all other files, and JPEGs that
simplejpeg cannot read. Smaller DCTs are not used: they move edges by parts of a pixel, and save no time at these sizes.
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
"""Largest ratio of an image's sides. A longer image, scaled by its shorter side, would fill the memory."""
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
"""Pillow's modes that it turns into RGB of 0..255 as a viewer would. Other modes have more than 8 bits."""
SMALL = 2**16
"""Pixels of a JPEG up to which reading its header with Pillow, too, would add a tenth to the time or more"""
JPEG = b"\xff\xd8"
"""First bytes of a JPEG"""
APP1 = b"\xff\xe1"
"""The marker of a JPEG's segments that may hold its orientation, as EXIF or XMP"""

Image.preinit()  # so that the usual formats are tried first
Image.init()  # Pillow would load its rarer formats when it first meets one, which is not safe among threads
COMMON = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "AVIF")
FORMATS: list[str] = [name for name in COMMON if name in Image.OPEN]
"""Pillow's formats that people store images in. The others are rare and less maintained; EPS would run a program."""


def decode_image(data: bytes | Unreadable) -> Tensor:
    """Decode the bytes of an image file into uint8 (3, height, width), upright.

    Greyscale becomes three equal colours; CMYK and palettes become RGB. Transparency is dropped. The first of several
    images counts. The orientation in EXIF is applied if it can be read. The name of the file does not matter.

    Raises:
        Unreadable: no image, a damaged one, or one of more than 8 bits; or `data` is itself a reason.
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
    """Decode a small JPEG that is sound and surely upright into uint8 (height, width, 3); None for others."""
    with suppress(ValueError):
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        if height * width <= SMALL and colors not in ("CMYK", "YCCK") and APP1 not in data:
            return simplejpeg.decode_jpeg(data, "RGB")
    return None


def _orientation(image: Image.Image) -> int:
    """Return the orientation of an image from EXIF: 1 is upright, and also stands for an unreadable one."""
    with suppress(Exception):
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def centre_square(image: Tensor, size: int, squares: Squares = Squares.centre) -> Tensor:
    """Scale an image and cut out its centre: uint8 (3, height, width) -> uint8 (size, size, 3).

    The shorter side is scaled to `size`, and the longer side in proportion, rounded down; bilinear and smoothed. Then
    the centre is cut out at a whole pixel. If the margin is odd, the cut is one pixel nearer to the top and left.

    Args:
        squares: centre is the rule above. torchvision rounds half a pixel of an odd margin to the even number. So later
            crops that leave an even margin on each side are those of its CenterCrop. warp scales both sides to `size`,
            and cuts nothing off.

    Raises:
        Unreadable: one side is far longer than the other.
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
