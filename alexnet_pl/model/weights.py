"""Read published weights: torchvision's, Caffe's, the ONNX model zoo's, and those that `alexnet_pl.export` writes.

    torchvision           torchvision's alexnet, downloaded to the folder of torch.hub
    FILE.pth              the same from its file; or a state dict beside the preprocessing.json of an export
    FILE.safetensors      the same in another format
    FOLDER                an export, with net.safetensors or net.pt
    caffe:FILE            a .caffemodel of bvlc_alexnet or CaffeNet
    FILE.onnx             the model zoo's bvlcalexnet, which is Caffe's

No pickle runs, and nothing becomes larger than its file. Other files are refused in a sentence. The result is the same
for all: parameters by our layers' names, and the preprocessing of images.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from alexnet_pl import files
from alexnet_pl.config.choices import ParameterNames, Squares
from alexnet_pl.config.schema import LEAST_PIXELS, MOST_PIXELS, Model
from alexnet_pl.errors import ConfigError, first_line
from alexnet_pl.model import protobuf
from alexnet_pl.model.build import TORCHVISION
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.model.weight_files import LARGEST, checked, load_state, torchvision_file

CAFFE_MEAN = (122.679, 116.669, 104.007)
"""Mean colour of ImageNet, RGB of 0..255, which Caffe's examples subtract if there is no mean image"""
TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels, RGB of 0..1, for torchvision's nets"""
OUR_NAMES = {
    f"{theirs}.{kind}": f"{ours}.{kind}" for ours, theirs in TORCHVISION.items() for kind in ("weight", "bias")
}
"""torchvision's names of alexnet's parameters -> ours"""
EXPORTED = ("net.safetensors", "net.pt")
"""File names of the weights in an export's folder"""
PREPROCESSING = {
    "model": {}, "crop": {"size": int}, "resize": {"shorter_side": int, "squares": str}, "mean": {"file": str},
    "scale": {"value": float}, "classes": [str],
}  # fmt: skip
"""The types of the entries that are read from preprocessing.json"""


@dataclass
class Weights:
    """A published net, and its preprocessing of images."""

    name: str
    model: Model
    state: dict[str, Tensor]
    """float32, by our layers' names: conv1.weight"""
    mean: Tensor
    """float32 (input_size, input_size, 3): mean image to subtract, in RGB of 0..255"""
    scale: float
    """divisor of the difference"""
    classes: list[str]
    input_size: int
    resized_size: int
    """side in pixels of the square that an image becomes, before the net's input is cut out"""
    squares: Squares


