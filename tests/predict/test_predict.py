"""What the predict command says of images, against torchvision's transforms and NumPy, image by image."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from matplotlib.colors import to_rgba
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from alexnet_pl.data import decode, store
from alexnet_pl.predict import plots
from alexnet_pl.predict.predictions import Prediction
from alexnet_pl.prepare import cli
from alexnet_pl.runs.trained import TrainedModel
from tests.helpers.images import encode, smooth_image
from tests.helpers.nets import CLASSES, save_checkpoint, untrained_model

Array = np.ndarray


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Images of several shapes and kinds in folders named as classes, and one in a folder that is none."""
    folder = tmp_path / "photographs"
    for number, name in enumerate(("cats/1.jpg", "cats/2.png", "dogs/1.jpg", "dogs/deep/2.png", "gnus/3.png")):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.roll(smooth_image(72 + 40 * (number % 3), 72 + 36 * (number % 2), noise=20), 30 * number, axis=1)
        file.write_bytes(encode(pixels, "JPEG" if name.endswith("jpg") else "PNG"))
    return folder


Predict = Callable[..., tuple[int, str, str]]


def square(file: Path, size: int) -> Tensor:
    """An image as torchvision's transforms make it, uint8 (1, size, size, 3); it rounds odd margins another way."""
    transform = v2.Compose([v2.PILToTensor(), v2.Resize(size), v2.CenterCrop(size)])
    return transform(Image.open(file).convert("RGB")).permute(1, 2, 0)[None]


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# ------------------------------------------------------------------------------------------------ predictions


@pytest.mark.parametrize("views", [1, 10])
def test_the_five_likeliest_classes(net: TrainedModel, run: str, photographs: Path, predict: Predict, views: int):
    table, page = photographs / "out.csv", photographs / "out.json"
    code, out, err = predict(run, photographs, "--views", views, "--csv", table, "--json", page)
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(table.open()))
    written = json.loads(page.read_text())["images"]
    files = sorted(path for path in photographs.rglob("*.*") if path.suffix in (".jpg", ".png"))
    assert [row["image"] for row in rows] == [str(file) for file in files for _ in range(5)]
    right = []
    for file, ours, five in zip(files, written, zip(*[iter(rows)] * 5, strict=True), strict=True):
        shares = softmax(net.logits(square(file, 36), views)[0].numpy().astype(np.float64)).mean(0)
        expected = np.argsort(-shares)[:5]
        assert [row["guess"] for row in five] == [CLASSES[i] for i in expected]
        np.testing.assert_allclose([float(row["probability"]) for row in five], shares[expected], atol=1e-5)
        assert [guess["class"] for guess in ours["guesses"]] == [CLASSES[i] for i in expected]
        label = file.parent.name if file.parent.name in CLASSES else None
        assert ours["class"] == label
        if label:
            assert ours["rank"] == 1 + list(np.argsort(-shares)).index(CLASSES.index(label))
            right.append(ours["rank"])
        assert f"{100 * shares.max():.2f} %" in out[out.index(str(file)) :].split("\n")[1]
    assert len(right) == 4
    assert f"of 4 whose class is known, {right.count(1)} right at once, {sum(r <= 5 for r in right)} among five" in out


def test_words_name_images(run: str, photographs: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch):
    """A file, a folder, two patterns, all of them twice; then standard input."""
    page = photographs / "out.json"

    def seen(*words: object) -> list[str]:
        assert predict(run, *words, "--json", page)[0] == 0
        return [row["image"] for row in json.loads(page.read_text())["images"]]

    cats = [str(photographs / "cats" / name) for name in ("1.jpg", "2.png")]
    assert seen(photographs / "cats") == seen(f"{photographs}/cats/[12].*", *cats) == cats
    assert len(seen(f"{photographs}/**/*.png")) == 3
    assert len(seen(f"{photographs}/*s")) == 5, "a pattern may match folders"
    data = Path(cats[0]).read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert seen("-", cats[0]) == ["-", cats[0]]
    both = json.loads(page.read_text())["images"]
    assert both[0]["guesses"] == both[1]["guesses"]


