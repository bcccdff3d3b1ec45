"""Files of weights that are damaged, cut short, foreign or hostile are refused in one sentence, whatever they claim."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from alexnet_pl import export
from alexnet_pl.errors import ConfigError
from alexnet_pl.model import protobuf, weights
from tests.helpers import published
from tests.helpers.nets import untrained_model
from tests.helpers.published import blob, number, part, varint

SMALL = {f"conv1.{kind}": np.ones(shape, np.float32) for kind, shape in {"weight": (2, 3, 3, 3), "bias": (2,)}.items()}
SMALL["fc8.bias"] = np.ones(10, np.float32)
STATE = {"conv1.weight": torch.ones(2, 3, 3, 3), "conv1.bias": torch.ones(2)}


def refusal(word: object, mean: Path | None = None) -> str:
    """Return the sentence with which weights are refused."""
    with pytest.raises(ConfigError) as error:
        weights.read_weights(str(word), mean)
    sentence = str(error.value)
    assert sentence
    assert "\n" not in sentence
    return sentence


# ------------------------------------------------------------------------------------------------ every kind


def small(folder: Path, kind: str) -> str:
    """Write a small file of a kind, of no net that is known; return the word for it."""
    file = folder / f"net.{kind}"
    if kind == "caffemodel":
        published.caffemodel(file, SMALL)
    elif kind == "v1.caffemodel":
        published.caffemodel(file, SMALL, old=True)
    elif kind == "onnx":
        published.zoo_onnx(file, SMALL)
    elif kind == "safetensors":
        save_file(STATE, file)
    else:
        torch.save(STATE, file, _use_new_zipfile_serialization=kind == "pth")
    return f"caffe:{file}" if "caffemodel" in kind else str(file)


KINDS = ["caffemodel", "v1.caffemodel", "onnx", "safetensors", "pth", "pt"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_a_damaged_and_a_missing_file(kind: str, tmp_path: Path):
    word = small(tmp_path, kind)
    file = Path(word.removeprefix("caffe:"))
    whole = file.read_bytes()
    assert any(said in refusal(word) for said in ("is not of", "does not hold torchvision's alexnet"))
    for damage in (b"", b"\0", b"hello", b"<!DOCTYPE html>" * 99, whole[:-1], whole[: len(whole) // 2], whole[7:]):
        file.write_bytes(damage)
        assert file.name in refusal(word)
    generator = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for place in generator.integers(0, len(data), 4):
            data[place] = generator.integers(0, 256)
        file.write_bytes(data)
        refusal(word)
    file.unlink()
    assert "there is no file" in refusal(word)
    file.mkdir()
    refusal(word)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_too_large_is_not_read(kind: str, tmp_path: Path):
    word = small(tmp_path, kind)
    with Path(word.removeprefix("caffe:")).open("r+b") as file:
        file.truncate(2**31 + 1)  # of a sparse file, which takes no room
    assert "is larger than 2 GiB" in refusal(word)


def test_what_a_word_does_not_take(tmp_path: Path):
    assert "is for Caffe's weights" in refusal(small(tmp_path, "pth"), tmp_path / "mean.binaryproto")
    assert "holds none of net.safetensors, net.pt" in refusal(tmp_path)


# ------------------------------------------------------------------------------------------------ protocol buffers
HOSTILE = {
    "a length beyond the end": varint(100 << 3 | 2) + varint(2**62) + b"abc",
    "a number without end": b"\xff" * 4096,
    "a field 0": b"\x02\x01a",
    "a group": b"\x0b" * 100,
    "too many fields": number(1, 1) * 15_000,
    "a layer that is a number": number(100, 5) + number(2, 5) + number(7, 1),
    "an endless shape": part(100, part(1, "fc8") + part(7, part(7, part(1, b"\x01" * 10**6)))),
    "a shape of 10^18": part(100, part(1, "fc8") + part(7, part(7, part(1, varint(10**9) * 2)) + part(5, b"\0" * 8))),
    "old sides of 2^62": part(2, part(4, "fc8") + part(6, b"".join(number(i, 2**62) for i in (1, 2, 3, 4)))),
    "half a number": part(
        100, part(1, "fc8") + part(7, part(7, part(1, b"\x01")) + part(5, b"\0\0") + part(5, b"\0\0"))
    ),
    "numbers one by one": part(100, part(1, "fc8") + part(7, number(5, 1))),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("word", ["caffe:net.caffemodel", "net.onnx"])
def test_a_hostile_message(word: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for message in (HOSTILE[kind], part(7, HOSTILE[kind]), part(7, part(5, HOSTILE[kind]))):
        (tmp_path / word.removeprefix("caffe:")).write_bytes(message)
        refusal(word)


def test_weights_in_another_file_are_not_looked_for(tmp_path: Path):
    tensor = number(1, 2) + number(2, 1) + part(8, "fc8_b_0") + number(14, 1)
    (tmp_path / "net.onnx").write_bytes(part(7, part(5, tensor)))
    assert "its weights lie in other files" in refusal(tmp_path / "net.onnx")


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_array_is_read_as_it_was_written(old: bool, dtype: Any):
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    data = blob(array.astype(np.float32), old)
    if dtype == np.float64:
        data = data[: -48 - 2] + part(8, array[:2].tobytes()) + part(8, array[2:].tobytes())  # in two pieces
    read = protobuf.read_blob(memoryview(data))
    np.testing.assert_array_equal(read.reshape(3, 4), array.astype(np.float32))
    assert read.shape == ((1, 1, 3, 4) if old else (3, 4))


def test_the_mean_image(tmp_path: Path):
    """Turned into red, green and blue, its centre cut out; several, or one of another size, are refused."""
    image = np.random.default_rng(0).uniform(0, 255, (256, 256, 3)).astype(np.float32)
    file = published.binaryproto(tmp_path / "a.binaryproto", image)
    mean = weights._caffe_mean(tmp_path / "net.caffemodel", None)
    np.testing.assert_array_equal(mean.numpy(), image[14:241, 14:241])
    published.binaryproto(tmp_path / "b.binaryproto", image[:100])
    with pytest.raises(ConfigError, match=r"holds 2 \.binaryproto files"):
        weights._caffe_mean(tmp_path / "net.caffemodel", None)
    with pytest.raises(ConfigError, match="should be the mean image"):
        weights._caffe_mean(tmp_path / "net.caffemodel", tmp_path / "b.binaryproto")
    np.testing.assert_array_equal(weights._caffe_mean(tmp_path / "net.caffemodel", file), mean)
    file.write_bytes(b"hello")
    with pytest.raises(ConfigError, match=r"is no \.binaryproto"):
        weights._caffe_mean(tmp_path / "net.caffemodel", file)
    colour = weights._caffe_mean(tmp_path / "elsewhere" / "net.caffemodel", None)[0, 0]
    assert colour.tolist() == pytest.approx([122.679, 116.669, 104.007])


# ------------------------------------------------------------------------------------------------ pickles


class Attack:
    """Runs a function when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_no_pickle_is_run(tmp_path: Path):
    marker, file = tmp_path / "ran", tmp_path / "net.pth"
    torch.save({"a": Attack(marker)}, file)
    assert "cannot be read as weights" in refusal(file)
    file.write_bytes(pickle.dumps(Attack(marker)))
    refusal(file)
    np.save(tmp_path / "net.pt", np.array([Attack(marker)]), allow_pickle=True)
    (tmp_path / "net.pt.npy").rename(tmp_path / "net.pt")
    refusal(tmp_path / "net.pt")
    assert not marker.exists()


