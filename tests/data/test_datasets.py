"""A small data set is one loader in one registry, and one file in conf/data/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alexnet_pl.data import datasets
from alexnet_pl.runs import trained
from alexnet_pl.runs.run import find_runs
from tests.helpers.commands import Command
from tests.helpers.runs import TINY

CLASSES = ("dark", "light")


def load_greys(root: Path, split: str, download: bool) -> tuple[Tensor, Tensor]:
    """Grey images of 28 pixels: half of them dark, half of them light."""
    labels = torch.arange(400 if split == "train" else 64) % 2
    images = (40 + 160 * labels)[:, None, None, None].expand(-1, 28, 28, 3)
    return images.to(torch.uint8).contiguous(), labels


def test_one_loader_and_one_file_add_a_data_set(tmp_path: Path, train: Command, monkeypatch: pytest.MonkeyPatch):
    greys = datasets.SmallDataset(load_greys, 400, CLASSES, size=28, generated=True)
    monkeypatch.setitem(datasets.SMALL_DATASETS, "greys", greys)
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/greys.yaml").write_text(
        "kind: greys\nname: shades of grey\nnum_classes: 2\nsize: 28\ncrop_size: ${model.input_size}\n"
    )
    over = ["data=greys", "model.input_size=28", "model.init=fan_in", "data.pixel_scale=64", "optim.lr=0.01"]
    result = train(f"--config-dir={tmp_path / 'conf'}", *TINY, *over)
    assert result.returncode == 0, result.stderr
    (run,) = find_runs(tmp_path / "runs" / "train")
    assert run.config["data"]["name"] == "shades of grey"
    assert run.done["metrics"]["val/error"] == 0.0
    assert trained.load(run.folder).classes == list(CLASSES)
    refused = train(f"--config-dir={tmp_path / 'conf'}", *over, "data.kind=grey")
    assert refused.stderr == "error: data.kind=grey is not a choice: did you mean greys?\n"


@pytest.mark.parametrize("kind", ["shapes"])
def test_the_registry_says_what_the_loader_gives(kind: str):
    small = datasets.SMALL_DATASETS[kind]
    for split, count in (("train", small.train_images), ("val", 2_000)):
        images, labels = small.load(Path(), split, False)
        assert images.shape == (count, small.size, small.size, 3)
        assert sorted(set(labels.tolist())) == list(range(len(small.classes)))


def test_the_registry_needs_no_torch():
    code = "import sys, alexnet_pl.data.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
