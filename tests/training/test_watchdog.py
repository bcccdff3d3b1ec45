"""A loss that does not move, or is not finite, is told with its usual causes; a loss that moves is left alone."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from alexnet_pl.config.schema import Config
from alexnet_pl.model.build import build_net
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.training import watchdog
from tests.helpers.commands import Command
from tests.helpers.runs import TINY, run_config

# In sixteen steps this learns nothing: the weights of 2012 on pixels of unit size.
STUCK = ("data.pixel_scale=64", "optim.lr=1e-6", "trainer.max_epochs=1")


def suspects(*overrides: str) -> set[str]:
    return {cause.name for cause in watchdog.causes(run_config(*overrides)) if cause.suspect}


def test_a_stuck_run_is_told_once_with_what_its_settings_say(train: Command):
    result = train(*TINY, *STUCK, "stuck_after_steps=5")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("warning:") == 1
    (warning,) = [line for line in result.stdout.splitlines() if "warning:" in line]
    assert "after 5 updates the training loss is 2.30" in warning
    assert "ln 10 = 2.303" in warning
    assert "! input scale: (0..255 minus the mean) / 64 is too small for init=gaussian" in result.stdout
    assert "! learning rate: optim.lr=1e-06" in result.stdout
    assert "  dropout: none" in result.stdout


@pytest.mark.slow
def test_a_run_that_learns_is_left_alone(train: Command):
    result = train(*TINY, "experiment=figure1_unit", "model.width=0.5", "stuck_after_steps=40")
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stdout


def test_it_looks_once_and_not_at_all_if_so_asked():
    said: list[str] = []
    stuck = SimpleNamespace(window_loss=math.log(10))
    for stuck_after_steps, expected in ((5, 1), (0, 0)):
        said.clear()
        cfg = run_config(f"stuck_after_steps={stuck_after_steps}")
        dog = watchdog.Watchdog(cfg, said.append)
        for step in range(1, 10):
            dog.on_train_batch_end(SimpleNamespace(global_step=step), stuck)  # type: ignore[arg-type]
            again = watchdog.Watchdog(cfg, said.append)
            again.load_state_dict(dog.state_dict())  # as a resumed run does
            dog = again
        assert sum("warning" in line for line in said) == expected


def test_an_infinite_loss_is_told_with_its_causes(train: Command, tmp_path):
    result = train(*TINY, "experiment=figure1", "optim.lr=100")
    assert result.returncode == 1
    assert "the training loss is not finite. The usual causes" in result.stdout
    assert "! learning rate: optim.lr=100" in result.stdout
    assert "error: the loss became" in result.stderr
    (log,) = tmp_path.glob("runs/*/*/train.log")
    assert "! learning rate" in log.read_text()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["experiment=figure1_unit"], set()),
        (["model=released_2012", "optim=released_145"], set()),
        (["model=alexnet", "optim=paper"], {"biases"}),  # the paper's 0.01 with biases of 1: facts file, section 2
        (["model=caffe", "optim=paper"], set()),
        (["model=released_2012", "optim=released_145", "data.pixel_scale=64"], {"input scale", "biases"}),
        (["experiment=figure1_unit", "data.pixel_scale=1"], {"input scale"}),
        (["experiment=figure1", "model.activation=tanh", "model.init=fan_in"], {"input scale", "activation"}),
        (["model=released_2012", "optim=released_145", "optim.lr=1"], {"learning rate"}),
        (["experiment=figure1"], set()),
        (["experiment=figure1", "model.activation=tanh"], set()),
        (["model=conv_local_13"], set()),
        (["model=torchvision", "optim=torch_sgd", "data.pixel_scale=64"], set()),
        (["model=released_2012", "optim=released_145", "model.dropout_rate=0.9"], {"dropout"}),
    ],
    ids=lambda value: ", ".join(sorted(value)),
)
def test_settings_known_to_be_good_or_bad(overrides: list[str], expected: set[str]):
    assert suspects(*overrides) == expected


@pytest.mark.parametrize("init", ["gaussian", "fan_in", "torch"])
def test_the_gain_of_a_layer_is_what_its_weights_do(init: str):
    """On independent inputs of one size, through a layer and its relu's half."""
    cfg: Config = run_config("model=convnet", f"model.init={init}")
    step = next(step for step in layer_specs(cfg.model, 32) if step.name == "conv3")
    conv = build_net(cfg.model, 32, seed=1).get_submodule("conv3")
    x = torch.randn(64, 32, 8, 8)
    with torch.no_grad():
        out = torch.nn.functional.conv2d(x, conv.weight).relu()  # no padding: every window is full
    assert watchdog.gain(cfg, step) == pytest.approx(math.sqrt(out.square().mean()), rel=0.1)
