"""The layer tables against the numbers of 2012: parameters, costs, grids, and how the weights start."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from alexnet_pl.config.choices import Activation, Conv1Padding, Init, Order, Pooling
from alexnet_pl.model import build
from alexnet_pl.model.architectures import Conv
from alexnet_pl.model.build import build_net
from alexnet_pl.model.specs import LayerSpec, layer_specs
from tests.helpers.nets import config

PARAMETERS = {
    "alexnet": 60_965_224,
    "released_2012": 60_965_224,
    "caffe": 60_965_224,
    "one_gpu": 59_798_312,
    "six_conv": 61_555_304,
    "split_towers": 60_714_408,
    "torchvision": 61_100_840,
    "cuda_convnet2": 61_100_840,
    "convnet": 89_578,
    "conv_local_13": 1_116_490,
    "conv_local_11": 2_112_970,
}
ALEXNET = {  # parameters, millions of multiply-adds
    "conv1": (34_944, 105.4),
    "conv2": (307_456, 223.9),
    "conv3": (885_120, 149.5),
    "conv4": (663_936, 112.1),
    "conv5": (442_624, 74.8),
    "fc6": (37_752_832, 37.7),
    "fc7": (16_781_312, 16.8),
    "fc8": (4_097_000, 4.1),
}


def table(name: str, **changes: Any) -> list[LayerSpec]:
    return layer_specs(*config(name, **changes))


def weighty(layers: list[LayerSpec]) -> dict[str, LayerSpec]:
    return {step.name: step for step in layers if step.parameters}


def grid(layers: list[LayerSpec]) -> list[int]:
    """The sides of the maps behind each convolution and each pooling."""
    return [step.outputs[1] for step in layers if step.kind in ("conv", "local", "max", "avg")]


Bare = Callable[[str], nn.Sequential]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Bare:
    """`bare(name)`: the net without the work of drawing its weights, on a device without memory."""
    monkeypatch.setattr(build, "_init_weights", lambda *_: None)
    return lambda name: build_net(*config(name), seed=0).to("meta")


# ------------------------------------------------------------------------------------------------ sizes and costs


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name: str, bare: Bare):
    assert sum(step.parameters for step in table(name)) == PARAMETERS[name]
    assert sum(p.numel() for p in bare(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_net_does_what_the_table_says(name: str, bare: Bare):
    """Shapes behind every module, its parameters, and torch's own count of multiplications."""
    net, layers, shapes = bare(name), table(name), {}
    for key, module in net.named_children():
        module.register_forward_hook(lambda _, inputs, out, key=key: shapes.update({key: out.shape[1:]}))
    _, side = config(name)
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, side, side, device="meta"))
    assert [key for key, _ in net.named_children() if key != "flatten"] == [step.name for step in layers]
    before = (3, side, side)
    for step in layers:
        assert step.inputs == before
        assert math.prod(step.outputs) == shapes[step.name].numel()
        assert step.outputs[: len(shapes[step.name])] == tuple(shapes[step.name])
        assert step.parameters == sum(p.numel() for p in net.get_submodule(step.name).parameters())
        before = step.outputs
    assert 2 * sum(step.macs for step in layers) == counter.get_total_flops()


def test_alexnet_layer_by_layer():
    """Facts file, section 2."""
    layers = weighty(table("alexnet"))
    assert {name: (s.parameters, round(s.macs / 1e6, 1)) for name, s in layers.items()} == ALEXNET
    assert round(sum(s.macs for s in layers.values()) / 1e6, 1) == 724.4


