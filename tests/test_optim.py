"""The 2012 update rule against NumPy in float64 and against torch.optim.SGD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from alexnet_pl import optim
from alexnet_pl.config import Optim


def test_the_rule_of_2012_across_learning_rate_cuts():
    """v <- 0.9 v - wd lr w - lr g, w <- w + v, with the old velocity carried over a cut.

    In float64 to rounding: torch may fuse the multiplication and the addition.
    """
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 3))
    gradients = rng.normal(size=(30, 4, 3))
    parameter = nn.Parameter(torch.tensor(w))
    optimizer = optim.SGD2012([parameter], lr=0.1, momentum=0.9, weight_decay=5e-4)
    v = np.zeros_like(w)
    for step, g in enumerate(gradients):
        lr = 0.1 if step < 10 else 0.01 if step < 20 else 0.001
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = torch.tensor(g)
        optimizer.step()
        v = 0.9 * v + g * -lr
        v = v + w * (-lr * 5e-4)
        w = w + v
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-13, atol=1e-15)


def test_equals_torch_sgd_only_while_the_rate_is_constant():
    a, b = (nn.Parameter(torch.ones(5, dtype=torch.float64)) for _ in range(2))
    ours = optim.SGD2012([a], lr=0.1, momentum=0.9, weight_decay=0.01)
    theirs = torch.optim.SGD([b], lr=0.1, momentum=0.9, weight_decay=0.01)

    def steps(lr: float) -> None:
        for optimizer, p in ((ours, a), (theirs, b)):
            optimizer.param_groups[0]["lr"] = lr
            for i in range(5):
                p.grad = torch.arange(5.0, dtype=torch.float64) + i
                optimizer.step()

    steps(0.1)
    torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    steps(0.01)
    assert (a - b).abs().max() > 0.1


def test_weights_and_biases_have_their_own_rate_and_decay():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    weights, biases = optim.build(net, Optim(lr=0.01, momentum=0.8, weight_decay=5e-4)).param_groups
    assert (weights["lr"], weights["weight_decay"], weights["momentum"]) == (0.01, 5e-4, 0.8)
    assert (biases["lr"], biases["weight_decay"], biases["momentum"]) == (0.02, 0.0, 0.8)
    assert {id(p) for p in weights["params"]} == {id(net[0].weight), id(net[1].weight)}
    assert {id(p) for p in biases["params"]} == {id(net[0].bias), id(net[1].bias)}


def test_state_survives_saving():
    def run(interrupted: bool) -> torch.Tensor:
        p = nn.Parameter(torch.ones(3))
        optimizer = optim.SGD2012([p], lr=0.1)
        for i in range(6):
            if interrupted and i == 3:
                state = optimizer.state_dict()
                optimizer = optim.SGD2012([p], lr=0.5)
                optimizer.load_state_dict(state)
            p.grad = torch.tensor([1.0, -2.0, i])
            optimizer.step()
        return p.detach()

    assert torch.equal(run(interrupted=True), run(interrupted=False))


def test_a_parameter_without_gradient_stays():
    p, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = optim.SGD2012([p, frozen], lr=0.1, weight_decay=1.0)
    p.grad = torch.ones(2)
    assert optimizer.step(lambda: 7) == 7
    assert not torch.equal(p, torch.ones(2))
    assert torch.equal(frozen, torch.ones(2))


@pytest.mark.gpu
def test_same_steps_on_cuda():
    g = torch.randn(100, 100, dtype=torch.float64)
    ends = []
    for device in ("cpu", "cuda"):
        p = nn.Parameter(torch.ones(100, 100, dtype=torch.float64, device=device))
        optimizer = optim.SGD2012([p], lr=0.1, weight_decay=0.1)
        for _ in range(5):
            p.grad = g.to(device)
            optimizer.step()
        ends.append(p.detach().cpu())
    torch.testing.assert_close(*ends, rtol=1e-13, atol=1e-13)
