"""model.compile_net: through torch.compile, a net trains as it does without, and its files are the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from alexnet_pl.errors import ConfigError
from alexnet_pl.runs.run import Run
from tests.helpers.runs import fit, last_checkpoint, run_config

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="torch.compile needs a C++ compiler, and this machine has none",
)
STEPS = [
    "model.towers=2", "model.lrn=[conv1,conv2]", "model.dropout=mask", "optim=released_170", "trainer.max_epochs=1",
    "trainer.limit_train_batches=3", "train_error_window=50",
]  # fmt: skip


def losses(run: Run) -> list[float]:
    return [row["train/loss"] for row in run.metrics if "train/loss" in row]


@needs_compiler
@pytest.mark.slow
def test_a_compiled_net_trains_as_the_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Three steps with normalisation, both towers and the masks of 2012; one graph, without breaks."""
    plain = fit(tmp_path / "plain", STEPS, monkeypatch)
    torch._dynamo.reset()
    counters.clear()
    compiled = fit(tmp_path / "compiled", [*STEPS, "model.compile_net=true"], monkeypatch)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert len(losses(plain)) == 3
    assert losses(compiled) == pytest.approx(losses(plain), abs=1e-5)
    theirs, ours = (last_checkpoint(run)["state_dict"] for run in (plain, compiled))
    assert list(ours) == list(theirs), "the names of a plain net"
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, atol=1e-5, rtol=1e-5)
    assert compiled.done["metrics"]["val/loss"] == pytest.approx(plain.done["metrics"]["val/loss"], abs=1e-5)


def test_a_net_over_several_devices_is_not_compiled():
    with pytest.raises(ConfigError, match=r"model\.compile_net=true does not work with .* \(towers\)"):
        run_config("model=alexnet", "trainer=towers", "trainer.accelerator=cpu", "model.compile_net=true")


def test_a_machine_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"model\.compile_net=true needs a compiler \(g\+\+ or clang\+\+"):
        run_config("trainer=cpu", "model.compile_net=true")
