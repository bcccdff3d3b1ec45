"""Read the weights in Caffe's and ONNX's files: protocol buffers, of which only some fields matter here.

A message is a row of fields: a number, a kind, and a value. No code of a file runs, and nothing becomes larger than the
file, whatever sizes the file claims. The numbers of the fields are those of caffe.proto and onnx.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Kinds of a field's value"""
MOST_FIELDS = 10_000
"""Most fields in one message. Published nets have some twenty layers; a longer row of tiny fields only takes time."""


class Malformed(Exception):
    """Bytes that are no such message. The text says why in a few words."""


# ------------------------------------------------------------------------------------------------ the wire
def read_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field: an int for a varint, else the bytes.

    Raises:
        Malformed: the bytes end early, or are no message.
    """
    at = 0
    for _ in range(MOST_FIELDS):
        if at == len(data):
            return
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise Malformed("it is no protocol buffer")
        if not number or size > len(data) - at:
            raise Malformed("it ends early" if number else "it is no protocol buffer")
        yield number, data[at : at + size]
        at += size
    raise Malformed(f"it has more than {MOST_FIELDS:,} fields in a row")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number whose seven-bit groups begin at a position, the lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Malformed("it ends early")
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Malformed("it is no protocol buffer")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise Malformed("it has a number where a part should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")


def _numbers(value: int | memoryview) -> list[int]:
    """Return the varints of a repeated field, packed into bytes or one by one."""
    if isinstance(value, int):
        return [value]
    if len(value) > 80:
        raise Malformed("it has an array of more than eight dimensions")
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


def _array(parts: list[memoryview], dtype: str, shape: list[int]) -> np.ndarray:
    """Return packed numbers as an array of float32.

    Raises:
        Malformed: their number does not fit the shape.
    """
    size, count = np.dtype(dtype).itemsize, math.prod(shape)
    if sum(map(len, parts)) != size * count or any(len(part) % size for part in parts):
        raise Malformed(f"{' x '.join(map(str, shape)) or 'one'} numbers should be there, and others are")
    flat = np.concatenate([np.frombuffer(part, dtype) for part in parts]) if parts else np.empty(0, dtype)
    return flat.astype(np.float32).reshape(shape)


# ------------------------------------------------------------------------------------------------ Caffe
@dataclass
class CaffeNet:
    """A .caffemodel: its name, and its layers in order."""

    name: str = ""
    layers: list[tuple[str, str]] = field(default_factory=list)
    """name and kind: Convolution, Pooling, LRN, InnerProduct, or another"""
    blobs: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """layer -> its weights, float32, with the stored shapes"""


OLD_KINDS = {4: "Convolution", 14: "InnerProduct", 15: "LRN", 17: "Pooling"}
"""The kinds of V1LayerParameter that matter, by number"""


def read_caffemodel(data: memoryview) -> CaffeNet:
    """Return the layers of a net that Caffe has written, in the format of 2014 (`layers`) or the later one (`layer`).

    Raises:
        Malformed: it is something else, or damaged.
    """
    net = CaffeNet()
    for number, value in read_fields(data):
        if number == 1:
            net.name = _text(value)
        elif number == 2:
            _read_layer(net, _message(value), name=4, kind=5, blobs=6)
        elif number == 100:
            _read_layer(net, _message(value), name=1, kind=2, blobs=7)
    return net


def _read_layer(net: CaffeNet, data: memoryview, name: int, kind: int, blobs: int) -> None:
    own_name, own_kind, arrays = "", "", []
    for number, value in read_fields(data):
        if number == name:
            own_name = _text(value)
        elif number == kind:
            own_kind = OLD_KINDS.get(value, "") if isinstance(value, int) else _text(value)
        elif number == blobs:
            arrays.append(read_blob(_message(value)))
    net.layers.append((own_name, own_kind))
    if arrays:
        net.blobs[own_name] = arrays


def read_blob(data: memoryview) -> np.ndarray:
    """Return a BlobProto, which a .binaryproto holds, too: float32, of its own shape or (n, c, h, w).

    Raises:
        Malformed: it is something else, or damaged.
    """
    old = {1: 0, 2: 0, 3: 0, 4: 0}
    shape: list[int] | None = None
    floats: list[memoryview] = []
    doubles: list[memoryview] = []
    for number, value in read_fields(data):
        if number in old and isinstance(value, int):
            old[number] = value
        elif number == 5:
            floats.append(_message(value))
        elif number == 8:
            doubles.append(_message(value))
        elif number == 7:
            shape = [side for n, sides in read_fields(_message(value)) if n == 1 for side in _numbers(sides)]
    return _array(doubles or floats, "<f8" if doubles else "<f4", list(old.values()) if shape is None else shape)


# ------------------------------------------------------------------------------------------------ ONNX
def read_initializers(data: memoryview) -> dict[str, np.ndarray]:
    """Return the weights of an ONNX file by name: the initializers of its graph that are float32 or float64.

    Raises:
        Malformed: it is something else, damaged, or keeps its weights in other files.
    """
    found = {}
    for number, graph in read_fields(data):
        if number != 7:
            continue
        for part, tensor in read_fields(_message(graph)):
            if part == 5:
                name, array = _read_tensor(_message(tensor))
                if array is not None:
                    found[name] = array
    return found


def _read_tensor(data: memoryview) -> tuple[str, np.ndarray | None]:
    name, kind, shape = "", 0, []
    packed: dict[int, list[memoryview]] = {4: [], 9: [], 10: []}  # float_data, raw_data, double_data
    for number, value in read_fields(data):
        if number == 1:
            shape += _numbers(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8:
            name = _text(value)
        elif number in packed:
            packed[number].append(_message(value))
        elif number == 14 and value:
            raise Malformed("its weights lie in other files")
    if kind not in (1, 11):
        return name, None
    own = packed[4 if kind == 1 else 10] or packed[9]
    return name, _array(own, "<f4" if kind == 1 else "<f8", shape)