def test_labels_from_a_file(run: str, photographs: Path, predict: Predict):
    page, labels = photographs / "out.json", photographs / "labels.csv"
    labels.write_text(f"{photographs}/cats/1.jpg,hens\n3.png,1\n")
    assert predict(run, photographs, "--json", page, "--labels", labels)[0] == 0
    found = {row["image"]: row["class"] for row in json.loads(page.read_text())["images"]}
    assert {name: label for name, label in found.items() if label} == {
        f"{photographs}/cats/1.jpg": "hens",
        f"{photographs}/gnus/3.png": "dogs",
    }
    labels.write_text("3.png,hans\n")
    assert "hans is no class of this net: did you mean hens?" in predict(run, photographs, "--labels", labels)[2]
    labels.write_text("3.png\n")
    assert "each must be image,class" in predict(run, photographs, "--labels", labels)[2]


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(run: str, photographs: Path, predict: Predict):
    (photographs / "none.jpg").write_bytes(b"no image")
    (photographs / "empty").mkdir()
    page = photographs / "out.json"
    words = (photographs / "none.jpg", photographs / "empty", "*.nothing", "away.jpg")
    code, _, err = predict(run, *words, photographs / "cats", "--json", page)
    assert code == 1
    told = ["none.jpg gives no image: not an image", "empty holds no images", "no file matches", "no image away"]
    assert len(err.splitlines()) == 4
    for sentence in told:
        assert sentence in err
    assert len(json.loads(page.read_text())["images"]) == 2
    code, _, err = predict(run, *words)
    assert code == 1
    assert err.splitlines()[-1].startswith("error: there is no image to look at")


def test_mistakes_are_one_sentence(run: str, photographs: Path, predict: Predict, tmp_path: Path):
    def error_of(*args: object) -> str:
        code, out, err = predict(*args)
        assert (code, out) == (1, "")
        assert "\n" not in err.strip()
        return err

    assert "there is no checkpoint" in error_of(tmp_path / "no.ckpt", photographs)
    assert "error: " in error_of(photographs, photographs)
    assert "must end with .png, .svg, .pdf" in error_of(run, photographs, "--figure", "figure.jpg")
    assert "there is no folder" in error_of(run, photographs, "--csv", tmp_path / "away/a.csv")
    (tmp_path / "plan.json").write_text("{}")
    assert "is not finished" in error_of(run, photographs, "--neighbours", tmp_path)
    assert predict(run)[0] == 2


# ------------------------------------------------------------------------------------------------ neighbours


def features(net: TrainedModel, squares: list[Tensor], layer: str, before: bool = False) -> Array:
    """What comes out of a layer, or goes into it, for each square by itself; float64 (n, units)."""
    caught: list[Tensor] = []
    module = net.net.get_submodule(layer)
    handle = (
        module.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        if before
        else module.register_forward_hook(lambda _, __, out: caught.append(out))
    )
    for each in squares:
        net.logits(each)
    handle.remove()
    return torch.cat(caught).flatten(1).double().numpy()


def test_neighbours_in_a_folder(net: TrainedModel, run: str, photographs: Path, predict: Predict):
    """Of a net whose last layer is its only full one; a file is not its own neighbour."""
    files = sorted(path for path in photographs.rglob("*.*"))
    page, drawn = photographs / "out.json", photographs / "out.png"
    more = photographs / "cats" / "2.png", photographs / "gnus"
    code, out, err = predict(run, *more, "--neighbours", photographs, "--json", page, "--figure", drawn)
    assert (code, "drawn: " in out) == (0, True), err
    units = features(net, [square(file, 36) for file in files], "fc10", before=True)
    for row in json.loads(page.read_text())["images"]:
        own = files.index(Path(row["image"]))
        apart = np.sqrt(np.square(units - units[own]).sum(1))
        expected = [i for i in np.argsort(apart) if i != own][:6]
        assert [n["image"] for n in row["neighbours"]] == [str(files[i]) for i in expected]
        np.testing.assert_allclose([n["distance"] for n in row["neighbours"]], apart[expected], rtol=1e-5)
    assert drawn.stat().st_size > 10_000


