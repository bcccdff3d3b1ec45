"""The printed table of a net, and its memory figures against what a real step keeps."""

from __future__ import annotations

import re

import pytest
import torch

from alexnet_pl.model.build import build_net
from alexnet_pl.model.specs import activation_bytes, layer_specs
from tests.helpers.commands import Command
from tests.helpers.runs import run_config


def test_describe_prints_the_table_and_runs_nothing(describe: Command, tmp_path):
    result = describe("model=released_2012", "model.num_classes=1000")
    assert result.returncode == 0
    assert not list(tmp_path.iterdir())
    lines = {words[0]: " ".join(words) for line in result.stdout.splitlines() if (words := line.split())}
    # facts file, sections 2 and 3
    assert "11x11 kernels, stride 4" in lines["conv1"]
    assert "96x55x55 34,944 105.42 M std 0.01, bias 0" in lines["conv1"]
    assert "3 rows below, 3 columns to the right" in lines["conv1_pad"]
    assert "alpha=0.0001/5 beta=0.75, within a tower" in lines["conv1_lrn"]
    assert "own tower 256x27x27 307,456 223.95 M std 0.01, bias 1" in lines["conv2"]
    assert "both towers 384x13x13 885,120 149.52 M 21,632 std 0.03, bias 0" in lines["conv3"]
    assert "37,752,832 37.75 M 4,608 std 0.01, bias 1" in lines["fc6"]
    assert re.search(r"60,965,224 724\.41 M", lines["total"])
    order = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  conv1")]
    assert order == ["conv1_pad", "conv1", "conv1_lrn", "conv1_pool", "conv1_act"]


def test_describe_needs_no_data(describe: Command):
    result = describe("data=cifar10", "model=conv_local_11")
    assert result.returncode == 0, result.stderr
    assert "2,112,970" in result.stdout


def test_a_sweep_names_one_of_its_jobs(describe: Command):
    result = describe("sweep=lrn")
    assert result.returncode == 1
    assert result.stderr == (
        "error: sweep=lrn is several configurations: to choose one, add "
        "experiment=released_2012 'model.lrn=[conv1,conv2]' 'model.spatial_norm=[conv2]'\n"
    )
    one = describe("sweep=lrn", "model.lrn=[conv1,conv2]", "model.spatial_norm=[]", "data=shapes")
    assert one.returncode == 0, one.stderr
    assert "released_2012: two towers" in one.stdout, "the sweep's own net"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model=alexnet", "data.crop_size=32"], "conv5_pool"),
        (["model.activaton=tanh"], "model.activation"),
        (["-m", "model=alexnet"], "usage"),
    ],
)
def test_a_mistake_is_named(describe: Command, overrides: list[str], named: str):
    result = describe(*overrides)
    assert result.returncode in (1, 2)
    assert named in result.stderr


def test_all_mistakes_are_named_at_once(describe: Command):
    result = describe("model.activaton=tanh", "optim.lr=fast")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: model.activaton is not a key of the configuration: did you mean model.activation?",
        "error: optim.lr=fast is not of type float",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=alexnet", "model.widths={conv1: 8, conv2: 8, conv3: 8, conv4: 8, conv5: 8, fc6: 16, fc7: 16}"],
        ["model=torchvision", "model.widths={conv1: 8, conv2: 8, conv3: 8, conv4: 8, conv5: 8, fc6: 16, fc7: 16}"],
        ["model=convnet", "model.activation=abs_tanh"],
        ["model=conv_local_11"],
    ],
    ids=["alexnet", "torchvision", "convnet", "conv_local"],
)
def test_memory_is_what_a_step_keeps(overrides: list[str]):
    """Against autograd: every tensor it holds for the backward pass, each storage once, weights left out."""
    cfg = run_config(*overrides)
    net = build_net(cfg.model, cfg.data.input_size, seed=1)
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.numel() > 100:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = 8
    x = torch.randn(images, 3, cfg.data.input_size, cfg.data.input_size).to(memory_format=torch.channels_last)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = torch.nn.functional.cross_entropy(net(x), torch.zeros(images, dtype=torch.long))
    measured = sum(held.values()) / images
    loss.backward()
    assert activation_bytes(cfg.model, layer_specs(cfg.model, cfg.data.input_size)) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (["model=convnet", "model.activation=abs_tanh"], "abs_tanh is not monotone and stands above conv1_pool"),
        (["model=convnet", "model.activation=tanh", "model.init=fan_in"], "fan_in starts tanh with the variance 1/n"),
        (["model=convnet", "model.activation=tanh"], ""),
        (["model=convnet", "model.activation=abs_tanh", "model.order={conv1: act_lrn_pool}"], ""),
    ],
)
def test_what_is_easily_missed_with_another_activation_is_noted(describe: Command, overrides: list[str], note: str):
    result = describe(*overrides)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("note: ") == bool(note)
    assert note in result.stdout


def test_a_rate_that_no_one_has_chosen_is_asked_for(describe: Command):
    for words, choice in [(["model.activation=sigmoid"], "sigmoid"), (["data=packed"], "packed")]:
        refused = describe("experiment=figure1", *words)
        assert refused.stderr.startswith(f"error: optim.lr: no value is given for {choice}, only for ")
        assert "set the key itself" in refused.stderr
