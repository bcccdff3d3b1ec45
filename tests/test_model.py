"""The nets against explicit float64 functions and the facts of 2012."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_pl import model
from alexnet_pl.config import Activation, Init, Model, Table
from alexnet_pl.errors import ConfigError


def convnet(activation: Activation = Activation.relu, init: Init = Init.gaussian, size: int = 32):
    return model.build(
        Model(name="convnet", table=Table.convnet, activation=activation, init=init, num_classes=10), size, seed=3
    )


def test_convnet_has_the_published_number_of_parameters():
    sizes = {name: p.numel() for name, p in convnet().named_parameters()}
    assert sum(sizes.values()) == 89_578
    assert sizes == {
        "conv1.weight": 32 * 3 * 25,
        "conv1.bias": 32,
        "conv2.weight": 32 * 32 * 25,
        "conv2.bias": 32,
        "conv3.weight": 64 * 32 * 25,
        "conv3.bias": 64,
        "fc10.weight": 10 * 64 * 4 * 4,
        "fc10.bias": 10,
    }


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_convnet_equals_its_definition(activation: str):
    """Outputs and gradients in float64, with the first activation below the pool as in the usual reading."""
    net = convnet(Activation[activation], Init.fan_in).double()
    act = {"relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[activation]
    w = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    x = torch.randn(5, 3, 32, 32, dtype=torch.float64)

    def reference(x: Tensor) -> Tensor:
        x = F.max_pool2d(act(F.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=2)), 3, 2, ceil_mode=True)
        x = F.avg_pool2d(act(F.conv2d(x, w["conv2.weight"], w["conv2.bias"], padding=2)), 3, 2, ceil_mode=True)
        x = F.avg_pool2d(act(F.conv2d(x, w["conv3.weight"], w["conv3.bias"], padding=2)), 3, 2, ceil_mode=True)
        assert x.shape == (5, 64, 4, 4)
        return x.flatten(1) @ w["fc10.weight"].T + w["fc10.bias"]

    ours, theirs = net(x), reference(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    labels = torch.arange(5)
    F.cross_entropy(ours, labels).backward()
    F.cross_entropy(theirs, labels).backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, w[name].grad, rtol=1e-10, atol=1e-13)


def test_released_init():
    """Facts file, section 7: std 0.0001, 0.01, 0.01, 0.01, biases 0."""
    net = convnet()
    stds = {"conv1": 1e-4, "conv2": 0.01, "conv3": 0.01, "fc10": 0.01}
    for name, std in stds.items():
        layer = net.get_submodule(name)
        n = layer.weight.numel()
        assert layer.weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * n))
        assert abs(layer.weight.mean().item()) < 4 * std / math.sqrt(n)
        assert not layer.bias.any()


@pytest.mark.parametrize(("activation", "gain"), [(Activation.relu, 2), (Activation.tanh, 1), (Activation.sigmoid, 1)])
def test_fan_in_init(activation: Activation, gain: int):
    layer = convnet(activation, Init.fan_in).get_submodule("conv3")
    assert layer.weight.var().item() == pytest.approx(gain / (32 * 25), rel=0.03)


def test_same_seed_same_weights_whatever_the_global_state():
    torch.manual_seed(1)
    a = convnet()
    torch.manual_seed(2)
    b = convnet(Activation.tanh)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_crops_of_24_fit_and_too_small_pictures_do_not():
    assert convnet(size=24)(torch.zeros(2, 3, 24, 24)).shape == (2, 10)
    with pytest.raises(ConfigError, match="pictures of 0 pixels are too small"):
        convnet(size=0)


def test_channels_last_changes_the_layout_not_the_numbers():
    fast, plain = (
        model.build(Model(name="convnet", table=Table.convnet, num_classes=10, channels_last=c), 32, seed=3).double()
        for c in (True, False)
    )
    assert fast.get_submodule("conv2").weight.is_contiguous(memory_format=torch.channels_last)
    assert not plain.get_submodule("conv2").weight.is_contiguous(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-12, atol=1e-15)