def read_weights(word: str, mean: Path | None = None) -> Weights:
    """Return the published net that a word names.

    Args:
        word: a word from the list at the head of this file.
        mean: a .binaryproto with Caffe's mean image; None: the one beside the weights, else the mean colour.
    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    path = files.expand(word.removeprefix("caffe:"))
    refuse_mean(word, mean)
    if word == "torchvision":
        return _torchvision(load_state(torchvision_file()), word)
    if word.startswith("caffe:"):
        return _caffe(path, mean)
    if path.suffix == ".onnx":
        return _onnx(path, mean)
    if path.is_dir():
        found = [path / name for name in EXPORTED if (path / name).is_file()]
        if not found:
            raise ConfigError(f"{path} holds none of {', '.join(EXPORTED)}: export with --format safetensors or torch")
        path = found[0]
    told = path.parent / "preprocessing.json"
    if told.is_file():
        return _exported(path, told)
    return _torchvision(load_state(path), path.stem)


def refuse_mean(word: str, mean: Path | None) -> None:
    """Raise ConfigError if a mean image is given for a net that has its own."""
    if mean is not None and not (word.startswith("caffe:") or word.endswith(".onnx")):
        raise ConfigError(f"--mean {mean} is for Caffe's weights (caffe:FILE, FILE.onnx): {word} has a mean of its own")


# ------------------------------------------------------------------------------------------------ nets
def net_config(name: str, **changes: Any) -> Model:
    """Return the net of conf/model/`name`.yaml with some changes, without Hydra. `num_classes` must be among them.

    Raises:
        OmegaConfBaseException: a change is no key, or of another type.
    """
    return _to_model(OmegaConf.merge(_net_file(name), changes))


def _net_file(name: str) -> DictConfig:
    own = OmegaConf.load(files.ROOT / "conf" / "model" / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    merged = OmegaConf.merge(*map(_net_file, own.pop("defaults", [])), own)
    assert isinstance(merged, DictConfig)
    return merged


def _to_model(plain: Any) -> Model:
    model = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Model), plain))
    assert isinstance(model, Model)
    return model


def parameter_shapes(model: Model, input_size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of a net.

    Raises:
        ConfigError: there is no such net, or it has more weights than any file may hold.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    specs = [spec for spec in layer_specs(model, input_size) if spec.parameters]
    if 4 * sum(spec.parameters for spec in specs) > LARGEST:
        raise ConfigError(f"the net has more than {LARGEST // 2**30} GiB of weights, which is not read")
    for spec in specs:
        units, *places = spec.outputs
        match spec.kind:
            case "conv":
                weight: tuple[int, ...] = (units, spec.inputs[0] // spec.groups, spec.size, spec.size)
            case "local":
                weight = (math.prod(places), units, spec.fan_in)
            case _:
                weight = (units, spec.fan_in)
        shapes[f"{spec.name}.weight"] = weight
        shapes[f"{spec.name}.bias"] = spec.outputs if spec.kind == "local" else (units,)
    return shapes


def _fit(state: dict[str, Tensor], model: Model, input_size: int, path: Path | str) -> dict[str, Tensor]:
    """Return a state as float32, after checking that it has exactly a net's parameters.

    Raises:
        ConfigError: it is of another net.
    """
    shapes = parameter_shapes(model, input_size)
    if wrong := sorted(shapes.keys() ^ state.keys()):
        has = "lacks" if wrong[0] in shapes else "has"
        raise ConfigError(f"{path} is not of model={model.name}: it {has} {wrong[0]}")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            there = tuple(state[name].shape)
            raise ConfigError(f"{path} is not of model={model.name}: its {name} is {there}, and should be {shape}")
    return {name: state[name].float().contiguous() for name in shapes}


def class_names(count: int) -> list[str]:
    """Return ImageNet's class names if there are 1000 classes, else numbers."""
    if count == 1000:
        from torchvision.models import AlexNet_Weights

        return list(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
    return [f"class {number}" for number in range(count)]


# ------------------------------------------------------------------------------------------------ torchvision
def _torchvision(state: dict[str, Tensor], name: str) -> Weights:
    """Return torchvision's alexnet. Its divisors of pixels, one for each colour, go into conv1's weights."""
    if not state.keys() <= OUR_NAMES.keys() or "classifier.6.bias" not in state:
        raise ConfigError(
            f"{name} does not hold torchvision's alexnet, and has no preprocessing.json beside it: give that net, or "
            "what alexnet_pl.export wrote"
        )
    ours = {OUR_NAMES[key]: value for key, value in state.items()}
    model = net_config("torchvision", num_classes=len(ours["fc8.bias"]))
    ours = _fit(ours, model, 224, name)
    ours["conv1.weight"] = ours["conv1.weight"] / (255 * torch.tensor(TORCHVISION_STD)[:, None, None])
    mean = (255 * torch.tensor(TORCHVISION_MEAN)).expand(224, 224, 3).clone()
    classes = class_names(model.num_classes)
    return Weights(name, model, ours, mean, 1.0, classes, 224, 256, Squares.torchvision)


# ------------------------------------------------------------------------------------------------ Caffe
def _caffe(path: Path, mean: Path | None) -> Weights:
    """Return bvlc_alexnet or CaffeNet. They differ in the order of normalisation and pooling only."""
    try:
        found = protobuf.read_caffemodel(memoryview(checked(path).read_bytes()))
    except protobuf.Malformed as error:
        raise ConfigError(f"{path} is no .caffemodel, or damaged: {error}") from error
    kinds = [kind for _, kind in found.layers if kind in ("LRN", "Pooling")]
    name = "caffenet" if kinds[:1] == ["Pooling"] or (not kinds and "caffenet" in found.name.lower()) else "caffe"
    blobs = {
        f"{layer}.{kind}": blob
        for layer, arrays in found.blobs.items()
        for kind, blob in zip(("weight", "bias"), arrays, strict=False)
    }
    return _bvlc(blobs, name, path, mean)


def _onnx(path: Path, mean: Path | None) -> Weights:
    """Return bvlc_alexnet from the ONNX model zoo's file: Caffe's weights, here with Caffe's crops of 227 pixels."""
    try:
        found = protobuf.read_initializers(memoryview(checked(path).read_bytes()))
    except protobuf.Malformed as error:
        raise ConfigError(f"{path} is no ONNX file, or damaged: {error}") from error
    parts = {name: re.fullmatch(r"((?:conv|fc)\d)_([wb])_0", name) for name in found}
    kinds = {"w": "weight", "b": "bias"}
    blobs = {f"{part[1]}.{kinds[part[2]]}": found[name] for name, part in parts.items() if part}
    return _bvlc(blobs, "caffe", path, mean)


def _bvlc(blobs: dict[str, np.ndarray], name: str, path: Path, mean: Path | None) -> Weights:
    """Return one of Caffe's nets. Its colours are blue, green, red; conv1's weights are reordered to RGB."""
    if "fc8.bias" not in blobs:
        raise ConfigError(f"{path} is not of bvlc_alexnet or CaffeNet: it has no layer fc8")
    model = net_config(name, num_classes=blobs["fc8.bias"].size)
    shapes = parameter_shapes(model, 227)
    state = {}
    for key, blob in blobs.items():
        shape = shapes.get(key, blob.shape)
        same = [side for side in blob.shape if side != 1] == [side for side in shape if side != 1]
        state[key] = torch.from_numpy(blob.reshape(shape) if same else blob)  # (1, 1, 4096, 9216), as of old
    state = _fit(state, model, 227, path)
    state["conv1.weight"] = state["conv1.weight"].flip(1).contiguous()
    image = _caffe_mean(path, mean)
    return Weights(path.stem, model, state, image, 1.0, class_names(model.num_classes), 227, 256, Squares.warp)


def _caffe_mean(weights: Path, given: Path | None) -> Tensor:
    """Return the centre of the mean image, RGB, float32 (227, 227, 3): the given one, else the one beside the weights.

    Without either, it is one colour.
    """
    beside = sorted(weights.parent.glob("*.binaryproto")) if given is None else [given]
    if len(beside) > 1:
        raise ConfigError(f"{weights.parent} holds {len(beside)} .binaryproto files: say with --mean which one it is")
    if not beside:
        return torch.tensor(CAFFE_MEAN).expand(227, 227, 3).clone()
    (path,) = beside
    try:
        mean = protobuf.read_blob(memoryview(checked(path).read_bytes()))
    except protobuf.Malformed as error:
        raise ConfigError(f"{path} is no .binaryproto, or damaged: {error}") from error
    mean = mean.reshape(mean.shape[-3:]) if math.prod(mean.shape[:-3]) == 1 else mean
    if mean.shape not in ((3, 256, 256), (3, 227, 227)):
        raise ConfigError(f"{path} is {mean.shape}, and should be the mean image of 3 colours and 256 x 256 pixels")
    margin = (mean.shape[1] - 227) // 2
    centre = mean[::-1, margin : margin + 227, margin : margin + 227].transpose(1, 2, 0)
    return torch.from_numpy(np.ascontiguousarray(centre))


# ------------------------------------------------------------------------------------------------ exports
def _exported(path: Path, told: Path) -> Weights:
    """Return a net that export wrote, from its weights, preprocessing.json, and the mean image that this file names."""
    state = load_state(path)
    plain = files.read_json(told, PREPROCESSING, "export the net again")
    try:
        if "${" in json.dumps(plain["model"]):
            raise ValueError("its net refers to something else")
        model = _to_model(plain["model"])
        input_size, resized_size = plain["crop"]["size"], plain["resize"]["shorter_side"]
        scale, classes, squares = plain["scale"]["value"], plain["classes"], Squares[plain["resize"]["squares"]]
        mean_file = told.parent / Path(plain["mean"]["file"]).name
        if not (LEAST_PIXELS <= input_size <= resized_size <= MOST_PIXELS and scale > 0):
            raise ValueError("its sizes or its scale cannot be")
        if not 0 < len(classes) <= model.num_classes:
            raise ValueError("its classes are not those of its net")
        parameter_shapes(model, input_size)
    except (ArithmeticError, LookupError, ValueError, TypeError, OmegaConfBaseException) as error:
        reason = first_line(error)
        raise ConfigError(f"{told} does not say how to use {path.name} ({reason}): export it again") from error
    if model.parameter_names is ParameterNames.torchvision:
        state = {OUR_NAMES.get(key, key): value for key, value in state.items()}
    state = _fit(state, model, input_size, path)
    try:
        mean = np.load(mean_file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
        raise ConfigError(f"{mean_file} is no mean image ({first_line(error)}): export the net again") from error
    if mean.shape != (input_size, input_size, 3) or mean.dtype.kind != "f":
        raise ConfigError(f"{mean_file} is {mean.shape}, and should be ({input_size}, {input_size}, 3): export again")
    image = torch.from_numpy(np.array(mean, np.float32))
    return Weights(path.parent.resolve().name, model, state, image, scale, classes, input_size, resized_size, squares)
