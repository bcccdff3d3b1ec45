"""Exported nets give the net's logits in onnxruntime and in torch; what cannot be exported is told."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from alexnet_pl import ROOT, export
from alexnet_pl.config.choices import Squares
from alexnet_pl.config.schema import Model, as_dict
from alexnet_pl.data import decode
from alexnet_pl.data.datasets import SHAPES_CLASSES
from alexnet_pl.data.shapes import draw_shapes
from alexnet_pl.errors import ConfigError, UserError
from alexnet_pl.model.build import build_net
from alexnet_pl.runs.card import model_card
from alexnet_pl.runs.run import Run
from alexnet_pl.runs.trained import TrainedModel, load
from tests.helpers.fuzz import full_disk, untouched
from tests.helpers.images import encode, smooth_image
from tests.helpers.nets import save_checkpoint, untrained_model

NETS = sorted(file.stem for file in (ROOT / "conf/model").glob("*.yaml"))
SAMPLES = ROOT / "../shared/data/ilsvrc-samples"


def draw_squares(size: int) -> Tensor:
    """Three images, enlarged or reduced: uint8 (3, size, size, 3)."""
    return v2.functional.resize(draw_shapes(SHAPES_CLASSES, 3, 1)[0].permute(0, 3, 1, 2), [size, size]).permute(
        0, 2, 3, 1
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_onnx_of_every_net(name: str, tmp_path: Path):
    net = untrained_model(name)
    assert export.export(net, tmp_path, images=list(draw_squares(net.resized_size))) < 1e-5
    squares = draw_squares(net.resized_size)
    size = net.cfg.data.input_size
    pixels = v2.functional.center_crop(squares.permute(0, 3, 1, 2), [size, size]).float().numpy()
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    expected = net.logits(squares)[:, 0].numpy()
    assert np.ptp(expected, axis=0).max() > 0.05 * np.abs(expected).max(), "the images differ"
    for count in (1, 3):
        (logits,) = session.run(None, {"pixels": pixels[:count]})
        np.testing.assert_allclose(logits, expected[:count], rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def net() -> TrainedModel:
    return untrained_model("convnet", "data.resize=36", "data.crop_size=32", "data.pixel_scale=64")


Export = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Export:
    """`command(RUN, ...)`: exit code, what it printed, and what it complained of."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["alexnet-export", *map(str, args)])
        code = 0
        try:
            export.main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.slow
