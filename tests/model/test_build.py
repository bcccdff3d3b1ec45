"""The nets against tests/helpers/reference.py: what they compute, what a tower sees, what dropout does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import floor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_pl.config.choices import Activation, Conv1Padding, Dropout, LrnAlphaConvention, Order, Pooling
from alexnet_pl.config.schema import Model
from alexnet_pl.model.build import build_net
from alexnet_pl.model.layers import Flatten, MaskDropout
from tests.helpers import reference as ref
from tests.helpers.nets import CONVS, narrow


def lively(net: nn.Module) -> nn.Module:
    """float64, weights of fan-in scale, biases around 1; of those of 2012 half the net would hide behind the biases."""
    generator = torch.Generator().manual_seed(7)
    for name, p in net.double().named_parameters():
        fan_in = 1 if name.endswith("bias") else p.shape[2] if p.ndim == 3 else p[0].numel()
        p.data.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) / fan_in**0.5)
    return net.eval()


def noise(side: int, pixels: float, number: int = 2) -> Tensor:
    return pixels * torch.randn(number, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


# ------------------------------------------------------------------------------------------------ equal to the rules

LRN = partial(ref.LRN, alpha_per_element=1e-4 / 5)
FULL = [("fc6", ref.full), ref.relu, ("fc7", ref.full), ref.relu, ("fc8", ref.full)]


def six_conv(*args: Any) -> ref.Result:
    """The released net with conv6 over the last pooling layer, seeing both towers."""
    first = [ref.CONV1, LRN, ref.POOL, ref.relu, ref.CONV2, ref.relu, LRN, ref.spatial_norm, ref.POOL]
    rest = [ref.CONV3, ref.relu, ref.CONV4, ref.relu, ref.CONV5, ref.relu, ref.POOL]
    top = [("conv6", partial(ref.conv, pad=1)), ref.relu, *ref.fully_connected(0.5)]
    return ref.run([*first, *rest, *top], *args)


def one_tower(*args: Any, space: tuple[Any, ...] = ()) -> ref.Result:
    """The layers of the released net where everything sees everything."""
    norm = partial(ref.lrn, size=5, k=2.0, alpha_per_element=1e-4 / 5, beta=0.75)
    first = [ref.CONV1, norm, ref.POOL, ref.relu, ("conv2", partial(ref.conv, pad=2)), ref.relu, norm, *space, ref.POOL]
    rest = [layer for name in CONVS[2:] for layer in ((name, partial(ref.conv, pad=1)), ref.relu)]
    return ref.run([*first, *rest, ref.POOL, *ref.fully_connected(0.5)], *args)


def plain_pooling(*args: Any) -> ref.Result:
    """The released net with windows of 2x2; a pixel of padding less in conv2 and conv5 (net 147)."""
    pool, conv2 = partial(ref.max_pool, size=2, stride=2), ("conv2", partial(ref.conv, pad=1, groups=2))
    first = [ref.CONV1, LRN, pool, ref.relu, conv2, ref.relu, LRN, ref.spatial_norm, pool]
    conv5 = ("conv5", partial(ref.conv, groups=2))
    rest = [ref.CONV3, ref.relu, ref.CONV4, ref.relu, conv5, ref.relu, pool]
    return ref.run([*first, *rest, *ref.fully_connected(0.5)], *args)


def caffe(*args: Any) -> ref.Result:
    """ReLU, LRN, pool; k = 1, alpha divided by 5, windows across both towers, no zeros around 227 pixels."""
    norm = partial(ref.lrn, size=5, k=1.0, alpha_per_element=1e-4 / 5, beta=0.75)
    first = [ref.CONV1, ref.relu, norm, ref.POOL, ref.CONV2, ref.relu, norm, ref.POOL]
    return ref.run([*first, ref.CONV3, ref.relu, ref.CONV4, ref.relu, ref.CONV5, ref.relu, ref.POOL, *FULL], *args)


def torchvision_rule(*args: Any) -> ref.Result:
    """One tower, no normalisation, two zeros on every side of the image, and widths rounded down."""
    first = [("conv1", partial(ref.conv, stride=4, pad=2, rounding=floor)), ref.relu, ref.POOL]
    second = [("conv2", partial(ref.conv, pad=2)), ref.relu, ref.POOL]
    rest = [layer for name in CONVS[2:] for layer in ((name, partial(ref.conv, pad=1)), ref.relu)]
    return ref.run([*first, *second, *rest, ref.POOL, *FULL], *args)


def conv_local_11(*args: Any) -> ref.Result:
    """Facts file, section 7: conv, ReLU, max, LRN of 9 maps; conv, ReLU, LRN, max; two local layers."""
    norm = partial(ref.lrn, size=9, k=1.0, alpha_per_element=1e-3 / 9, beta=0.75)
    conv, local = partial(ref.conv, pad=2), partial(ref.local, pad=1)
    first = [("conv1", conv), ref.relu, ref.POOL, norm, ("conv2", conv), ref.relu, norm, ref.POOL]
    return ref.run([*first, ("local3", local), ref.relu, ("local4", local), ref.relu, ("fc10", ref.full)], *args)


def convnet(*args: Any, act: Callable[..., Any] = ref.relu) -> ref.Result:
    """The activation below the maximum; above it, as in conf/model/convnet.yaml, it is the same if it rises."""
    conv, mean = partial(ref.conv, pad=2), partial(ref.avg_pool, size=3, stride=2)
    above = [("conv2", conv), act, mean, ("conv3", conv), act, mean, ("fc10", ref.full)]
    return ref.run([("conv1", conv), act, ref.POOL, *above], *args)


RULES: dict[str, Callable[..., ref.Result]] = {
    "alexnet": ref.alexnet,
    "released_2012": ref.released_2012,
    "six_conv": six_conv,
    "one_gpu": partial(one_tower, space=(ref.spatial_norm,)),
    "cuda_convnet2": one_tower,
    "caffe": caffe,
    "torchvision": torchvision_rule,
    "conv_local_11": conv_local_11,
    "convnet": convnet,
}


def difference(cfg: Model, side: int, rule: Callable[..., ref.Result], pixels: float = 60) -> dict[str, float]:
    """The largest difference from a rule in the logits and every gradient, relative to the largest number there."""
    net, images, labels = lively(build_net(cfg, side, 1)), noise(side, pixels), torch.tensor([3, 8])
    weights = dict(net.named_parameters())
    logits, loss, gradients = rule({k: p.detach().numpy() for k, p in weights.items()}, images.numpy(), labels.numpy())
    out = net(images.requires_grad_())
    F.cross_entropy(out, labels).backward()
    ours = {name: p.grad for name, p in (weights | {"images": images}).items()}
    ours |= {"logits": out.detach(), "loss": F.cross_entropy(out, labels).detach()}
    theirs = gradients | {"logits": logits, "loss": np.array(loss)}
    assert set(ours) == set(theirs)
    assert all(np.abs(b).max() > 0 for b in theirs.values())
    return {name: np.abs(ours[name].numpy() - b).max() / np.abs(b).max() for name, b in theirs.items()}


@pytest.mark.parametrize("name", RULES)
def test_logits_and_gradients_equal_the_rules(name: str):
    """Those of every weight and bias, and of the images; in evaluation."""
    assert max(difference(*narrow(name), RULES[name]).values()) < 1e-10


def test_plain_pooling_equals_the_rules():
    assert max(difference(*narrow("released_2012", pooling=Pooling.plain), plain_pooling).values()) < 1e-10


@pytest.mark.parametrize("activation", Activation)
def test_activations_equal_the_rules(activation: Activation):
    cfg, side = narrow("convnet", activation=activation, order={})
    assert max(difference(cfg, side, partial(convnet, act=getattr(ref, str(activation))), pixels=1).values()) < 1e-10


@pytest.mark.parametrize(
    "change",
    [
        {"lrn_k": 1.0},
        {"lrn_alpha": 2e-4},
        {"lrn_beta": 0.7},
        {"lrn_size": 3},
        {"lrn_alpha_convention": LrnAlphaConvention.paper},
        {"lrn_across_towers": True},
        {"lrn": ["conv1"]},
        {"lrn": ["conv2"]},
        {"spatial_norm": []},
        {"conv1_padding": Conv1Padding.symmetric},
        {"conv1_padding": Conv1Padding.none},
        {"order": {"conv1": Order.act_lrn_pool}},
        {"order": {"conv2": Order.pool_act_lrn}},
        {"dropout": Dropout.none},
        {"dropout_rate": 0.4},
    ],
    ids=str,
)
def test_one_constant_changed_is_another_net(change: dict[str, Any]):
    """What the equality above would not let pass: logits differ by more than 0.5 %, some gradient by half its size."""
    found = difference(*narrow("released_2012", **change), ref.released_2012)
    assert found["logits"] > 0.005
    assert max(found.values()) > 0.5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flatten_is_torchs_and_gives_the_gradient_the_layout_of_the_maps(layout: torch.memory_format):
    maps = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(1))
    down = torch.randn(4, 90, generator=torch.Generator().manual_seed(2))
    flattened: list[Tensor] = []
    gradients: list[Tensor] = []
    for flatten in (Flatten(), nn.Flatten()):
        x = maps.contiguous(memory_format=layout).requires_grad_() * 1
        flattened.append(flatten(x))
        x.register_hook(gradients.append)  # as the layer below gets it
        flattened[-1].backward(down)
    assert flattened[0].equal(flattened[1])
    assert gradients[0].equal(gradients[1])
    assert gradients[0].is_contiguous(memory_format=layout)


def test_channels_last_changes_the_layout_not_the_numbers():
    fast, plain = (lively(build_net(*narrow("released_2012", channels_last=last), seed=3)) for last in (True, False))
    assert fast.get_submodule("conv2").weight.is_contiguous(memory_format=torch.channels_last)
    assert not plain.get_submodule("conv2").weight.is_contiguous(memory_format=torch.channels_last)
    x = noise(224, 60)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------------ towers


@pytest.mark.parametrize(
    ("name", "layer", "below", "sees"),
    [
        ("released_2012", "conv2", "conv1", False),
        ("released_2012", "conv3", "conv2", True),
        ("released_2012", "conv4", "conv3", False),
        ("released_2012", "conv5", "conv4", False),
        ("six_conv", "conv6", "conv5", True),
        ("released_2012", "fc6", "conv5", True),
        ("split_towers", "conv3", "conv2", False),
        ("split_towers", "fc6", "conv5", False),
        ("caffe", "conv2", "conv1", True),  # through its normalisation
    ],
)
def test_which_layers_see_the_other_tower(name: str, layer: str, below: str, sees: bool):
    """The gradient of a layer's first half with respect to the kernels of the second half of a layer below."""
    net = lively(build_net(*narrow(name), seed=3))
    names = [key for key, _ in net.named_children()]
    out = net[: names.index(layer) + 1](noise(227 if name == "caffe" else 224, 60))
    out[:, : out.shape[1] // 2].square().sum().backward()
    kernels = net.get_submodule(below).weight.grad
    own, other = kernels.abs().flatten(1).amax(1).chunk(2)
    assert own.min() > 0
    assert bool(other.max() > 0) is sees


@torch.no_grad()
def test_split_towers_are_whole_layers_with_zeros_between():
    split = lively(build_net(*narrow("split_towers"), seed=3))
    whole = lively(build_net(*narrow("split_towers", towers_meet=None), seed=4))
    for (name, own), full in zip(split.named_parameters(), whole.parameters(), strict=True):
        if own.shape == full.shape:
            full.copy_(own)
            continue
        full.zero_()
        for i, block in enumerate(own.chunk(2)):
            full.chunk(2)[i].chunk(2, 1)[i].copy_(block)
        assert name in ("conv3.weight", "fc6.weight", "fc7.weight")
    x = noise(224, 60)
    torch.testing.assert_close(split(x), whole(x), rtol=1e-11, atol=1e-11)


# ------------------------------------------------------------------------------------------------ dropout


def test_mask_dropout_is_a_mask_in_training_and_a_factor_in_evaluation():
    dropout = MaskDropout(0.3)
    x = (1 + torch.rand(400, 500)).requires_grad_()  # no zero, as randn draws now and then: zeros mark what is dropped
    y = dropout(x)
    kept = y != 0
    assert torch.equal(y, x * kept)
    assert kept.double().mean().item() == pytest.approx(0.7, abs=5 * (0.3 * 0.7 / x.numel()) ** 0.5)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, kept.float())
    assert not torch.equal(kept, dropout(x) != 0)
    assert torch.equal(dropout.eval()(x), x * 0.7)