def test_a_zip_file_that_claims_too_much(tmp_path: Path):
    """Zeros that a zip file holds a thousandth of: what it unpacks to is not unpacked."""
    torch.save(STATE, tmp_path / "net.pth")
    with zipfile.ZipFile(tmp_path / "net.pth", "a", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("net/data/9", b"\0" * 2**20)
        parts.infolist()[-1].file_size = 2**40  # in the directory at its end, which is believed
    assert "claims to unpack to more than 2 GiB" in refusal(tmp_path / "net.pth")


@pytest.mark.parametrize(
    "state",
    [{}, [torch.ones(1)], {"a": 1}, {1: torch.ones(1)}, {"a": torch.ones(1, dtype=torch.int64)},
     {"features.0.weight": torch.ones(1).expand(2**20, 2**20)}, {"a": torch.eye(2).to_sparse()}],
    ids=["empty", "list", "number", "no name", "integers", "endless", "sparse"],
)  # fmt: skip
def test_a_state_dict_of_something_else(state: Any, tmp_path: Path):
    torch.save(state, tmp_path / "net.pth")
    refusal(tmp_path / "net.pth")


# ------------------------------------------------------------------------------------------------ exports


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export.export(untrained_model("convnet", "data.resize=36", "data.crop_size=32"), folder, "safetensors")
    return folder


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no net": lambda told: told.pop("model"),
    "another net": lambda told: told["model"].update(widths={"conv1": 7}),
    "a net of 2 TiB": lambda told: told["model"].update(widths={"conv2": 10**12}),
    "an unknown key": lambda told: told["model"].update(colour="red"),
    "a word of the environment": lambda told: told["model"].update(name="${oc.env:HOME}"),
    "three towers": lambda told: told["model"].update(towers=3),
    "no scale": lambda told: told["scale"].update(value=0),
    "scale nan": lambda told: told["scale"].update(value=float("nan")),
    "no squares": lambda told: told["resize"].update(squares="round"),
    "no classes": lambda told: told.update(classes=[]),
    "too many classes": lambda told: told.update(classes=["a"] * 11),
    "a crop larger than the image": lambda told: told["crop"].update(size=99),
    "a crop of no size": lambda told: told["crop"].update(size=None),
    "a crop of 10^400": lambda told: told["crop"].update(size=10**400),
    "no mean": lambda told: told["mean"].update(file="away.npy"),
    "a mean elsewhere": lambda told: told["mean"].update(file="/etc/passwd"),
    "a list": lambda told: told.update(mean=[]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_preprocessing_json_that_cannot_be(change: str, exported: Path, tmp_path: Path):
    told = json.loads((exported / "preprocessing.json").read_text())
    for file in ("net.safetensors", "mean.npy"):
        (tmp_path / file).write_bytes((exported / file).read_bytes())
    CHANGES[change](told)
    (tmp_path / "preprocessing.json").write_text(json.dumps(told))
    refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"model": "\xff"}', "1e999"])
def test_a_preprocessing_json_that_is_none(text: str, exported: Path, tmp_path: Path):
    (tmp_path / "net.safetensors").write_bytes((exported / "net.safetensors").read_bytes())
    (tmp_path / "preprocessing.json").write_text(text, encoding="latin-1")
    assert "preprocessing.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    "mean",
    [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{'a': (((((((((((\n", np.ones((32, 32)), np.ones((2, 2, 3)),
     np.ones((32, 32, 3), int), np.array([Attack(Path("ran"))])],
    ids=["empty", "head", "bad head", "grey", "small", "integers", "pickle"],
)  # fmt: skip
def test_a_mean_image_that_is_none(mean: Any, exported: Path, tmp_path: Path):
    for file in ("net.safetensors", "preprocessing.json"):
        (tmp_path / file).write_bytes((exported / file).read_bytes())
    if isinstance(mean, bytes):
        (tmp_path / "mean.npy").write_bytes(mean)
    else:
        np.save(tmp_path / "mean.npy", mean)
    assert "mean.npy" in refusal(tmp_path)


def test_a_mean_image_that_claims_too_much(exported: Path, tmp_path: Path):
    for file in ("net.safetensors", "preprocessing.json", "mean.npy"):
        (tmp_path / file).write_bytes((exported / file).read_bytes())
    data = (tmp_path / "mean.npy").read_bytes()
    (tmp_path / "mean.npy").write_bytes(data.replace(b"(32, 32, 3)", b"(10**12, 3)"[:11].replace(b"10**12", b"999999")))
    assert "mean.npy" in refusal(tmp_path)
