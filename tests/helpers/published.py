"""Weights as others publish them: .caffemodel, .binaryproto and .onnx files, written here message by message.

The numbers of the fields are those of caffe.proto and onnx.proto, and nothing of the package's own reader is used.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor

Array = np.ndarray
CONVS = {"conv1": (96, 3, 11), "conv2": (256, 48, 5), "conv3": (384, 256, 3), "conv4": (384, 192, 3),
         "conv5": (256, 192, 3)}  # fmt: skip
OLD_KINDS = {"Convolution": 4, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18, "Dropout": 6}


def he_normal(classes: int = 1000, seed: int = 0) -> dict[str, Array]:
    """Return weights of Caffe's nets, colours blue, green and red, with which logits have an rms above 1."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: (n, c, k, k) for name, (n, c, k) in CONVS.items()}
    shapes |= {"fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (classes, 4096)}  # type: ignore[dict-item]
    weights = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[1:]))
        weights[f"{name}.weight"] = (torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5).numpy()
        weights[f"{name}.bias"] = (torch.randn(shape[0], generator=generator) * 0.1).numpy()
    return weights


# ------------------------------------------------------------------------------------------------ messages
def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(at: int, value: int) -> bytes:
    return varint(at << 3) + varint(value)


def real(at: int, value: float) -> bytes:
    return varint(at << 3 | 5) + struct.pack("<f", value)


def part(at: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return varint(at << 3 | 2) + varint(len(data)) + data


def blob(array: Array, old: bool) -> bytes:
    """A BlobProto: of old with four sides, (1, 1, 4096, 9216) for a matrix; else with a shape."""
    data = part(5, array.astype("<f4").tobytes())
    if old:
        sides = (1,) * (4 - array.ndim) + array.shape
        return b"".join(number(at, side) for at, side in enumerate(sides, 1)) + data
    return part(7, part(1, b"".join(map(varint, array.shape)))) + data


def caffe_rows(classes: int, pool_first: bool) -> list[tuple[str, str, str]]:
    """The layers of bvlc_alexnet's prototxt, or of CaffeNet's (`pool_first`): name, kind, options."""
    rows = []
    for n, (name, (maps, _, k)) in enumerate(CONVS.items(), 1):
        group = 2 if name in ("conv2", "conv4", "conv5") else 1
        pad, stride = (0, 4) if n == 1 else (k // 2, 1)
        options = f"num_output: {maps} kernel_size: {k} pad: {pad} stride: {stride} group: {group}"
        rows += [(name, "Convolution", f"convolution_param {{ {options} }}"), (f"relu{n}", "ReLU", "")]
        norm = (f"norm{n}", "LRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
        pool = (f"pool{n}", "Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
        rows += [] if n in (3, 4) else [pool] if n == 5 else [pool, norm] if pool_first else [norm, pool]
    for n, units in ((6, 4096), (7, 4096), (8, classes)):
        rows.append((f"fc{n}", "InnerProduct", f"inner_product_param {{ num_output: {units} }}"))
        rows += [(f"relu{n}", "ReLU", ""), (f"drop{n}", "Dropout", "")] if n < 8 else []
    return rows


def prototxt(classes: int, pool_first: bool) -> str:
    """The net as text, for OpenCV."""
    lines, top = ['input: "data"', *(f"input_dim: {side}" for side in (1, 3, 227, 227))], "data"
    for name, kind, options in caffe_rows(classes, pool_first):
        below, top = top, top if kind in ("ReLU", "Dropout") else name
        lines.append(f'layer {{ name: "{name}" type: "{kind}" bottom: "{below}" top: "{top}" {options} }}')
    return "\n".join(lines)


def caffemodel(file: Path, weights: dict[str, Array], pool_first: bool = False, old: bool = False) -> Path:
    """Write a net as Caffe's snapshots are: in the format of 2014 (`old`), or in the later one."""
    name_at, kind_at, blobs_at, layer_at = (4, 5, 6, 2) if old else (1, 2, 7, 100)
    out = part(1, "CaffeNet" if pool_first else "AlexNet")
    for name, kind, _ in caffe_rows(len(weights["fc8.bias"]), pool_first):
        layer = part(name_at, name) + (number(kind_at, OLD_KINDS[kind]) if old else part(kind_at, kind))
        for array in (weights[f"{name}.{each}"] for each in ("weight", "bias") if f"{name}.{each}" in weights):
            layer += part(blobs_at, blob(array, old))
        out += part(layer_at, layer + real(200, 1.0))  # and a field that nobody knows
    file.write_bytes(out)
    return file


def binaryproto(file: Path, image: Array) -> Path:
    """Write a mean image, RGB (S, S, 3), as Caffe does: blue, green and red, (1, 3, S, S)."""
    file.write_bytes(blob(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)), old=True))
    return file


def zoo_onnx(file: Path, weights: dict[str, Array]) -> Path:
    """Write the weights as the ONNX model zoo's bvlcalexnet has them, conv1_w_0 and so on; the graph is left out."""
    graph = part(2, "bvlc_alexnet")
    for name, array in weights.items():
        own, kind = name.split(".")
        dims = b"".join(number(1, side) for side in array.shape)
        data = part(9, array.astype("<f4").tobytes())
        graph += part(5, dims + number(2, 1) + part(8, f"{own}_{kind[0]}_0") + data)
    file.write_bytes(number(1, 3) + part(2, "onnx-caffe2") + part(7, graph))
    return file


def torchvision_state(seed: int = 0, classes: int = 1000) -> dict[str, Tensor]:
    """Return He-normal weights for torchvision's alexnet."""
    with torch.device("meta"):
        net = torchvision.models.alexnet(weights=None, num_classes=classes)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in net.state_dict().items():
        std = (2 / value[0].numel()) ** 0.5 if name.endswith("weight") else 0.1
        state[name] = torch.randn(value.shape, generator=generator) * std
    return state
