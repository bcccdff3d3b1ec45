"""The 2012 update rule against NumPy in float64 and against torch.optim.SGD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from alexnet_pl.config.choices import Rule
from alexnet_pl.config.schema import LayerLr, Optim
from alexnet_pl.training import optim
from tests.helpers import reference
from tests.helpers.runs import run_config


def test_the_rule_of_2012_across_two_cuts_by_schedule():
    """40 steps of `build` and `schedule` together, weights and biases each by their own cuts, against NumPy."""
    cfg = Optim(
        lr=0.1, weight_decay=5e-4, lr_milestones=[1, 3], lr_factors=[0.1, 0.01],
        bias_lr_milestones=[2], bias_lr_factors=[0.1],
    )  # fmt: skip
    rng = np.random.default_rng(1)
    net = nn.Linear(4, 3).double()
    state = {name: (p.detach().numpy().copy(), np.zeros(p.shape)) for name, p in net.named_parameters()}
    optimizer = optim.build_optimizer(net, cfg)
    scheduler = optim.lr_schedule(optimizer, cfg, lambda updates: updates / 10)  # ten updates an epoch
    for step in range(40):
        rates = {
            "weight": 0.1 if step < 10 else 0.01 if step < 30 else 0.001,
            "bias": 0.2 if step < 20 else 0.02,
        }
        for name, p in net.named_parameters():
            g = rng.normal(size=p.shape)
            p.grad = torch.tensor(g)
            state[name] = reference.sgd_2012(*state[name], g, rates[name], 0.9, 5e-4 if name == "weight" else 0.0)
        optimizer.step()
        scheduler.step()
        for name, p in net.named_parameters():
            np.testing.assert_allclose(p.detach().numpy(), state[name][0], rtol=1e-12, atol=1e-14)


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


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_equals_torch_sgd_while_the_rate_is_constant(momentum: float):
    """And with momentum only so long: what the old velocity still carries was made at the old rate."""
    a, b = (nn.Parameter(torch.ones(5, dtype=torch.float64)) for _ in range(2))
    ours = optim.SGD2012([a], lr=0.1, momentum=momentum, weight_decay=0.01)
    theirs = torch.optim.SGD([b], lr=0.1, momentum=momentum, weight_decay=0.01)

    def steps(lr: float) -> None:
        for optimizer, p in ((ours, a), (theirs, b)):
            optimizer.param_groups[0]["lr"] = lr
            for i in range(5):
                p.grad = torch.arange(5.0, dtype=torch.float64) + i
                optimizer.step()

    steps(0.1)
    torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    steps(0.01)
    assert bool((a - b).abs().max() > 0.05) == (momentum > 0)


def test_weights_and_biases_have_their_own_rate_and_decay():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    weights, biases = optim.build_optimizer(net, Optim(lr=0.01, momentum=0.8, weight_decay=5e-4)).param_groups
    assert (weights["lr"], weights["weight_decay"], weights["momentum"]) == (0.01, 5e-4, 0.8)
    assert (biases["lr"], biases["weight_decay"], biases["momentum"]) == (0.02, 0.0, 0.8)
    assert {id(p) for p in weights["params"]} == {id(net[0].weight), id(net[1].weight)}
    assert {id(p) for p in biases["params"]} == {id(net[0].bias), id(net[1].bias)}


def test_a_layer_can_have_its_own_decay():
    """The 11 % net for CIFAR-10: 0 in its convolutions, 0.01 in its last layer, 0.004 between; biases never."""
    net = nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3), "local3": nn.Linear(4, 4), "fc10": nn.Linear(4, 2)})
    cfg = Optim(
        lr=0.01,
        weight_decay=0.004,
        layer_decay={"conv1": 0, "fc10": 0.01},
        layer_lr=[LayerLr(["conv1"], [1], [0])],
    )
    decay = {
        id(p): group["weight_decay"] for group in optim.build_optimizer(net, cfg).param_groups for p in group["params"]
    }
    assert {name: decay[id(p)] for name, p in net.named_parameters()} == {
        **dict.fromkeys(["conv1.weight", "conv1.bias", "local3.bias", "fc10.bias"], 0),
        "local3.weight": 0.004,
        "fc10.weight": 0.01,
    }


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


@pytest.mark.parametrize("last", [False, True], ids=["NCHW weights", "channels-last weights"])
def test_memory_layouts_may_differ(last: bool):
    """A gradient, or a velocity from a checkpoint, that lies otherwise in memory than its weights; against NumPy."""
    here, there = (torch.channels_last, torch.contiguous_format)[:: 1 if last else -1]
    rng = np.random.default_rng(3)
    w, v, *gradients = rng.normal(size=(5, 6, 3, 2, 4))
    p = nn.Parameter(torch.tensor(w).to(memory_format=here))
    optimizer = optim.SGD2012([p], lr=0.1, weight_decay=0.01)
    state = optimizer.state_dict()
    state["state"] = {0: {"velocity": torch.tensor(v).to(memory_format=there)}}
    optimizer.load_state_dict(state)
    for g in gradients:
        p.grad = torch.tensor(g).to(memory_format=there)
        optimizer.step()
        w, v = reference.sgd_2012(w, v, g, 0.1, 0.9, 0.01)
    np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-12)
    np.testing.assert_allclose(optimizer.state[p]["velocity"].numpy(), v, rtol=1e-12)


@pytest.mark.parametrize("lr", [0.5, 1e-2, 1e-6])
def test_single_precision_is_the_rule_to_rounding(lr: float):
    """Also where the rate is small: the kernel is told 1 + lr, in double precision."""
    rng = np.random.default_rng(4)
    w, v = rng.normal(size=1000), np.zeros(1000)
    p = nn.Parameter(torch.tensor(w, dtype=torch.float32))
    w = p.detach().numpy().astype(np.float64)
    optimizer = optim.SGD2012([p], lr=lr, weight_decay=5e-4)
    for g in rng.normal(size=(5, 1000)).astype(np.float32):
        p.grad = torch.tensor(g)
        optimizer.step()
        w, v = reference.sgd_2012(w, v, g, lr, 0.9, 5e-4)
    np.testing.assert_allclose(optimizer.state[p]["velocity"].numpy(), v, rtol=1e-5, atol=2e-6 * lr)
    np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-6, atol=1e-6)


def test_a_parameter_without_gradient_stays():
    p, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = optim.SGD2012([p, frozen], lr=0.1, weight_decay=1.0)
    p.grad = torch.ones(2)
    assert optimizer.step(lambda: 7) == 7
    assert not torch.equal(p, torch.ones(2))
    assert torch.equal(frozen, torch.ones(2))


def rates(cfg: Optim, *groups: str) -> dict[float, tuple[float, ...]]:
    """Epoch or share of the run -> learning rates of the groups, where any of them changes."""
    first = {"weight": cfg.lr, "bias": cfg.lr * cfg.bias_lr_mult}
    out: dict[float, tuple[float, ...]] = {}
    for tick in range(10_000):
        now = tuple(round(first[g.split(".")[-1]] * optim.lr_factor(cfg, g, tick / 100), 10) for g in groups)
        if not out or now != list(out.values())[-1]:
            out[tick / 100] = now
    return out


def test_the_schedule_of_net_145():
    """Facts file, section 4: 0.01, cut at 25, 51 and 79; conv1 to 1e-5 at 67, frozen at 72; biases stay at 0.02."""
    cfg = run_config("model=released_2012", "optim=released_145").optim
    assert rates(cfg, "weight") == {0: (0.01,), 25: (1e-3,), 51: (1e-4,), 79: (1e-5,)}
    assert rates(cfg, "conv1.weight") == {0: (0.01,), 25: (1e-3,), 51: (1e-4,), 67: (1e-5,), 72: (0.0,)}
    assert rates(cfg, "bias", "conv1.bias") == {0: (0.02, 0.02), 72: (0.02, 0.0)}


def test_the_schedule_of_net_145_on_2010():
    cfg = run_config("model=released_2012", "optim=released_145_2010").optim
    assert rates(cfg, "weight") == {0: (0.01,), 23: (1e-3,), 51: (1e-4,), 78: (1e-5,)}
    assert rates(cfg, "conv1.weight") == {0: (0.01,), 23: (1e-3,), 51: (1e-4,), 68: (1e-5,), 72: (0.0,)}
    assert list(rates(cfg, "bias").values()) == [(0.02,), (0.002,)]


def test_the_schedule_of_run_170():
    """Four equal steps, 0.01 to 4e-5; biases a tenth at half time."""
    cfg = run_config("model=released_2012", "optim=released_170").optim
    steps = [optim.lr_factor(cfg, "weight", share) * cfg.lr for share in (0, 0.25, 0.5, 0.75)]
    np.testing.assert_allclose(steps, [0.01 * 250 ** (-i / 3) for i in range(4)], rtol=1e-5)
    assert list(rates(cfg, "weight")) == [0, 0.25, 0.5, 0.75]
    assert rates(cfg, "bias") == {0: (0.02,), 0.5: (0.002,)}
    assert list(rates(cfg, "conv1.weight").values())[-1] == (0.0,)


def test_the_papers_rule_cuts_exactly_three_times():
    """Section 5: divided by ten when the validation error stops improving, three times, and never again."""
    cfg = run_config("model=alexnet", "optim=paper", "optim.plateau_patience=2").optim
    net = nn.Linear(2, 2)
    optimizer = optim.build_optimizer(net, cfg)
    scheduler = optim.plateau_schedule(optimizer, cfg)
    errors = [0.9, 0.8, 0.8, 0.79, 0.79, 0.80, 0.5, 0.51, 0.5, 0.49, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    weights, biases = optimizer.param_groups
    seen = []
    for error in errors:
        scheduler.step(error)
        seen.append(weights["lr"])
        assert weights["lr"] == biases["lr"], "the paper has one rate for all layers"
    # no lower error twice in a row: at the 6th, 9th and 12th validation
    expected = [0.01] * 5 + [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 8
    np.testing.assert_allclose(seen, expected, rtol=1e-9)


def test_frozen_is_frozen():
    """A rate of 0: no momentum step, no decay (facts file, section 4); the other layers go on."""
    cfg = Optim(lr=0.1, weight_decay=0.1, layer_lr=[LayerLr(["conv1"], [1.0], [0.0])])
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(1, 1, 3))
    net.add_module("conv2", nn.Conv2d(1, 1, 3))
    optimizer = optim.build_optimizer(net, cfg)
    assert [g["name"] for g in optimizer.param_groups] == ["conv1.weight", "conv1.bias", "weight", "bias"]
    scheduler = optim.lr_schedule(optimizer, cfg, lambda updates: updates / 2)
    frozen = None
    for step in range(5):
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        scheduler.step()
        moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
        everything = {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}
        assert moved == (everything if step < 2 else {"conv2.weight", "conv2.bias"})
        velocity = optimizer.state[net.conv1.weight]["velocity"].clone()
        frozen = velocity if step == 1 else frozen
    assert frozen is not None
    assert torch.equal(velocity, frozen)


def test_the_plain_recipe_is_torchs():
    cfg = run_config("model=torchvision", "optim=torch_sgd").optim
    assert cfg.name is Rule.sgd
    optimizer = optim.build_optimizer(nn.Linear(2, 2), cfg)
    assert type(optimizer) is torch.optim.SGD
    assert [(g["lr"], g["weight_decay"], g["momentum"]) for g in optimizer.param_groups] == [(0.01, 1e-4, 0.9)] * 2
    assert rates(cfg, "weight", "bias") == {0: (0.01, 0.01), 30: (1e-3, 1e-3), 60: (1e-4, 1e-4)}


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
