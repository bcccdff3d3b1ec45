"""Fine-tuning: from every kind of weights on a folder of photographs; which layers are loaded, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from alexnet_pl import export
from alexnet_pl.config.choices import PretrainedLayers
from alexnet_pl.config.schema import Config
from alexnet_pl.errors import ConfigError
from alexnet_pl.model.build import build_net
from alexnet_pl.prepare.options import Options
from alexnet_pl.prepare.prepare import prepare
from alexnet_pl.runs.pretrained import load_pretrained, read_pretrained
from alexnet_pl.runs.run import find_runs
from tests.helpers import published
from tests.helpers.commands import Command
from tests.helpers.images import encode, smooth_image
from tests.helpers.nets import NARROW, save_checkpoint, untrained_model
from tests.helpers.runs import run_config


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed dataset of a folder with photographs of two classes."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(16):
        file = folder / "source" / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(np.roll(smooth_image(300, 260, noise=20), 17 * number, axis=1)))
    prepare(folder / "source", folder / "packed", Options(hold_out=0.25, workers=2), Console(file=io.StringIO()))
    return folder / "packed"


@pytest.fixture(scope="module")
def caffes() -> dict[str, np.ndarray]:
    """Weights of Caffe's nets: 61 million drawn numbers."""
    return published.he_normal()


QUICK = (
    "data=packed", "data.batch_size=2", "trainer.max_steps=1", "trainer.limit_val_batches=1", "trainer=cpu",
    "trainer.enable_checkpointing=false", "logger=csv", "train_eval_images=0", "pretrained_layers=all",
    "optim.frozen=[conv1,conv2,conv3,conv4,conv5,fc6]",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torchvision", "caffenet", "onnx", "exported"])
def test_a_net_is_tuned_from_every_kind_of_weights(
    kind: str, store: Path, caffes: dict[str, np.ndarray], tmp_path: Path, train: Command
):
    model, word = f"model={kind}", str(tmp_path / f"weights.{kind}")
    more: list[str] = []
    if kind == "torchvision":
        word = f"{word}.pth"
        torch.save(published.torchvision_state(), word)
    elif kind == "onnx":
        published.zoo_onnx(Path(word), caffes)
        model = "model=caffe"
    elif kind == "exported":
        net = untrained_model("alexnet")
        net.mean = net.mean - net.mean.mean((0, 1)) + torch.tensor([127.0, 120, 105])
        export.export(net, Path(word), "safetensors")
        model, more = "model=alexnet", [f"model.widths={{{','.join(f'{k}: {v}' for k, v in NARROW.items())}}}"]
    else:
        word = f"caffe:{published.caffemodel(Path(word), caffes, pool_first=True)}"
    done = train("name=tuned", model, *QUICK, *more, f"data.root={store}", f"pretrained={word}")
    assert done.returncode == 0, done.stderr
    name = "weights" if kind != "exported" else "weights.exported"
    assert f"pretrained: conv1, conv2, conv3, conv4, conv5, fc6, fc7 from {name}" in done.stdout
    assert "; anew: fc8" in done.stdout
    assert "another net" not in done.stdout
    (run,) = find_runs(tmp_path / "runs/tuned")
    assert run.done
    wrong = train("name=wrong", model, *QUICK, *more, f"data.root={store}", f"pretrained={word}", "data.pixel_scale=58")
    assert wrong.returncode == 1
    assert "was trained on pixels divided by 1, and here data.pixel_scale=58: set data.pixel_scale=1" in wrong.stderr
    assert not (tmp_path / "runs/wrong").exists()


# ------------------------------------------------------------------------------------------------ one by one


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of a narrow net with a mean colour of its own."""
    return save_checkpoint(untrained_model("alexnet"), tmp_path / "net.ckpt")


def tuned(checkpoint: Path, *overrides: str, **widths: int) -> Config:
    """The configuration of a narrow net that starts from the checkpoint's."""
    cfg = run_config("model=alexnet", f"pretrained={checkpoint}", *overrides)
    cfg.model.widths = NARROW | widths
    return cfg


@pytest.mark.slow
def test_which_layers_are_loaded(checkpoint: Path):
    given = untrained_model("alexnet").net
    for layers, classes, loaded in (
        (PretrainedLayers.conv, 10, ["conv1", "conv2", "conv3", "conv4", "conv5"]),
        (PretrainedLayers.all, 10, ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]),
        (PretrainedLayers.all, 12, ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]),
    ):
        cfg = tuned(checkpoint, f"model.num_classes={classes}")
        cfg.pretrained_layers = layers
        net = build_net(cfg.model, cfg.data.input_size, seed=9)
        fresh = {name: value.clone() for name, value in net.state_dict().items()}
        (line,) = load_pretrained(net, cfg)
        assert line.startswith(f"pretrained: {', '.join(loaded)} from net")
        for name, value in net.state_dict().items():
            source = given.state_dict() if name.partition(".")[0] in loaded else fresh
            assert torch.equal(value, source[name]), name