def test_neurons():
    """Figure 2 of the paper, with 290,400 for its 253,440: 55x55x96 is the only sum that makes its "650,000"."""
    neurons = [math.prod(step.outputs) for step in weighty(table("alexnet")).values()]
    assert neurons == [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert sum(neurons) == 659_272


def test_what_crosses_between_the_towers():
    """Each tower gets the other's half of what conv3 and the fully connected layers see; nothing elsewhere."""
    crossing = {step.name: step.crossing for step in table("six_conv") if step.crossing}
    pooled = 128 * 6 * 6
    assert crossing == {"conv3": 128 * 13 * 13, "conv6": pooled, "fc6": pooled, "fc7": 2048, "fc8": 2048}


def test_split_towers_meet_in_the_last_layer_only():
    """Net 150: all that crosses are the other tower's half of fc7's units."""
    assert [(step.name, step.crossing) for step in table("split_towers") if step.crossing] == [("fc8", 2048)]


def test_a_narrower_net_keeps_its_form():
    """A quarter of every layer but the last, in even numbers; the same steps; sums of the same width at the start."""
    whole, quarter = table("one_gpu"), table("one_gpu", width=0.25)
    for a, b in zip(weighty(whole).values(), weighty(quarter).values(), strict=True):
        assert math.isclose(a.row.std**2 * a.fan_in, b.row.std**2 * b.fan_in)
    assert [step.name for step in quarter] == [step.name for step in whole]
    assert [s.outputs[0] for s in weighty(quarter).values()] == [12, 32, 48, 48, 64, 1024, 1024, 1000]
    assert weighty(table("one_gpu", width=0.03))["conv1"].outputs[0] == 2


def test_the_image_does_not_cross():
    """Both towers see all of it, also where it meets a fully connected layer first."""
    layers = weighty(table("alexnet", drop_layers=["conv1", "conv2", "conv3", "conv4", "conv5"]))
    assert [(name, step.crossing) for name, step in layers.items()] == [("fc6", 0), ("fc7", 2048), ("fc8", 2048)]


@pytest.mark.parametrize("name", ["one_gpu", "torchvision", "convnet"])
def test_nothing_crosses_in_one_tower(name: str):
    assert not any(step.crossing for step in table(name))


# ------------------------------------------------------------------------------------------------ grids


ALEXNET_GRID = [55, 27, 27, 13, 13, 13, 13, 6]


@pytest.mark.parametrize(
    ("name", "changes", "sides"),
    [
        ("alexnet", {}, ALEXNET_GRID),
        ("alexnet", {"conv1_padding": Conv1Padding.symmetric}, ALEXNET_GRID),
        ("alexnet", {"conv1_padding": Conv1Padding.none}, [54, *ALEXNET_GRID[1:]]),
        ("caffe", {}, ALEXNET_GRID),
        ("six_conv", {}, [*ALEXNET_GRID, 6]),
        ("alexnet", {"pooling": Pooling.plain}, [55, 28, 26, 13, 13, 13, 11, 6]),
        ("convnet", {}, [32, 16, 16, 8, 8, 4]),
        ("convnet", {"pooling": Pooling.plain}, [32, 16, 16, 8, 8, 4]),
        ("conv_local_11", {}, [24, 12, 12, 6, 6, 6]),
    ],
    ids=str,
)
def test_grid(name: str, changes: dict[str, Any], sides: list[int]):
    assert grid(table(name, **changes)) == sides


def test_three_zeros_at_the_right_and_the_bottom():
    """Windows of 11 pixels 4 apart make 55 of 224 only so: the last begins at pixel 216."""
    pad, *_ = table("alexnet")
    assert (pad.kind, pad.overhang, pad.outputs) == ("pad", 3, (3, 227, 227))


def test_no_zeros_where_the_windows_fit():
    assert table("caffe", conv1_padding=Conv1Padding.right_bottom) == table("caffe")


def test_plain_pooling_changes_no_number_of_parameters():
    assert sum(step.parameters for step in table("alexnet", pooling=Pooling.plain)) == PARAMETERS["alexnet"]


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "conv4", "conv5"])
def test_a_dropped_convolution_leaves_the_pooling_above_it(layer: str):
    whole, rest = table("alexnet"), table("alexnet", drop_layers=[layer])
    assert [s.name for s in rest if s.kind == "max"] == [s.name for s in whole if s.kind == "max"]
    assert not any(s.name.startswith(layer) for s in rest if s.kind != "max")


