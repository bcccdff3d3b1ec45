"""model=torchvision is torchvision's alexnet: weights load both ways and give the same logits."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

from alexnet_pl.model.build import build_net
from tests.helpers.nets import config, narrow


@pytest.fixture(scope="module")
def ours() -> nn.Sequential:
    return build_net(*config("torchvision"), seed=3).eval()


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return torchvision.models.alexnet(weights=None).eval()


@torch.no_grad()
def test_torchvisions_weights_load_here(ours: nn.Sequential, theirs: nn.Module):
    x, state = torch.randn(2, 3, 224, 224), theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    assert (ours(x) - theirs(x)).abs().max() > 1e-3
    ours.load_state_dict(state)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)
    assert list(state) == list(theirs.state_dict()), "the caller's dictionary stays as it is"


@torch.no_grad()
def test_our_weights_load_there(ours: nn.Sequential, theirs: nn.Module):
    x = torch.randn(2, 3, 224, 224)
    for p in ours.parameters():
        p.mul_(1.1)
    assert (ours(x) - theirs(x)).abs().max() > 1e-3
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


def test_torchvisions_names_inside_another_module(ours: nn.Sequential, theirs: nn.Module):
    """As in a LightningModule, whose checkpoints hold `net.features.0.weight`."""
    outer = nn.ModuleDict({"net": ours})
    state = {f"net.{name}": value + 1 for name, value in theirs.state_dict().items()}
    assert list(outer.state_dict()) == list(state)
    outer.load_state_dict(state)
    assert all(torch.equal(value, state[name]) for name, value in outer.state_dict().items())
    assert torch.equal(ours.get_submodule("fc8").bias, state["net.classifier.6.bias"])


def test_torchvisions_names_survive_a_copy_and_a_wrong_state_is_refused():
    net = copy.deepcopy(build_net(*narrow("torchvision"), seed=3))
    state = net.state_dict()
    assert "features.0.weight" in state
    with pytest.raises(RuntimeError, match=r"Unexpected key.*features\.1\.weight"):
        net.load_state_dict(state | {"features.1.weight": torch.zeros(1)})
    del state["classifier.6.bias"]
    with pytest.raises(RuntimeError, match="Missing key"):
        net.load_state_dict(state)