def test_neighbours_in_a_store_by_fc7(photographs: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch):
    """fc7 behind its activation, not halved by dropout; the store's images are smaller than the net's."""
    net = untrained_model("alexnet", "data.resize=240")
    run, packed = save_checkpoint(net, photographs / "net.ckpt"), photographs.parent / "packed"
    for number in range(6):
        pixels = np.roll(smooth_image(80, 80), 13 * number, axis=0)
        (photographs / "dogs" / f"more{number}.png").write_bytes(encode(pixels, "PNG"))
    monkeypatch.setattr(sys, "argv", ["alexnet-prepare", str(photographs), str(packed), "--size", "72"])
    cli.main()
    page = photographs / "out.json"
    wanted = photographs / "cats" / "1.jpg"
    code, _, err = predict(run, wanted, "--neighbours", packed, "--json", page)
    assert code == 0, err
    names = store.require(packed).index("train")["name"].to_pylist()
    units = features(net, [square(photographs / name, 72) for name in names], "fc7_act")
    own = features(net, [square(wanted, 240)], "fc7_act")
    apart = np.sqrt(np.square(units - own).sum(1))
    expected = np.argsort(apart)[:6]
    (row,) = json.loads(page.read_text())["images"]
    assert [n["image"] for n in row["neighbours"]] == [names[i] for i in expected]
    assert [n["class"] for n in row["neighbours"]] == [names[i].partition("/")[0] for i in expected]
    np.testing.assert_allclose([n["distance"] for n in row["neighbours"]], apart[expected], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------ figures


def prediction(number: int, label: str | None) -> Prediction:
    top = list(zip(CLASSES, (0.5, 0.2, 0.1, 0.1, 0.05), strict=False))
    return Prediction(f"{number}.png", torch.full((8, 8, 3), 7 * number, dtype=torch.uint8), top, label, None)


def test_bars_of_the_right_class_have_a_colour_of_their_own():
    drawn = plots._bars([prediction(1, "dogs"), prediction(2, None), prediction(3, "hens")])
    bars = [axes.patches for axes in drawn.axes if axes.patches]
    assert [[bar.get_width() for bar in each] for each in bars] == [[0.5, 0.2, 0.1, 0.1, 0.05]] * 3
    right = [[bar.get_facecolor() == to_rgba(plots.RIGHT) for bar in each] for each in bars]
    assert right == [[False, True, False, False, False], [False] * 5, [False] * 5]
    assert [axes.get_title() for axes in drawn.axes if axes.patches] == ["dogs", "2", "hens"]


@pytest.mark.slow
def test_many_images_take_several_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plots, "IMAGES", 3)
    written = plots.draw_predictions([prediction(i, None) for i in range(4)], tmp_path / "a.png")
    assert [path.name for path in written] == ["a.png", "a-2.png"]
    assert Image.open(written[0]).width > Image.open(written[1]).width
    (vector,) = plots.draw_predictions([prediction(1, "dogs")], tmp_path / "b.svg")
    assert "hens" not in vector.read_text()
    assert "gnus" in vector.read_text()


@pytest.mark.slow
def test_torchvisions_weights(photographs: Path, predict: Predict):
    torch.manual_seed(1)
    theirs = torchvision.models.alexnet(weights=None).eval()
    torch.save(theirs.state_dict(), photographs / "alexnet.pth")
    page, file = photographs / "out.json", photographs / "cats" / "1.jpg"
    code, _, err = predict(photographs / "alexnet.pth", file, "--json", page)
    assert (code, err) == (0, "")
    published = torchvision.models.AlexNet_Weights.IMAGENET1K_V1
    with torch.no_grad():
        logits = theirs(published.transforms()(decode.decode_image(file.read_bytes()))[None])[0]
    (row,) = json.loads(page.read_text())["images"]
    expected = logits.softmax(0).topk(5)
    assert [each["class"] for each in row["guesses"]] == [published.meta["categories"][i] for i in expected.indices]
    np.testing.assert_allclose([g["probability"] for g in row["guesses"]], expected.values, rtol=1e-4)
