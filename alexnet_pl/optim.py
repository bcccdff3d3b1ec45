"""The 2012 update rule and its parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from alexnet_pl import config


class SGD2012(torch.optim.Optimizer):
    """Stochastic gradient descent with the learning rate inside the velocity (paper, section 5; cuda-convnet).

        v <- momentum v - lr (weight_decay w + gradient)
        w <- w + v

    `torch.optim.SGD` keeps the learning rate outside. At a constant rate both take the same steps; where the rate
    changes, this one carries the old velocity on for some ten steps, as the original did.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update; parameters without a gradient stay as they are. Returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            for w in weights:
                if "velocity" not in self.state[w]:
                    self.state[w]["velocity"] = torch.zeros_like(w)
            velocities = [self.state[w]["velocity"] for w in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, [w.grad for w in weights if w.grad is not None], alpha=-group["lr"])
            if group["weight_decay"]:
                torch._foreach_add_(velocities, weights, alpha=-group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, velocities)
        return loss


def build(net: nn.Module, cfg: config.Optim) -> SGD2012:
    """The optimiser of a net: weights at `lr` with decay, biases at `bias_lr_factor` times `lr` without (2012)."""
    weights = [p for name, p in net.named_parameters() if not name.endswith("bias")]
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    groups = [
        {"params": weights, "lr": cfg.lr, "weight_decay": cfg.weight_decay},
        {"params": biases, "lr": cfg.lr * cfg.bias_lr_factor, "weight_decay": 0.0},
    ]
    return SGD2012(groups, lr=cfg.lr, momentum=cfg.momentum)