@pytest.mark.parametrize(
    ("name", "kind", "order"),
    [
        ("alexnet", MaskDropout, ["fc6", "fc6_act", "fc6_dropout", "fc7", "fc7_act", "fc7_dropout", "fc8"]),
        ("caffe", nn.Dropout, ["fc6", "fc6_act", "fc6_dropout", "fc7", "fc7_act", "fc7_dropout", "fc8"]),
        ("torchvision", nn.Dropout, ["fc6_dropout", "fc6", "fc6_act", "fc7_dropout", "fc7", "fc7_act", "fc8"]),
    ],
)
def test_where_dropout_stands(name: str, kind: type[nn.Module], order: list[str]):
    net = build_net(*narrow(name, dropout_rate=0.4), seed=3)
    modules = {key: module for key, module in net.named_children() if key.startswith("fc")}
    assert list(modules) == order
    drops = [module for key, module in modules.items() if "dropout" in key]
    assert [(type(drop), getattr(drop, "rate", getattr(drop, "p", 0))) for drop in drops] == [(kind, 0.4)] * 2


def test_inverted_dropout_is_torchs():
    net = build_net(*narrow("caffe"), seed=3)
    x = torch.rand(50, 40) + 1
    drop = net.get_submodule("fc6_dropout").train()
    torch.manual_seed(1)
    y = drop(x)
    torch.manual_seed(1)
    assert torch.equal(y, F.dropout(x, 0.5))
    assert torch.equal(drop.eval()(x), x)


