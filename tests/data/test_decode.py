"""Images as they come: every format and colour kind, damage of many kinds, and Pillow's own scaling beside ours."""

from __future__ import annotations

import io
import math
import resource
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from alexnet_pl import ROOT
from alexnet_pl.data import decode
from alexnet_pl.data.sources.base import Unreadable
from tests.helpers.images import encode, smooth_image

Array = np.ndarray
SAMPLES = ROOT / "../shared/data/ilsvrc-samples"


def decoded(data: bytes) -> Array:
    image = decode.decode_image(data)
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    return image.permute(1, 2, 0).numpy()


def by_pillow(data: bytes) -> Array:
    """What a viewer shows."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def refusal(data: bytes) -> str:
    with pytest.raises(Unreadable) as error:
        decode.decode_image(data)
    assert "\n" not in str(error.value)
    return str(error.value)


def psnr(a: Array | Tensor, b: Array | Tensor) -> float:
    square = np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean()
    return 10 * math.log10(255**2 / square) if square else math.inf


def png(width: int, height: int, depth: int, kind: int, rows: bytes = b"") -> bytes:
    """A PNG whose header says what is asked for, whatever its rows are."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    packed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.fixture(params=[0, decode.SMALL], ids=["as a large one", "as a small one"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no JPEG, or each of these, be decoded without Pillow's look at its header."""
    monkeypatch.setattr(decode, "SMALL", request.param)


PLAIN = smooth_image()
JPEG, PROGRESSIVE = (
    encode(smooth_image(noise=6), quality=90),
    encode(smooth_image(noise=6), quality=90, progressive=True),
)
PNG = encode(PLAIN, "PNG")
SCAN = JPEG.index(b"\xff\xda")
"""Where the JPEG's pixels begin"""


# ----------------------------------------------------------------------------------------- what is an image

RGBA, GREY = Image.fromarray(PLAIN).convert("RGBA"), Image.fromarray(PLAIN).convert("L")
RGBA.putalpha(GREY)  # of all values, 0 among them
PALETTE = Image.fromarray(PLAIN).quantize(16)
SIXTEEN = smooth_image(8, 6).astype(">u2") * 257


def two_frames(kind: str, **options) -> bytes:
    first, second = Image.fromarray(PLAIN), Image.fromarray(255 - PLAIN)
    return encode(first, kind, save_all=True, append_images=[second], **options)


def rows(samples: Array) -> bytes:
    """A PNG's rows, not filtered."""
    return b"".join(b"\0" + row.tobytes() for row in samples)


LOSSLESS = {
    "PNG": (PNG, PLAIN),
    "BMP": (encode(PLAIN, "BMP"), PLAIN),
    "TIFF": (encode(PLAIN, "TIFF"), PLAIN),
    "TIFF, LZW": (encode(PLAIN, "TIFF", compression="tiff_lzw"), PLAIN),
    "WebP": (encode(PLAIN, "WEBP", lossless=True), PLAIN),
    "WebP with alpha": (encode(RGBA, "WEBP", lossless=True, exact=True), PLAIN),
    "PPM": (encode(PLAIN, "PPM"), PLAIN),
    "RGBA": (encode(RGBA, "PNG"), PLAIN),
    "greyscale": (encode(GREY, "PNG"), GREY.convert("RGB")),
    "greyscale with alpha": (encode(RGBA.convert("LA"), "PNG"), GREY.convert("RGB")),
    "black and white": (encode(GREY.convert("1"), "PNG"), GREY.convert("1").convert("RGB")),
    "palette": (encode(PALETTE, "PNG"), PALETTE.convert("RGB")),
    "palette, one colour transparent": (encode(PALETTE, "PNG", transparency=3), PALETTE.convert("RGB")),
    "palette, half transparent": (encode(PALETTE, "PNG", transparency=bytes(range(16))), PALETTE.convert("RGB")),
    "GIF of two frames": (two_frames("GIF"), Image.open(io.BytesIO(encode(PLAIN, "GIF"))).convert("RGB")),
    "TIFF of two pages": (two_frames("TIFF"), PLAIN),
    "16 bits of colour": (png(8, 6, 16, 2, rows(SIXTEEN)), smooth_image(8, 6)),
    "one pixel": (encode(PLAIN[60:61, 60:61], "PNG"), PLAIN[60:61, 60:61]),
}


