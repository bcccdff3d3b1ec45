"""A small data set is one loader in one registry, and one file in conf/data/, as docs/data.md shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_pl import ROOT
from alexnet_pl.data import datasets
from alexnet_pl.runs import trained
from alexnet_pl.runs.run import find_runs
from tests.helpers.commands import Command
from tests.helpers.runs import TINY


def test_one_loader_and_one_file_add_a_data_set(tmp_path: Path, train: Command, monkeypatch: pytest.MonkeyPatch):
    recipe = (ROOT / "docs" / "data.md").read_text().partition("## A small data set in code")[2]
    code, file = (re.findall(rf"```{kind}\n(.*?)```", recipe, re.DOTALL)[0] for kind in ("py", "yaml"))
    monkeypatch.setitem(datasets.SMALL_DATASETS, "greys", None)  # which takes it out again
    exec(code, dict(vars(datasets)))
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/greys.yaml").write_text(file)
    over = ["data=greys", "model.input_size=28", "model.init=fan_in", "data.pixel_scale=64", "optim.lr=0.01"]
    result = train(f"--config-dir={tmp_path / 'conf'}", *TINY, *over)
    assert result.returncode == 0, result.stderr
    (run,) = find_runs(tmp_path / "runs" / "train")
    assert run.config["data"]["name"] == "shades of grey"
    assert run.done["metrics"]["val/error"] == 0.0
    assert trained.load(run.folder).classes == ["dark", "light"]
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
