"""What makes a run fast changes no curve: 120 steps of the command against a plain loop by torch's own functions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.model.build import build_net
from alexnet_pl.model.lrn import LocalResponseNorm
from alexnet_pl.runs.run import Run
from tests.helpers.commands import train_command
from tests.helpers.runs import run_config

pytestmark = pytest.mark.slow

STEPS, SEEDS = 120, (1, 2, 3)
RUN = (
    "model.lrn=[conv1,conv2]", "model.width=0.5", "model.init=fan_in", "data.pixel_scale=64", "data.batch_size=16",
    "optim.weight_decay=0.001", "trainer.max_epochs=1", f"trainer.limit_train_batches={STEPS}", "trainer=cpu",
    "trainer.limit_val_batches=0", "train_eval_images=0", "train_error_window=16", "logger=csv",
)  # fmt: skip


class Torchs(nn.Module):
    """torch's normalisation, with the constants of a layer of ours."""

    def __init__(self, layer: LocalResponseNorm) -> None:
        super().__init__()
        self.constants = layer.size, layer.alpha * layer.size, layer.beta, layer.k  # torch divides alpha by the size

    def forward(self, x: Tensor) -> Tensor:
        return F.local_response_norm(x, *self.constants)


def plain(*overrides: str, seed: int = 1) -> Tensor:
    """Losses of the steps: NCHW, fp32, torch's LRN, and the paper's rule written out."""
    cfg = run_config(*RUN, *overrides, f"seed={seed}", "model.channels_last=false")
    datamodule = ImageDataModule(cfg)
    datamodule.setup("fit")
    net = build_net(cfg.model, 32, seed)
    for name, layer in list(net.named_children()):
        if isinstance(layer, LocalResponseNorm):
            setattr(net, name, Torchs(layer))
    velocity = {name: torch.zeros_like(w) for name, w in net.named_parameters()}
    losses = []
    for _, (images, labels, _) in zip(range(STEPS), datamodule.train_dataloader(), strict=False):
        loss = F.cross_entropy(net(images.contiguous()), labels)
        net.zero_grad()
        loss.backward()
        losses.append(loss.detach())
        with torch.no_grad():
            for name, w in net.named_parameters():
                assert w.grad is not None
                decay, rate = (cfg.optim.weight_decay, 1) if name.endswith("weight") else (0, cfg.optim.bias_lr_mult)
                velocity[name] = cfg.optim.momentum * velocity[name] - rate * cfg.optim.lr * (decay * w + w.grad)
                w += velocity[name]
    return torch.stack(losses)


def fast(folder: Path, precision: str, *overrides: str, seed: int = 1) -> Tensor:
    """Losses of the steps as the command trains: channels-last, our LRN, the fused update, through Lightning."""
    with pytest.MonkeyPatch.context() as patch:
        result = train_command(folder, patch)(*RUN, *overrides, f"seed={seed}", f"trainer.precision={precision}")
    assert result.returncode == 0, result.stderr
    (run,) = (Run(log.parent) for log in folder.glob("runs/*/*/metrics.csv"))
    return torch.tensor([row["train/loss"] for row in run.metrics if "train/loss" in row])


SLOW = "optim.lr=0.0005"  # at which fp32's rounding grows slowly: maxima and ReLUs have kinks
USUAL = "optim.lr=0.005"


def test_each_step_is_the_plain_loops(tmp_path: Path):
    losses = fast(tmp_path, "32-true", SLOW)
    assert len(losses) == STEPS
    assert losses[-20:].mean() < 0.97 * losses[:20].mean(), "it learns"
    expected = plain(SLOW)
    torch.testing.assert_close(losses[:20], expected[:20], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses, expected, rtol=2e-3, atol=0)  # by then rounding has grown a hundredfold


def test_bf16_stays_within_the_spread_of_seeds(tmp_path: Path):
    """Between two curves, the root mean square of the difference of their means over 20 steps each."""

    def apart(a: Tensor, b: Tensor) -> float:
        return (a.unfold(0, 20, 20).mean(1) - b.unfold(0, 20, 20).mean(1)).square().mean().sqrt().item()

    plains = {seed: plain(USUAL, seed=seed) for seed in SEEDS}
    seeds = min(apart(plains[a], plains[b]) for a in SEEDS for b in SEEDS if a < b)
    losses = fast(tmp_path, "bf16-mixed", USUAL)
    assert not torch.equal(losses, plains[1])
    assert apart(losses, plains[1]) < seeds