@pytest.mark.filterwarnings("ignore:Palette images")
@pytest.mark.parametrize(("data", "expected"), LOSSLESS.values(), ids=LOSSLESS)
def test_lossless_kinds_come_out_as_they_went_in(data: bytes, expected: Array | Image.Image):
    np.testing.assert_array_equal(decoded(data), np.asarray(expected))


CMYK = encode(Image.fromarray(PLAIN).convert("CMYK"), quality=95)
YCCK = CMYK.replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\x02")
JPEGS = {
    "baseline": JPEG,
    "progressive": PROGRESSIVE,
    "4:4:4": encode(PLAIN, subsampling=0),
    "4:2:2": encode(PLAIN, subsampling=1),
    "4:2:0": encode(PLAIN, subsampling=2),
    "greyscale": encode(GREY),
    "restart markers": encode(PLAIN, restart_marker_rows=1),
    "CMYK, inverted as Adobe does it": CMYK,
    "YCCK": YCCK,
    "MPO": two_frames("MPO"),
    "an ICC profile": encode(PLAIN, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()),
    "one pixel": encode(PLAIN[60:61, 60:61]),
    "something after its end": JPEG + b"\n<!-- cached -->\xff\xd9",
    "the rest of another file before its end": JPEG[:-2] + JPEG[SCAN + 300 :],
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_jpegs_are_as_pillow_shows_them(data: bytes):
    np.testing.assert_array_equal(decoded(data), by_pillow(data))


def test_the_jpegs_are_what_they_are_called():
    assert YCCK != CMYK
    assert psnr(by_pillow(YCCK), by_pillow(CMYK)) < 30
    assert psnr(by_pillow(CMYK), PLAIN) > 30
    assert Image.open(io.BytesIO(JPEGS["MPO"])).format == "MPO"


def test_an_icc_profile_is_ignored():
    assert b"ICC_PROFILE" in JPEGS["an ICC profile"]
    np.testing.assert_array_equal(decoded(JPEGS["an ICC profile"]), decoded(encode(PLAIN)))


def held(orientation: int) -> Image.Exif:
    """A camera's note of how it was held."""
    note = Image.Exif()
    note[0x0112] = orientation
    return note


SIDEWAYS = encode(smooth_image(noise=6), exif=held(6))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(kind: str, orientation: int):
    data = encode(PLAIN, kind, exif=held(orientation), **({"lossless": True} if kind == "WEBP" else {}))
    turned = decoded(data)
    np.testing.assert_array_equal(turned, by_pillow(data))
    assert turned.shape[:2] == (PLAIN.shape[:2] if orientation < 5 else PLAIN.shape[1::-1])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("text", ['<rdf:Description tiff:Orientation="6"/>', "<tiff:Orientation>6</tiff:Orientation>"])
def test_a_note_in_xmp_is_obeyed(text: str):
    data = encode(PLAIN, xmp=text.encode())
    np.testing.assert_array_equal(decoded(data), np.rot90(decoded(encode(PLAIN)), -1))


NOTES = {
    "no such orientation": held(42).tobytes(),
    "cut off": held(6).tobytes()[:18],
    "points beyond its end": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "no TIFF": b"Exif\0\0no such thing as TIFF",
}


@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_a_damaged_note_of_the_camera_costs_no_image(kind: str, note: bytes):
    np.testing.assert_array_equal(decoded(encode(PLAIN, kind, exif=note)), decoded(encode(PLAIN, kind)))


# ----------------------------------------------------------------------------------------- what is none

HTML = b"<!DOCTYPE html>\n<html><title>404 Not Found</title></html>"  # as a download under the name of an image
MANY_BITS = "which has more than 8 bits"
SHORT = "the file ends before the image does"


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


REFUSED = {
    "no byte": (b"", "an empty file"),
    "one byte": (b"\xff", "not an image of a format that is read (it begins with b'\\xff')"),
    "text": (b"n01440764 tench\n", "not an image of a format that is read (it begins with b'n01440764 te')"),
    "an HTML page": (HTML, "not an image of a format that is read (it begins with b'<!DOCTYPE ht')"),
    "zeros": (bytes(4096), "not an image"),
    "noise": (np.random.default_rng(1).bytes(4096), "not an image"),
    "a tar": (b"n01440764_1.JPEG".ljust(257, b"\0") + b"ustar", "not an image"),
    "JPEG: its first marker": (JPEG[:3], "not an image"),
    "JPEG: cut in the first header": (JPEG[:10], "Truncated File Read"),
    "JPEG: cut in the tables": (JPEG[:100], "Truncated File Read"),
    "JPEG: cut before the pixels": (JPEG[: SCAN + 14], SHORT),
    "JPEG: cut in the middle": (JPEG[: len(JPEG) // 2], SHORT),
    "JPEG: the last two bytes gone": (JPEG[:-2], SHORT),
    "JPEG: the last byte gone": (JPEG[:-1], SHORT),
    "JPEG: zeros from the middle on": (JPEG[: len(JPEG) // 2].ljust(len(JPEG), b"\0"), SHORT),
    "JPEG: an end in the middle": (JPEG[: len(JPEG) // 2] + b"\xff\xd9", SHORT),
    "JPEG: an end inserted": (JPEG[: len(JPEG) // 2] + b"\xff\xd9" + JPEG[len(JPEG) // 2 :], SHORT),
    "JPEG: an end in the middle of one that is turned": (SIDEWAYS[: len(SIDEWAYS) // 2] + b"\xff\xd9", SHORT),
    "JPEG: no byte of its pixels": (JPEG[: SCAN + 14] + b"\xff\xd9", SHORT),
    "progressive: cut in the middle": (PROGRESSIVE[: len(PROGRESSIVE) // 2], SHORT),
    "progressive: the last two bytes gone": (PROGRESSIVE[:-2], SHORT),
    "progressive: an end in the middle": (PROGRESSIVE[: len(PROGRESSIVE) // 2] + b"\xff\xd9", SHORT),
    "CMYK: cut in the middle": (CMYK[: len(CMYK) // 2], SHORT),
    "CMYK: an end in the middle": (CMYK[: len(CMYK) // 2] + b"\xff\xd9", SHORT),
    "PNG: cut in the header": (PNG[:20], "Truncated File Read"),
    "PNG: cut in the middle": (PNG[: len(PNG) // 2], "image file is truncated"),
    "PNG: a bit of its pixels flipped": (flipped(PNG, PNG.index(b"IDAT") + 50), "broken data stream"),
    "PNG: a bit of its header flipped": (flipped(PNG, PNG.index(b"IHDR") + 7), "not an image"),
    "PNG: no pixels": (png(30, 20, 8, 2), "image file is truncated"),
    "BMP: cut in the middle": (encode(PLAIN, "BMP")[:9000], "image file is truncated"),
    "GIF: cut in the middle": (encode(PLAIN, "GIF")[:3000], "image file is truncated"),
    "WebP: cut in the middle": (encode(PLAIN, "WEBP")[:500], "decoder"),
    "TIFF: cut in the middle": (encode(PLAIN, "TIFF")[:9000], "truncated"),
    "PPM: cut in the middle": (encode(PLAIN, "PPM")[:9000], "image file is truncated"),
    "PNG of 16 bits of grey": (encode(PLAIN[..., 0].astype(np.uint16), "PNG"), f"PNG of mode I;16, {MANY_BITS}"),
    "TIFF of 16 bits": (encode(PLAIN[..., 0].astype(np.uint16), "TIFF"), f"TIFF of mode I;16, {MANY_BITS}"),
    "TIFF of 32 bits": (encode(PLAIN[..., 0].astype(np.int32), "TIFF"), f"TIFF of mode I, {MANY_BITS}"),
    "TIFF of floats": (encode(PLAIN[..., 0].astype(np.float32), "TIFF"), f"TIFF of mode F, {MANY_BITS}"),
    "an image of 3,600 megapixels": (png(60000, 60000, 8, 2), "Image size (3600000000 pixels) exceeds limit"),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_gives_no_image_says_why(data: bytes, reason: str):
    assert reason in refusal(data)


def test_reasons_are_the_same_each_time():
    for data, _ in REFUSED.values():
        assert refusal(data) == refusal(data)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("whole", [JPEG, PROGRESSIVE, PNG], ids=["JPEG", "progressive", "PNG"])
def test_cut_anywhere_a_file_is_refused_or_still_whole(whole: bytes):
    """Only after the last pixel's data may bytes be missing: of a PNG those of its end, of a JPEG none."""
    expected, passed = decoded(whole), []
    for length in [*range(0, len(whole), 97), *range(len(whole) - 40, len(whole))]:
        try:
            image = decoded(whole[:length])
        except Unreadable:
            continue
        np.testing.assert_array_equal(image, expected)
        passed.append(len(whole) - length)
    assert max(passed, default=0) == (21 if whole is PNG else 0), passed


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"optimize": True}, {"quality": 30}])
def test_no_image_is_grey_below(options: dict):
    """Ended early by its own end mark, a JPEG decodes without a complaint; wherever that is, it is noticed."""
    whole = encode(smooth_image(noise=6), **options)
    first = whole.index(b"\xff\xda") + 14
    for length in range(first, len(whole) - 500, 61):
        data = whole[:length] + b"\xff\xd9"
        assert (by_pillow(data)[-1] == 128).all(), "Pillow does not notice"
        assert SHORT in refusal(data)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"optimize": True}, {"progressive": True}])
@pytest.mark.parametrize("top", [0, 20, 64])
def test_sound_grey_images_pass(options: dict, top: int):
    image = np.full((64, 80, 3), 128, np.uint8)
    image[:top] = smooth_image(80, 64)[:top]
    for data in (encode(image, **options), encode(image, **options) + b"\xff\xd8 junk \xff\xd9"):
        np.testing.assert_array_equal(decoded(data), by_pillow(data))


def test_a_bomb_takes_neither_memory_nor_time():
    """A few bytes that claim 10 GB of pixels."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in (png(60000, 60000, 8, 2, bytes(10**6)), encode(PLAIN).replace(b"\0\x61\0\x83", b"\xff\xff\xff\xff")):
        assert "exceeds limit" in refusal(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "in units of 1,024 bytes"
    assert time.perf_counter() - began < 1


def test_a_sound_jpeg_above_pillows_limit_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # and it refuses twice as many
    assert "Image size (90000 pixels) exceeds limit" in refusal(encode(smooth_image(300, 300)))


# ----------------------------------------------------------------------------------------- to a square

SIZES = [(131, 97), (97, 131), (100, 100), (63, 64), (500, 334), (333, 500), (640, 427), (33, 41), (257, 256)]
SIZES += [(64, 300), (1000, 25)]


def fit_by_pillow(opened: Array, size: int) -> Array:
    """The shorter side scaled to `size`, the longer to the whole number below; the middle, rounded to the top left."""
    height, width = opened.shape[:2]
    scaled = (size * width // min(width, height), size * height // min(width, height))
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    image = Image.fromarray(opened).resize(scaled, Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("size", [32, 64, 129, 256])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_fit_is_pillows_resize_and_crop(width: int, height: int, size: int):
    for noise in (0, 20):
        image = smooth_image(width, height, noise)
        square = decode.centre_square(torch.from_numpy(image).permute(2, 0, 1), size)
        assert square.shape == (size, size, 3)
        assert square.dtype == torch.uint8
        assert np.abs(square.numpy().astype(int) - fit_by_pillow(image, size)).max() <= 1
        assert noise or psnr(square, fit_by_pillow(image, size)) >= 60


@pytest.mark.parametrize(("width", "height"), [(64, 67), (67, 64), (64, 64), (64, 2560)])
def test_without_scaling_only_the_crop_is_left(width: int, height: int):
    image = smooth_image(width, height, noise=20)
    top, left = (height - 64) // 2, (width - 64) // 2
    square = decode.centre_square(torch.from_numpy(image).permute(2, 0, 1), 64)
    np.testing.assert_array_equal(square.numpy(), image[top : top + 64, left : left + 64])


@pytest.mark.parametrize(("width", "height"), [(401, 10), (10, 401), (3000, 1)])
def test_far_longer_than_wide_is_refused(width: int, height: int):
    with pytest.raises(Unreadable, match=f"{width}x{height} pixels, more than 40 times as long as wide"):
        decode.centre_square(torch.zeros(3, height, width, dtype=torch.uint8), 256)


@pytest.mark.parametrize(("width", "height"), [(400, 10), (10, 400), (1, 1), (40, 1)])
def test_the_longest_and_the_smallest_that_fit(width: int, height: int):
    square = decode.centre_square(torch.full((3, height, width), 77, dtype=torch.uint8), 64)
    assert square.shape == (64, 64, 3)
    assert (square == 77).all()


def test_the_sample_photographs():
    """All 43: decoded as Pillow does within two grey levels, and scaled as Pillow does, to 60 dB."""
    if not SAMPLES.is_dir():
        pytest.skip("needs the folder of sample photographs ../shared/data/ilsvrc-samples")
    files = sorted(SAMPLES.rglob("*.JPEG"))
    assert len(files) == 43
    for file in files:
        data = file.read_bytes()
        image = decoded(data)
        assert np.abs(image.astype(np.int16) - by_pillow(data)).max() <= 2, file
        square = decode.centre_square(torch.from_numpy(image).permute(2, 0, 1), 256)
        assert psnr(square, fit_by_pillow(image, 256)) >= 60, file


# ----------------------------------------------------------------------------------------- as it is stored


@pytest.mark.parametrize(("quality", "least"), [(100, 48), (90, 36), (50, 32)])
def test_stored_as_jpeg(quality: int, least: float):
    square = torch.from_numpy(smooth_image(64, 64, noise=3))
    cell = decode.encode_jpeg(square, quality)
    image = Image.open(io.BytesIO(cell))
    assert image.size == (64, 64)
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3, "colours at full resolution"
    again = decode.decode_stored(bytearray(cell), 64, "jpeg")
    assert again.shape == (64, 64, 3)
    assert psnr(again, square) >= least
    np.testing.assert_array_equal(again.numpy(), np.asarray(image))


def test_thin_colours_survive_a_stored_jpeg():
    """Red and blue columns in turns: what halves the colours' resolution makes them all violet."""
    square = np.zeros((64, 64, 3), np.uint8)
    square[:, 0::2, 0] = square[:, 1::2, 2] = 255
    again = decode.decode_stored(bytearray(decode.encode_jpeg(torch.from_numpy(square), 90)), 64, "jpeg")
    assert psnr(again, square) > 30
    assert psnr(by_pillow(encode(square, quality=90, subsampling=2)), square) < 15


def test_stored_raw_is_the_same():
    square = torch.from_numpy(smooth_image(64, 64, noise=20))
    for cell in (bytearray(square.numpy().tobytes()), memoryview(bytearray(square.numpy().tobytes()))):
        assert torch.equal(decode.decode_stored(cell, 64, "raw"), square)


def test_threads_meet_rare_formats_together():
    """Pillow loads its rarer formats late; that must not make an image look like none to a thread beside."""
    files = [encode(PLAIN, kind) for kind in ("TIFF", "WEBP", "PPM", "BMP")] * 20
    with ThreadPoolExecutor(8) as pool:
        assert {image.shape for image in pool.map(decoded, files)} == {PLAIN.shape}
