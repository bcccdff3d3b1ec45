"""A trained net read back: the same logits as in training, without the data set; averages; a start from another."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.errors import ConfigError
from alexnet_pl.runs import trained
from alexnet_pl.runs.run import Run, find_runs
from alexnet_pl.training.module import ImageClassifier
from tests.helpers.commands import Command, train_command
from tests.helpers.runs import TINY


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        train = train_command(folder, patch)
        done = train(*TINY, "name=a", "data.resize=36", "data.crop_size=32", "data.pixel_scale=64")
    assert done.returncode == 0, done.stderr
    return find_runs(folder / "runs/a")[0]


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run, for a test to change."""
    return Run(shutil.copytree(finished.folder, tmp_path / "runs/a" / finished.folder.name))


def test_a_checkpoint_needs_nothing_else(run: Run):
    """Its mean image, classes and weights, against the mean of the images and the module that Lightning restores."""
    net = trained.load(run.folder)
    cfg = net.cfg
    datamodule = ImageDataModule(cfg)
    datamodule.setup("fit")
    big = torch.nn.functional.interpolate(
        torch.tensor(datamodule.train.images.numpy().astype(np.float64).mean(0)).permute(2, 0, 1)[None],
        size=36, mode="bilinear", align_corners=False,
    )[0].permute(1, 2, 0)  # fmt: skip
    np.testing.assert_allclose(net.mean.numpy(), big[2:34, 2:34].numpy(), atol=1e-4)
    assert net.classes[0] == "disc"
    assert len(net.classes) == 10
    classifier = ImageClassifier(cfg, datamodule.input_size)
    weights = torch.load(run.last, weights_only=True)["state_dict"]
    classifier.load_state_dict(weights)
    classifier.eval()
    images = datamodule.val.images[:7]
    with torch.no_grad():
        expected = classifier(datamodule.centre_input(images))
    torch.testing.assert_close(net.logits(images)[:, 0], expected)
    assert net.logits(images, views=10).shape == (7, 10, 10)
    assert net.run is not None
    assert net.run.folder == run.folder


def test_weights_are_averaged(run: Run):
    last, best = (trained.load(run.folder, [name]).net.get_parameter("conv2.weight") for name in ("last", "best"))
    other = torch.load(run.last, weights_only=True)
    other["state_dict"]["net.conv2.weight"] += 1
    file = run.folder / "other.ckpt"
    torch.save(other, file)
    mean = trained.load(run.folder, ["last", str(file)]).net.get_parameter("conv2.weight")
    torch.testing.assert_close(mean, last + 0.5)
    assert best.shape == last.shape


@pytest.mark.slow
def test_a_net_begins_with_the_convolutions_of_another(run: Run, train: Command, tmp_path: Path):
    """Pre-training, then fine-tuning: the weights after no update worth the name are those of the first run."""
    again = train(
        *TINY, "name=b", "model.num_classes=12", "optim.lr=1e-12", "data.pixel_scale=64", f"pretrained={run.folder}"
    )
    assert again.returncode == 0, again.stderr
    first, second = (
        torch.load(r.last, weights_only=True)["state_dict"] for r in (run, *find_runs(tmp_path / "runs/b"))
    )
    for name in ("conv1", "conv2", "conv3"):
        torch.testing.assert_close(second[f"net.{name}.weight"], first[f"net.{name}.weight"], rtol=0, atol=1e-8)
    assert "pretrained: conv1, conv2, conv3 from " in again.stdout
    assert "; anew: fc10" in again.stdout
    other = train(*TINY, "name=e", f"pretrained={run.folder}")
    assert "was trained on pixels divided by 64, and here data.pixel_scale=1: set data.pixel_scale=64" in other.stderr
    assert not (tmp_path / "runs/e").exists()
    wider = train(*TINY, "name=c", "model.width=0.25", "data.pixel_scale=64", f"pretrained={run.folder}")
    assert wider.returncode == 1
    assert "conv1.weight of (4, 3, 5, 5), and here it is of (8, 3, 5, 5)" in wider.stderr
    assert "neither a checkpoint nor the folder of a run" in train(*TINY, "name=d", "pretrained=nowhere").stderr


def test_what_is_no_checkpoint_is_named(run: Run, tmp_path: Path):
    def error_of(path: Path, weights: list[str] | None = None) -> str:
        with pytest.raises(ConfigError) as error:
            trained.load(path, weights)
        return str(error.value)

    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"nothing")
    assert "is damaged: it is cut short, or no checkpoint" in error_of(broken)
    assert "there is no checkpoint" in error_of(tmp_path / "none.ckpt")
    other = torch.load(run.last, weights_only=True)
    other["state_dict"].pop("net.conv2.weight")
    torch.save(other, broken)
    assert "only weights of the same net" in error_of(run.folder, ["last", str(broken)])
    other["config"]["model"]["colour"] = "red"
    torch.save(other, broken)
    assert "was written by another version" in error_of(broken)
    (run.last.parent / "best.ckpt").unlink()
    assert "has no best.ckpt" in error_of(run.folder, ["best"])
