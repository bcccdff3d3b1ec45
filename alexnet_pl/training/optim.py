"""The 2012 update rule, its parameter groups, and the schedules of the learning rates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.sgd import sgd

from alexnet_pl.config.choices import Rule
from alexnet_pl.config.schema import Optim


class SGD2012(torch.optim.Optimizer):
    """Stochastic gradient descent with the learning rate inside the velocity (paper, section 5; cuda-convnet).

        v <- momentum v - lr (weight_decay w + gradient)
        w <- w + v

    `torch.optim.SGD` keeps the learning rate outside. At a constant rate both take the same steps. When the rate
    changes, the old velocity goes on for some ten steps here, as in the original. A rate of 0 freezes: neither velocity
    nor decay moves the weights, and the velocity stays.

    torch's fused kernel needs one pass over the memory instead of four. It gets -1 as the learning rate outside, and
    -lr as the factor of the gradient (1 - dampening).
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update once; parameters without a gradient stay as they are. Return the closure's result."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not weights or not group["lr"]:
                continue
            for w in weights:
                velocity = self.state[w].get("velocity")
                if velocity is None:
                    self.state[w]["velocity"] = torch.zeros_like(w)
                elif velocity.stride() != w.stride():  # from a checkpoint of another memory format
                    self.state[w]["velocity"] = torch.empty_like(w).copy_(velocity)
            # The kernel has no velocity at momentum 0, and ignores dampening: there the rate is an ordinary one.
            outside, dampening = (-1.0, 1 + group["lr"]) if group["momentum"] else (group["lr"], 0.0)
            sgd(
                weights,
                [_with_strides(w.grad, w) for w in weights if w.grad is not None],
                [self.state[w]["velocity"] for w in weights],
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=outside,
                dampening=dampening,
                nesterov=False,
                maximize=False,
                fused=True,
            )
        return loss


def _with_strides(t: Tensor, like: Tensor) -> Tensor:
    """Return a tensor in the memory format of another, because the fused kernel ignores strides."""
    return t if t.stride() == like.stride() else torch.empty_like(like).copy_(t)


def freeze(net: nn.Module, cfg: Optim) -> None:
    """Turn gradients off in the frozen layers, which keeps them out of the optimiser."""
    for layer in cfg.frozen:
        net.get_submodule(layer).requires_grad_(False)


def build_optimizer(net: nn.Module, cfg: Optim) -> torch.optim.Optimizer:
    """Return the optimiser of a net, without parameters that need no gradient.

    Weights and biases are groups. Layers with milestones or a decay of their own have groups of their own.
    """
    prefixes = [*(f"{layer}." for layer in (*own_schedules(cfg), *cfg.layer_decay)), ""]
    groups: list[dict[str, Any]] = []
    grouped: set[str] = set()
    for prefix in dict.fromkeys(prefixes):
        decay = cfg.layer_decay.get(prefix[:-1], cfg.weight_decay)
        for kind in ("weight", "bias"):
            named = {
                name: p
                for name, p in net.named_parameters()
                if name.startswith(prefix) and name.endswith(kind) and name not in grouped and p.requires_grad
            }
            grouped |= set(named)
            decays = kind == "weight" or cfg.decay_biases
            groups.append(
                {
                    "name": f"{prefix}{kind}",
                    "params": list(named.values()),
                    "lr": cfg.lr * (1 if kind == "weight" else cfg.bias_lr_mult),
                    "weight_decay": decay if decays else 0.0,
                }
            )
    rule = SGD2012 if cfg.name is Rule.sgd_2012 else torch.optim.SGD
    return rule([g for g in groups if g["params"]], lr=cfg.lr, momentum=cfg.momentum)


# ------------------------------------------------------------------------------------------------ schedules


def own_schedules(cfg: Optim) -> dict[str, tuple[list[float], list[float]]]:
    """Return milestones and factors of each layer whose weights have a schedule of their own."""
    return {layer: (each.milestones, each.factors) for each in cfg.layer_lr for layer in each.layers}


def lr_factor(cfg: Optim, group: str, time: float) -> float:
    """Return the factor of a group's starting rate, at a time in the schedule's unit.

    Args:
        group: weight or bias; conv1.weight for a layer with a group of its own.
    """

    def latest(milestones: list[float], factors: list[float]) -> float | None:
        passed = bisect_right(milestones, time + 1e-9)  # a share of the run need not be exact in binary
        return factors[passed - 1] if passed else None

    own = latest(*own_schedules(cfg).get(group.partition(".")[0], ([], [])))
    if group.endswith("bias"):
        if own == 0:
            return 0.0
        factor = latest(cfg.bias_lr_milestones, cfg.bias_lr_factors)
    else:
        factor = latest(cfg.lr_milestones, cfg.lr_factors) if own is None else own
    return 1.0 if factor is None else factor


def lr_schedule(optimizer: torch.optim.Optimizer, cfg: Optim, time: Callable[[int], float]) -> LambdaLR:
    """Return the schedule of milestones, by epoch or by share of the run, to be stepped after each update.

    Args:
        time: updates made -> epochs (schedule=epochs) or share of the run (schedule=shares).
    """

    def factor_of(group: str) -> Callable[[int], float]:
        return lambda updates: lr_factor(cfg, group, time(updates))

    return LambdaLR(optimizer, [factor_of(group["name"]) for group in optimizer.param_groups])


def plateau_schedule(optimizer: torch.optim.Optimizer, cfg: Optim) -> ReduceLROnPlateau:
    """Return the paper's rule (section 5): divide all rates by ten when the validation error stops improving.

    Step it with the validation error after each validation. It cuts `plateau_cuts` times at most (2012: 3).
    """
    least = [group["lr"] * 10.0**-cfg.plateau_cuts for group in optimizer.param_groups]
    return ReduceLROnPlateau(
        optimizer,
        factor=0.1,
        patience=cfg.plateau_patience - 1,  # torch cuts when patience is exceeded
        threshold=0.0,
        min_lr=[rate * (1 - 1e-9) for rate in least],
        eps=min(least) * 1e-6,  # a change this small is not one: rounding would make a cut too many
    )