@pytest.mark.slow
def test_what_is_not_loaded_is_named(checkpoint: Path):
    cfg = tuned(checkpoint, "pretrained_layers=all")
    cfg.model.widths |= {"fc6": 20}  # and with it the inputs of fc7
    given = read_pretrained(cfg)
    assert given.anew == ["fc6", "fc7"]
    cfg = tuned(checkpoint, "model.lrn_k=1", "model.order={conv1: lrn_pool_act}")
    assert read_pretrained(cfg).lines()[1] == (
        "pretrained: net was another net: order none, here conv1: lrn_pool_act, lrn_k 2.0, here 1.0"
    )


@pytest.mark.slow
def test_other_pixels_and_other_nets_are_refused(checkpoint: Path, store: Path, tmp_path: Path):
    def said(cfg: Config) -> str:
        with pytest.raises(ConfigError) as error:
            read_pretrained(cfg)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "pixels divided by 1, and here data.pixel_scale=64" in said(tuned(checkpoint, "data.pixel_scale=64"))
    assert "has conv2.weight of (8, 4, 5, 5), and here it is of (10, 4, 5, 5)" in said(tuned(checkpoint, conv2=10))
    cfg = tuned(checkpoint)
    cfg.pretrained = str(tmp_path / "away")
    assert "is neither a checkpoint nor the folder of a run" in said(cfg)
    cfg.pretrained = str(tmp_path / "away.pth")
    assert "there is no file" in said(cfg)
    dark = untrained_model("alexnet")
    dark.mean[:] = torch.tensor([20.0, 30, 40])
    save_checkpoint(dark, checkpoint)
    photographs = ("data=packed", f"data.root={store}")
    sentence = said(tuned(checkpoint, *photographs))
    assert "was trained on pixels minus the mean colour [20.0,30.0,40.0]" in sentence
    assert sentence.endswith("set data.mean_color=[20.0,30.0,40.0]")
    assert read_pretrained(tuned(checkpoint, *photographs, "data.mean_color=[20,30,40]")).loaded


@pytest.mark.slow
def test_a_frozen_layer_stays_as_it_is(train: Command, tmp_path: Path):
    done = train(
        "model=convnet", "model.width=0.5", "logger=csv", "trainer=cpu", "trainer.max_steps=2", "data.batch_size=16",
        "train_eval_images=0", "trainer.limit_val_batches=0", "optim.frozen=[conv1]", "optim.lr=0.1",
        "optim.layer_lr=[{layers: [conv2], milestones: [0], factors: [0]}]", "name=frozen", "model.init=fan_in",
        "data.pixel_scale=64",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = find_runs(tmp_path / "runs/frozen")
    cfg = run_config("model=convnet", "model.width=0.5", "model.init=fan_in")
    before = build_net(cfg.model, 32, cfg.seed).state_dict()
    after = torch.load(run.last, weights_only=True)["state_dict"]
    for name, value in before.items():
        assert torch.equal(after[f"net.{name}"], value) == name.startswith(("conv1", "conv2")), name