def test_inverted_dropout_is_mask_dropout_with_other_constants():
    """Facts file, section 4: with half the weights in fc7 and fc8, a quarter of their rate and four times their decay.

    Ten updates under the same masks: the same function all the way, and the same weights but for that half.
    """
    (cfg, _), side = narrow("alexnet"), 67
    mask, inverted = (lively(build_net(replace(cfg, dropout=d), side, 3)) for d in (Dropout.mask, Dropout.inverted))
    halved = [inverted.get_submodule(name).weight for name in ("fc7", "fc8")]
    for weight in halved:
        weight.data /= 2
    x, labels, decay = noise(side, 60, 4), torch.arange(4), 0.1
    torch.testing.assert_close(mask(x), inverted(x), rtol=1e-10, atol=1e-10)
    others = [p for p in inverted.parameters() if not any(p is weight for weight in halved)]
    groups = [{"params": others}, {"params": halved, "lr": 1e-3 / 4, "weight_decay": decay * 4}]
    start = mask(x).detach()
    for net, params in ((mask, mask.parameters()), (inverted, groups)):
        optimiser = torch.optim.SGD(params, lr=1e-3, momentum=0.9, weight_decay=decay)
        for step in range(10):
            torch.manual_seed(step)
            optimiser.zero_grad()
            F.cross_entropy(net.train()(x), labels).backward()
            optimiser.step()
        net.eval()
    assert (mask(x) - start).abs().max() > 0.1
    torch.testing.assert_close(mask(x), inverted(x), rtol=1e-9, atol=1e-9)
    for (name, p), q in zip(mask.named_parameters(), inverted.parameters(), strict=True):
        torch.testing.assert_close(p, q * (2 if name in ("fc7.weight", "fc8.weight") else 1), rtol=1e-9, atol=1e-9)
