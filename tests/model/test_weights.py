"""Published weights: Caffe's as OpenCV computes them, torchvision's as torchvision does; other files are refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from alexnet_pl import ROOT
from alexnet_pl.data import decode
from alexnet_pl.runs import trained
from tests.helpers import published
from tests.helpers.images import encode, smooth_image
from tests.helpers.runs import run_config

Array = np.ndarray
SAMPLES = ROOT / "../shared/data/ilsvrc-samples"


@pytest.fixture(scope="module")
def squares() -> torch.Tensor:
    """Six photographs, or where they are missing six generated images: uint8 (6, 256, 256, 3)."""
    files = sorted(SAMPLES.rglob("*.JPEG"))[:6]
    images = [decode.decode_image(file.read_bytes()) for file in files]
    if not images:
        made = [np.roll(smooth_image(300, 280, noise=40), 37 * n, axis=1)[:, :, [n % 3, 1, 2]] for n in range(6)]
        images = [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) for image in made]
    return torch.stack([decode.centre_square(image, 256) for image in images])


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    return published.he_normal()


@pytest.fixture(scope="module")
def mean() -> Array:
    """A mean image that is no one colour: float32 RGB (256, 256, 3)."""
    ramp = np.linspace(-20, 20, 256, dtype=np.float32)
    return np.array([122.7, 116.7, 104.0], np.float32) + ramp[:, None, None] - 0.5 * ramp[None, :, None]


def opencv(model: Path, pool_first: bool, squares: torch.Tensor, mean: Array) -> Array:
    """What OpenCV computes from a .caffemodel, from centres of 227 pixels, blue, green and red: (n, classes)."""
    model.with_suffix(".prototxt").write_text(published.prototxt(1000, pool_first))
    net = cv2.dnn.readNetFromCaffe(str(model.with_suffix(".prototxt")), str(model))
    pixels = (squares.numpy().astype(np.float32) - mean)[:, 14:241, 14:241, ::-1]
    net.setInput(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return net.forward()


def difference(ours: Array, theirs: Array) -> float:
    """How far differences of logits between images are apart, as a share of their rms."""
    apart = (ours - ours[:1])[1:] - (theirs - theirs[:1])[1:]
    return float(np.abs(apart).max() / np.sqrt(np.square((theirs - theirs[:1])[1:]).mean()))


@pytest.mark.slow
@pytest.mark.parametrize(("pool_first", "old"), [(False, True), (True, False)], ids=["bvlc_alexnet", "caffenet"])
def test_caffes_weights_give_what_opencv_makes_of_them(
    weights: dict[str, Array], squares: torch.Tensor, mean: Array, tmp_path: Path, pool_first: bool, old: bool
):
    file = published.caffemodel(tmp_path / "net.caffemodel", weights, pool_first, old)
    published.binaryproto(tmp_path / "mean.binaryproto", mean)  # found beside the weights
    net = trained.load(f"caffe:{file}")
    ours, theirs = net.logits(squares)[:, 0].numpy(), opencv(file, pool_first, squares, mean)
    assert np.sqrt(np.square(theirs).mean()) > 1
    assert difference(ours, theirs) < 1e-4
    assert net.cfg.model.name == ("caffenet" if pool_first else "caffe")
    with torch.no_grad():
        net.net.conv1.weight.copy_(net.net.conv1.weight.flip(1))
    assert difference(net.logits(squares)[:, 0].numpy(), theirs) > 0.1, "blue, green and red left unturned"


# ------------------------------------------------------------------------------------------------ torchvision


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Forty JPEG files: photographs as far as there are any, and generated ones, ten of them with an odd margin."""
    folder, files = tmp_path_factory.mktemp("photographs"), sorted(SAMPLES.rglob("*.JPEG"))[:25]
    for n in range(40 - len(files)):
        size = (256, 257 + 2 * n) if n < 10 else (300 + 7 * n, 280 - 3 * n)
        pixels = np.roll(smooth_image(*size[:: 1 - 2 * (n % 2)], noise=20), 29 * n, axis=0)
        (folder / f"{n}.jpg").write_bytes(encode(pixels, quality=95))
        files.append(folder / f"{n}.jpg")
    return files


@pytest.mark.slow
def test_torchvisions_weights_see_what_torchvision_sees(photographs: list[Path], tmp_path: Path):
    """Its own transforms and net: the same crop of each photograph, and the same probabilities."""
    state = published.torchvision_state()
    torch.save(state, tmp_path / "alexnet.pth")
    net = trained.load(tmp_path / "alexnet.pth")
    theirs = torchvision.models.alexnet(weights=None).eval()
    theirs.load_state_dict(state)
    transform = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.transforms()
    halves, crops, ours, from_files = 0, [], [], []
    for file in photographs:
        image = decode.decode_image(file.read_bytes())
        height, width = image.shape[1:]
        halves += (256 * max(height, width) // min(height, width)) % 2
        square = decode.centre_square(image, net.resized_size, net.squares)
        expected = v2.functional.center_crop(v2.functional.resize(image, [256], antialias=True), [224])
        assert torch.equal(square[16:240, 16:240], expected.permute(1, 2, 0)), file
        crops.append(expected.float() / 255)
        ours.append(square)
        from_files.append(transform(Image.open(file).convert("RGB")))
    assert halves >= 5
    inputs = v2.functional.normalize(torch.stack(crops), transform.mean, transform.std)
    with torch.no_grad():
        same, raw = theirs(inputs).softmax(1), theirs(torch.stack(from_files)).softmax(1)
    mine = net.logits(torch.stack(ours))[:, 0].softmax(1)
    assert same.max(1).values.median() > 0.02, "the nets are sure of something"
    assert (mine - same).abs().max() < 1e-4
    assert (mine - raw).abs().max() < 0.01
    assert net.classes[207] == "golden retriever"
    assert net.cfg.model == run_config("model=torchvision", "model.num_classes=1000").model