def test_a_configuration_leaves_the_table_as_it_is():
    before = table("alexnet")
    table("alexnet", widths={"conv1": 8}, std={"conv1": 1}, pooling=Pooling.plain, drop_layers=["fc7"])
    assert table("alexnet") == before


@pytest.mark.parametrize("order", Order)
def test_order(order: Order):
    """The normalisation over space follows the one across maps."""
    layers = table("alexnet", order={"conv1": order}, spatial_norm=["conv1"])
    names = [step.name for step in layers if step.name.startswith("conv1_") and step.kind != "pad"]
    assert names == [f"conv1_{what}" for what in str(order).replace("lrn", "lrn_spatial").split("_")]


def test_each_normalisation_can_stand_alone():
    layers = table("alexnet", lrn=["conv2"], spatial_norm=["conv1", "conv3"])
    assert [step.name for step in layers if step.kind in ("lrn", "spatial")] == [
        "conv1_spatial",
        "conv2_lrn",
        "conv3_spatial",
    ]


def test_the_order_of_the_released_net():
    """Facts file, section 2: conv1 LRN max ReLU, conv2 ReLU LRN spatial max, conv5 max ReLU; dropout above fc6, fc7."""
    conv1 = ["conv1_pad", "conv1", "conv1_lrn", "conv1_pool", "conv1_act"]
    conv2 = ["conv2", "conv2_act", "conv2_lrn", "conv2_spatial", "conv2_pool"]
    others = ["conv3", "conv3_act", "conv4", "conv4_act", "conv5", "conv5_pool", "conv5_act"]
    full = ["fc6", "fc6_act", "fc6_dropout", "fc7", "fc7_act", "fc7_dropout", "fc8"]
    assert [step.name for step in table("released_2012")] == conv1 + conv2 + others + full


def test_the_order_of_the_convnet():
    """`layers-19pct.cfg`: the ReLU above the maximum, but below the averages."""
    names = [step.name for step in table("convnet") if step.kind in ("act", "max", "avg")]
    assert names == ["conv1_pool", "conv1_act", "conv2_act", "conv2_pool", "conv3_act", "conv3_pool"]


# ------------------------------------------------------------------------------------------------ initial weights

OF_2012 = {"conv2": 1, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1}
THREE = {"conv3": 0.03, "conv4": 0.03, "conv5": 0.03}
LOCAL = {"conv1": 0.0001, "local3": 0.04, "local4": 0.04}
START = {  # standard deviations where not 0.01, biases where not 0; facts file, sections 2, 7, 9
    "alexnet": ({}, OF_2012),
    "released_2012": (THREE, OF_2012),
    "one_gpu": (THREE, OF_2012),
    "six_conv": (THREE | {"conv6": 0.03}, OF_2012 | {"conv6": 1}),
    "cuda_convnet2": (THREE, OF_2012 | {"fc8": -7}),
    "split_towers": (THREE, OF_2012),
    "caffe": ({"fc6": 0.005, "fc7": 0.005}, dict.fromkeys(OF_2012, 0.1)),
    "convnet": ({"conv1": 0.0001}, {}),
    "conv_local_13": (LOCAL, {}),
    "conv_local_11": (LOCAL, {}),
}


NARROW = {"fc6": 64, "fc7": 64}  # nothing of this depends on how many units there are


def looks_normal(w: Tensor, std: float) -> bool:
    """Mean, width and the share beyond two widths (4.55 %; of a uniform: none) within five of their own errors."""
    n = w.numel()
    tail = (w.abs() > 2 * std).double().mean().item()
    return (
        abs(w.mean().item()) < 5 * std / math.sqrt(n)
        and abs(w.std().item() / std - 1) < 5 / math.sqrt(2 * n)
        and abs(tail - 0.0455) < 5 * math.sqrt(0.0455 / n)
    )