def test_an_image_by_what_preprocessing_json_says(net: TrainedModel, tmp_path: Path, command: Export):
    """From a photograph to probabilities without this package: Pillow, NumPy, onnxruntime, and the two files."""
    pixels, out = smooth_image(90, 72, noise=20), tmp_path / "out"
    shown = tmp_path / "image.png"
    shown.write_bytes(encode(pixels, "PNG"))
    code, said, err = command(save_checkpoint(net, tmp_path / "net.ckpt"), "--out", out, "--images", shown)
    assert (code, err) == (0, "")
    assert "mean.npy, net.onnx, preprocessing.json" in said
    assert "on 4 images" in said
    told = json.loads((out / "preprocessing.json").read_text())
    side, crop = told["resize"]["shorter_side"], told["crop"]["size"]
    image = Image.open(shown).resize((side * 90 // 72, side), Image.Resampling.BILINEAR)
    left, top = (image.width - crop) // 2, (image.height - crop) // 2
    square = np.asarray(image.crop((left, top, left + crop, top + crop))).astype(np.float32)
    session = onnxruntime.InferenceSession(out / "net.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"pixels": square.transpose(2, 0, 1)[None]})
    expected = net.logits(decode.centre_square(decode.decode_image(shown.read_bytes()), 36)[None])[:, 0].numpy()
    np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())  # Pillow rounds twice
    assert told["classes"] == net.classes
    assert json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"]) == told
    np.testing.assert_array_equal(np.load(out / "mean.npy"), net.mean.numpy())


def test_plain_weights(net: TrainedModel, tmp_path: Path, command: Export):
    """A net built by the file's own account of it, fed by hand."""
    code, said, err = command(save_checkpoint(net, tmp_path / "net.ckpt"), "--out", tmp_path, "--format", "torch")
    assert (code, err) == (0, "")
    assert "0.0e+00" in said
    told = json.loads((tmp_path / "preprocessing.json").read_text())
    cfg = OmegaConf.to_object(OmegaConf.merge(Model, told["model"]))
    fresh = build_net(cfg, told["crop"]["size"], seed=9).eval()
    fresh.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    squares = draw_squares(36)
    pixels = squares[:, 2:34, 2:34].numpy().astype(np.float64)
    inputs = (pixels - np.load(tmp_path / "mean.npy")) / told["scale"]["value"]
    with torch.no_grad():
        logits = fresh(torch.from_numpy(inputs).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(logits, net.logits(squares)[:, 0], rtol=1e-4, atol=1e-4)
    export.export(replace(net, net=copy.deepcopy(net.net).bfloat16()), tmp_path, "torch")
    assert {value.dtype for value in torch.load(tmp_path / "net.pt", weights_only=True).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("convnet", "torch"),
        ("conv_local_11", "safetensors"),
        ("released_2012", "safetensors"),
        ("torchvision", "torch"),
    ],
)
def test_an_exported_folder_takes_the_place_of_a_run(name: str, form: str, tmp_path: Path):
    net = untrained_model(name)
    net.cfg.data.store = "a-store-warp"
    export.export(net, tmp_path, form)
    squares = draw_squares(net.resized_size)
    for word in (tmp_path, tmp_path / export.FORMATS[form]):
        again = load(word)
        torch.testing.assert_close(again.logits(squares), net.logits(squares), rtol=1e-5, atol=1e-5)
        assert (again.cfg.model, again.classes, again.squares) == (net.cfg.model, net.classes, Squares.warp)
        assert (again.resized_size, again.cfg.data.pixel_scale) == (net.resized_size, net.cfg.data.pixel_scale)


def test_a_model_card_is_written_from_the_run(net: TrainedModel, tmp_path: Path, command: Export):
    """Data, recipe, errors and commit, as the run's files have them; and an evaluation that lies there."""
    run = Run(tmp_path / "runs/a")
    run.start(as_dict(net.cfg), ["optim.lr=0.125", "name=a|b"])
    save_checkpoint(net, run.last)
    run.finish({"val/error": 0.25, "val/top5_error": 0.0625}, 7200)
    assert run.lock
    run.lock.close()
    evaluation = run.folder / "evaluation/10-probabilities"
    evaluation.mkdir(parents=True)
    told = {"split": "val", "images": 50_000, "views": 10, "error": 0.407, "top5_error": 0.182}
    (evaluation / "evaluation.json").write_text(json.dumps(told))
    assert command(run.folder, "--format", "safetensors")[::2] == (0, "")
    out = run.folder / "export"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "config.yaml", "mean.npy", "net.safetensors", "preprocessing.json"
    ]  # fmt: skip
    card = (out / "README.md").read_text()
    head, body = card.removeprefix("---\n").split("---\n", 1)
    assert OmegaConf.create(head).pipeline_tag == "image-classification"
    for said in (
        "`convnet`: 89,578 parameters, 10 classes, images of 32 x 32 pixels", "`shapes`, 10 classes", "| `optim.lr` |",
        "alexnet_pl.train optim.lr=0.125 'name=a|b'", "| validation set, centre crop | 25.00 % | 6.25 % |",
        "| val split, 50000 images, 10 views (`10-probabilities`) | 40.70 % | 18.20 % |", "7200 seconds",
        run.identity["git"].get("commit", "not known"), f"torch {run.identity['versions']['torch']}",
    ):  # fmt: skip
        assert said in body, said
    assert OmegaConf.load(out / "config.yaml").optim.lr == net.cfg.optim.lr
    (run.folder / "done.json").unlink()
    assert "Training was not finished" in model_card(replace(net, run=run), "net.pt")
    assert "how they were trained is not known here" in model_card(net, "net.pt"), "though it may be a net of ours"


def test_another_result_is_refused(net: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing is left of it; an export that stood there before stays."""
    export.export(net, tmp_path, "torch")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    honest = export._run_torch
    monkeypatch.setattr(export, "_run_torch", lambda *args: honest(*args) * (1 + 1e-3))
    with pytest.raises(UserError, match=r"differ from the net's by 1\.0e-03 of the largest"):
        export.export(net, tmp_path, "torch")
    monkeypatch.setattr(export, "_run_torch", lambda *args: honest(*args) * np.nan)
    with pytest.raises(UserError, match="differ from the net's by nan"):
        export.export(net, tmp_path, "torch")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_mistakes_are_one_sentence(net: TrainedModel, tmp_path: Path, command: Export, monkeypatch: pytest.MonkeyPatch):
    run = save_checkpoint(net, tmp_path / "net.ckpt")
    assert "say with --out where to write it" in command(run)[2]
    assert "there is no image away.jpg" in command(run, "--out", tmp_path, "--images", "away.jpg")[2]
    assert "there is no checkpoint" in command(tmp_path / "none.ckpt")[2]
    assert command()[0] == 2
    assert "--mean away is for Caffe's weights" in command(run, "--mean", "away")[2]
    assert "there is no file away.pth" in command("away.pth", "--out", tmp_path)[2]
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, out, err = command(run, "--out", tmp_path / "out")
    assert (code, out) == (1, "")
    assert err == "error: onnxscript is not installed: ONNX needs pip install onnx onnxruntime onnxscript\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["README.md", "config.yaml", "mean.npy", "net.pt"])
def test_a_file_that_no_export_wrote_stays(name: str, net: TrainedModel, tmp_path: Path):
    """As those of a project, a run or a packed dataset; another export into the same folder is none of them."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"holds a {re.escape(name)} that no export wrote: give"), untouched(tmp_path):
        export.export(net, tmp_path, "torch")
    (tmp_path / name).unlink()
    for _ in range(2):
        export.export(net, tmp_path, "torch")


@pytest.mark.slow
@pytest.mark.parametrize(("form", "left"), [("torch", 100), ("torch", 20_000), ("safetensors", 100)])
def test_a_full_disk_names_the_file_of_weights(form: str, left: int, net: TrainedModel, tmp_path: Path):
    """Also where torch has written most of them, which raises a RuntimeError."""
    with full_disk(left), pytest.raises(OSError, match="File too large") as error:
        export.export(net, tmp_path / "out", form)
    assert error.value.filename == str(tmp_path / "out" / export.FORMATS[form])
    assert list((tmp_path / "out").iterdir()) == []


def test_no_one_is_told_to_ask_a_registry_for_this_package():
    """It is in none: whoever takes its name there is a stranger."""
    texts = [path for folder in ("alexnet_pl", "docs", "conf", "sweeps") for path in (ROOT / folder).rglob("*.*")]
    told = [
        line
        for path in (*texts, ROOT / "README.md")
        if path.suffix in (".py", ".md", ".yaml")
        for line in path.read_text().splitlines()
        if re.search(r"pip install .*(?<!/)\balexnet[-_]pl\b", line)
    ]
    assert told == []
