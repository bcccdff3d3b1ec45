"""Every combination of the axes makes a net that trains, or is refused with a reason.

The whole product is some 10^9 nets. Walked here, at few kernels and the smallest images that fit:
- the full product of what stands between conv1, conv2 and conv3, in one tower and two;
- the full product of the layers left out (none, each, in AlexNet every two) with towers, pooling and dropout;
- for each table, every two values of all its axes together.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from alexnet_pl.config.choices import (
    Activation,
    Arch,
    Conv1Padding,
    Dropout,
    DropoutAt,
    Init,
    LrnAlphaConvention,
    Order,
    ParameterNames,
    Pooling,
)
from alexnet_pl.config.schema import Model, Optim
from alexnet_pl.errors import ConfigError
from alexnet_pl.model.build import build_net
from alexnet_pl.model.specs import layer_specs
from alexnet_pl.training import optim
from tests.helpers.runs import run_config

Axes = dict[str, list[Any]]

LAYERS = {
    Arch.alexnet: ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"],
    Arch.six_conv: ["conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "fc6", "fc7"],
    Arch.convnet: ["conv1", "conv2", "conv3"],
    Arch.conv_local: ["conv1", "conv2", "local3", "local4"],
}
TWO_TOWERS = [Arch.alexnet, Arch.six_conv]


def dropped(kind: Arch, at_most: int = 2) -> list[list[str]]:
    """No layer, each one, and every two; but for the last, which is not in the list."""
    return [list(names) for number in range(at_most + 1) for names in combinations(LAYERS[kind], number)]


def smallest(kind: Arch, pooling: Pooling, padding: Conv1Padding = Conv1Padding.none) -> int:
    """The side below which some window has too few pixels; worked out from the last pooling down to the image."""
    if kind not in TWO_TOWERS:
        return {Arch.convnet: (12, 5), Arch.conv_local: (6, 3)}[kind][pooling is Pooling.plain]
    zeros = {Conv1Padding.none: 0, Conv1Padding.right_bottom: 3, Conv1Padding.symmetric: 4}[padding]
    return (75 if pooling is Pooling.plain else 55) - zeros


def few(kind: Arch, orders: Iterable[Order] = (), **axes: Any) -> Model:
    """A table with four kernels or units in each layer; `orders` are those of conv1 and conv2."""
    order = dict(zip(("conv1", "conv2"), orders, strict=False))
    widths = dict.fromkeys(LAYERS[kind], 4)
    return Model(name=str(kind), arch=kind, **({"num_classes": 3, "widths": widths, "order": order} | axes))


def trains(cfg: Model) -> None:
    """One update and one evaluation on random images, after which the weights can be kept and read again."""
    side = smallest(cfg.arch, cfg.pooling)
    net = build_net(cfg, side, seed=1)
    optimiser = optim.build_optimizer(net, Optim(lr=1e-4, weight_decay=0.1))
    x = 60 * torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    before = [p.detach().clone() for p in net.parameters()]
    assert sum(p.numel() for p in before) == sum(step.parameters for step in layer_specs(cfg, side))
    logits = net.train()(x)
    loss = F.cross_entropy(logits, torch.tensor([0, 1]))
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    optimiser.step()
    for (name, p), q in zip(net.named_parameters(), before, strict=True):
        assert name.endswith("bias") or not torch.equal(p, q), name
    net.load_state_dict(net.state_dict())
    with torch.no_grad():
        out = net.eval()(x)
    assert out.shape == logits.shape == (2, cfg.num_classes)
    assert out.isfinite().all()


def walk(nets: Iterable[Model]) -> None:
    failed = []
    for cfg in nets:
        try:
            trains(cfg)
        except Exception as error:  # each with its net, not the first alone
            failed.append(f"{cfg}: {error!r}")
    assert not failed, f"{len(failed)} nets, the first: {failed[0]}"


# ------------------------------------------------------------------------------------------------ what runs


@pytest.mark.slow
def test_all_orders_normalisations_poolings_and_towers():
    """Order after conv1 x order after conv2 x LRN x normalisation over space x pooling x towers: 864 nets."""
    lrn, spatial = [[], ["conv1"], ["conv1", "conv2"]], [[], ["conv2"]]
    walk(
        few(Arch.alexnet, (first, second), lrn=names, spatial_norm=space, pooling=pooling, towers=towers)
        for first, second, names, space, pooling, towers in product(Order, Order, lrn, spatial, Pooling, (1, 2))
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", TWO_TOWERS, ids=str)
def test_all_dropped_layers_towers_poolings_and_dropouts(kind: Arch):
    """580 nets of five convolutions; 180 of six, of which each layer goes, and no two."""
    dropouts = [{"dropout": Dropout.none}]
    dropouts += [{"dropout": d, "dropout_at": at} for d in (Dropout.mask, Dropout.inverted) for at in DropoutAt]
    layers = dropped(kind, at_most=2 if kind is Arch.alexnet else 1)
    walk(
        few(kind, drop_layers=names, towers=towers, pooling=pooling, **dropout)
        for names, towers, pooling, dropout in product(layers, (1, 2), Pooling, dropouts)
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", TWO_TOWERS, ids=str)
def test_all_layers_but_the_last_can_go(kind: Arch):
    """What is left is a linear classifier of the pooled image."""
    walk([few(kind, drop_layers=LAYERS[kind], towers=2, lrn=["conv1"], dropout=Dropout.mask)])


def axes(kind: Arch) -> Axes:
    """Every axis of a table with its values."""
    names = LAYERS[kind]
    common: Axes = {
        "activation": list(Activation),
        "first": list(Order),
        "second": list(Order),
        "lrn": [[], ["conv1"], ["conv1", "conv2"], [name for name in names if not name.startswith("fc")]],
        "lrn_size": [3, 5, 9],
        "lrn_alpha_convention": list(LrnAlphaConvention),
        "lrn_across_towers": [False, True],
        "spatial_norm": [[], ["conv1"], ["conv2"], ["conv1", "conv2"]],
        "pooling": list(Pooling),
        "drop_layers": dropped(kind),
        "init": list(Init),
        "num_classes": [2, 5],
        "channels_last": [False, True],
    }
    if kind in TWO_TOWERS:
        common |= {"towers": [1, 2], "dropout": list(Dropout), "dropout_at": list(DropoutAt)}
        common |= {"conv1_padding": list(Conv1Padding)}
    if kind is Arch.alexnet:
        common |= {"parameter_names": list(ParameterNames)}
    return common


def all_pairs(values: Axes) -> Iterator[dict[str, Any]]:
    """Combinations in which every two values of two axes meet: of 30 drawn, always the one with most new meetings."""
    draw = random.Random(0)
    spans = {axis: range(len(choices)) for axis, choices in values.items()}
    missing = {
        pair for a, b in combinations(spans, 2) for pair in product(product([a], spans[a]), product([b], spans[b]))
    }
    while missing:
        must = dict(min(missing))
        rows = [{axis: must.get(axis, draw.choice(span)) for axis, span in spans.items()} for _ in range(30)]
        best = max(rows, key=lambda row: len(missing.intersection(combinations(row.items(), 2))))
        missing.difference_update(combinations(best.items(), 2))
        yield {axis: values[axis][i] for axis, i in best.items()}


@pytest.mark.parametrize(
    "kind", [pytest.param(a, marks=[pytest.mark.slow] * (a is not Arch.convnet)) for a in Arch], ids=str
)
def test_every_two_values_of_all_axes(kind: Arch):
    walk(few(kind, (row.pop("first"), row.pop("second")), **row) for row in all_pairs(axes(kind)))


def test_all_pairs_are_all_pairs():
    rows = list(all_pairs({"a": [1, 2, 3], "b": [4, 5], "c": [6, 7, 8, 9]}))
    assert {(r["a"], r["b"]) for r in rows} == set(product([1, 2, 3], [4, 5]))
    assert {(r["a"], r["c"]) for r in rows} == set(product([1, 2, 3], [6, 7, 8, 9]))
    assert {(r["b"], r["c"]) for r in rows} == set(product([4, 5], [6, 7, 8, 9]))
    assert len(rows) < 24


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("kind", Arch, ids=str)
@pytest.mark.parametrize("pooling", Pooling, ids=str)
@pytest.mark.parametrize("padding", Conv1Padding, ids=str)
def test_the_smallest_image(kind: Arch, pooling: Pooling, padding: Conv1Padding):
    if kind not in TWO_TOWERS:
        padding = Conv1Padding.right_bottom  # their conv1 leaves no choice
    cfg, side = few(kind, pooling=pooling, conv1_padding=padding), smallest(kind, pooling, padding)
    assert layer_specs(cfg, side)
    for less in (side - 1, 1):
        with pytest.raises(
            ConfigError, match=rf"images of {less} pixels are too small for model={kind}: \d.* for conv"
        ):
            layer_specs(cfg, less)


ALEXNET = ["model=alexnet", "model.input_size=64"]
REFUSED = [  # overrides; what the sentence names
    ([*ALEXNET, "model.drop_layers=[fc8]"], ["model.drop_layers", "fc8", "the last layer"]),
    (["model.drop_layers=[fc10]"], ["model.drop_layers", "fc10", "the last layer"]),
    ([*ALEXNET, "model.widths={conv2: 5}"], ["conv2", "5", "2 towers", "even"]),
    ([*ALEXNET, "model.widths={fc7: 7}"], ["fc7", "7", "2 towers", "even"]),
    ([*ALEXNET, "model.widths={fc8: 20}"], ["model.widths", "fc8", "model.num_classes"]),
    ([*ALEXNET, "model.widths={conv3: 0}"], ["model.widths.conv3=0", "a number above 0"]),
    (["model=alexnet", "model.input_size=32"], ["images of 32 pixels", "too small", "conv5_pool"]),
    (["model=alexnet", "model.input_size=8"], ["images of 8 pixels", "8x8", "conv1, whose window is 11x11"]),
    ([*ALEXNET, "model.pooling=plain"], ["images of 64 pixels", "too small", "conv5_pool"]),
    ([*ALEXNET, "model.drop_layers=[conv6]"], ["model.drop_layers", "conv6", "did you mean conv"]),
    ([*ALEXNET, "model.lrn=[cnov1]"], ["model.lrn", "cnov1", "did you mean conv1?"]),
    ([*ALEXNET, "model.spatial_norm=[pool2]"], ["model.spatial_norm", "pool2", "conv1, conv2"]),
    ([*ALEXNET, "model.order={conv9: act_lrn_pool}"], ["model.order", "conv9", "did you mean conv"]),
    ([*ALEXNET, "model.order={fc6: pool_act_lrn}"], ["model.order", "fc6", "conv1, conv2"]),
    ([*ALEXNET, "model.lrn=[fc7]"], ["model.lrn", "fc7", "not a convolution", "conv1, conv2"]),
    ([*ALEXNET, "model.std={fc9: 1}"], ["model.std", "fc9", "did you mean fc"]),
    ([*ALEXNET, "model.std={fc7: 0}"], ["model.std.fc7=0", "above 0"]),
    ([*ALEXNET, "model.bias={local3: 1}"], ["model.bias", "local3"]),
    (["model.widths={conv4: 8}"], ["model.widths", "conv4", "did you mean conv"]),
    ([*ALEXNET, "model.towers=3"], ["model.towers=3", "1 or 2"]),
    (["model.towers=2"], ["model=convnet", "model.towers=2"]),
    (["model=conv_local_13", "model.towers=2"], ["model=conv_local_13", "model.towers=2"]),
    (["model.conv1_padding=symmetric"], ["model.conv1_padding", "model=convnet"]),
    (["model=conv_local_11", "model.conv1_padding=none"], ["model.conv1_padding", "model=conv_local_11"]),
    ([*ALEXNET, "model.lrn=[fc8]"], ["model.lrn", "fc8", "no convolution"]),
    (["model.dropout=mask"], ["model=convnet", "model.dropout=none"]),
    (["model=conv_local_11", "model.dropout=inverted"], ["model=conv_local_11", "model.dropout=none"]),
    ([*ALEXNET, "model.dropout_rate=1"], ["model.dropout_rate=1", "between 0 and 1"]),
    ([*ALEXNET, "model.lrn_size=4"], ["model.lrn_size=4", "odd"]),
    ([*ALEXNET, "model.lrn_size=1"], ["model.lrn_size=1", "at least 3"]),
    ([*ALEXNET, "model.lrn_k=0"], ["model.lrn_k=0", "above 0"]),
    (
        ["model=six_conv", "model.input_size=64", "model.parameter_names=torchvision"],
        ["model=six_conv", "parameter_names"],
    ),
    (["model.parameter_names=torchvision"], ["model=convnet", "parameter_names=layers"]),
    ([*ALEXNET, "model.num_classes=9"], ["model.num_classes=9", "10"]),
]


@pytest.mark.parametrize(("overrides", "named"), REFUSED, ids=lambda value: " ".join(value[-2:]))
def test_refused_with_a_reason(overrides: list[str], named: list[str]):
    with pytest.raises(ConfigError) as refusal:
        run_config(*overrides)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert all(word in sentence for word in named), sentence


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=alexnet", "model.input_size=55", "model.drop_layers=[conv3,fc7]", "model.lrn=[]", "model.dropout=none"],
        [
            "model=released_2012",
            "model.input_size=75",
            "model.pooling=plain",
            "model.activation=tanh",
            "model.init=fan_in",
        ],
        ["model=six_conv", "model.input_size=55", "model.towers=1", "model.order={conv1: act_pool_lrn}"],
        ["model=torchvision", "model.input_size=55", "model.drop_layers=[conv1]", "model.dropout_at=outputs"],
        ["model=conv_local_11", "model.lrn=[conv1,local3]", "model.drop_layers=[local4]"],
        ["model=convnet", "model.drop_layers=[conv1]", "model.spatial_norm=[conv2]", "model.pooling=plain"],
    ],
    ids=" ".join,
)
def test_departures_through_the_command_line(overrides: list[str]):
    cfg = run_config(*overrides)
    side, units = cfg.data.input_size, {name: 4 for name in LAYERS[cfg.model.arch] if name.startswith("fc")}
    net = build_net(replace(cfg.model, widths=cfg.model.widths | units), side, cfg.seed)
    assert net(torch.zeros(2, 3, side, side)).shape == (2, 10)