@pytest.mark.parametrize("name", START)
def test_initial_weights(name: str):
    cfg, side = config(name)
    if "fc6" in weighty(table(name)):
        cfg = replace(cfg, widths=cfg.widths | NARROW)
    net = build_net(cfg, side, seed=5)
    stds, biases = START[name]
    for layer in weighty(table(name)):
        module = net.get_submodule(layer)
        assert looks_normal(module.weight, stds.get(layer, 0.01)), layer
        assert (module.bias == biases.get(layer, 0)).all(), layer


def test_the_std_and_bias_of_one_layer():
    net = build_net(*config("convnet", std={"conv2": 0.5}, bias={"conv3": 2}), seed=5)
    assert looks_normal(net.get_submodule("conv2").weight, 0.5)
    assert looks_normal(net.get_submodule("conv3").weight, 0.01)
    assert (net.get_submodule("conv3").bias == 2).all()
    assert not net.get_submodule("conv2").bias.any()


@pytest.mark.parametrize("name", ["alexnet", "conv_local_13"])
@pytest.mark.parametrize("activation", Activation)
def test_fan_in_init(name: str, activation: Activation):
    """Fan-in is what one unit sees: half of the maps in a layer of two towers."""
    widths = NARROW if name == "alexnet" else {}
    cfg, side = config(name, init=Init.fan_in, activation=activation, widths=widths)
    gain = 2 if activation is Activation.relu else 1
    net = build_net(cfg, side, seed=5)
    for layer, step in weighty(layer_specs(cfg, side)).items():
        maps = step.inputs[0] // (2 if isinstance(step.row, Conv) and step.row.own_tower else 1)
        fan_in = maps * (step.row.size**2 if isinstance(step.row, Conv) else step.inputs[1] * step.inputs[2])
        assert looks_normal(net.get_submodule(layer).weight, math.sqrt(gain / fan_in)), layer
        assert not net.get_submodule(layer).bias.any()


@pytest.mark.parametrize(("name", "groups"), [("alexnet", 2), ("torchvision", 1)])
def test_torch_init_is_torchs_own(name: str, groups: int):
    """Against layers that torch started: uniform between the same bounds, weights and biases."""
    cfg, side = config(name)
    assert (cfg.init is Init.torch) is (name == "torchvision")
    net = build_net(replace(cfg, init=Init.torch, widths=cfg.widths | NARROW), side, seed=5)
    assert net.get_submodule("conv2").groups == groups
    for layer in weighty(table(name)):
        ours = net.get_submodule(layer)
        if isinstance(ours, nn.Conv2d):
            theirs = nn.Conv2d(ours.in_channels, ours.out_channels, ours.kernel_size, groups=ours.groups)
        else:
            theirs = nn.Linear(ours.in_features, ours.out_features)
        for kind in ("weight", "bias"):
            a, b = getattr(ours, kind).detach(), getattr(theirs, kind).detach()
            assert a.shape == b.shape
            error = 5 / math.sqrt(a.numel())
            assert a.abs().max().item() == pytest.approx(b.abs().max().item(), rel=error)
            assert a.std().item() == pytest.approx(b.std().item(), rel=error)


@pytest.mark.parametrize("init", Init)
def test_the_seed_decides_the_weights_and_the_global_state_does_not(init: Init):
    cfg, side = config("conv_local_13", init=init)
    nets = []
    for seed, state in ((1, 1), (1, 2), (2, 1)):
        torch.manual_seed(state)
        nets.append(build_net(cfg, side, seed).state_dict())
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])
    assert not any(torch.equal(nets[0][key], nets[2][key]) for key in nets[0] if "weight" in key)
    assert not torch.equal(nets[0]["local3.weight"][0], nets[0]["local4.weight"][0])
