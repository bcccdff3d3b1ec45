"""Refuse mistakes in the optim group: rates and schedules that cannot be, layers that the net does not have."""

from __future__ import annotations

from collections.abc import Iterator

from alexnet_pl.config.choices import Schedule
from alexnet_pl.config.schema import Config, Optim
from alexnet_pl.config.suggestions import suggest

CUTS = ("lr", "bias_lr")
"""Keys of the schedules of milestones for all layers"""


def optim_rules(c: Config) -> Iterator[str]:
    """Yield a sentence for each rule that is broken."""
    yield from _rate_rules(c.optim)
    yield from _schedule_rules(c)


def layer_rules(o: Optim, layers: list[str]) -> Iterator[str]:
    """Yield a sentence for each layer with a rule that the net does not have, and if no layer is left to train.

    Args:
        layers: the net's layers with weights.
    """
    own = [layer for each in o.layer_lr for layer in each.layers]
    for key, names in (("layer_decay", o.layer_decay), ("layer_lr", own), ("frozen", o.frozen)):
        for name in names:
            if name not in layers:
                yield f"optim.{key} names {name}, which the net does not have: {suggest(name, layers)}"
    if set(layers) <= set(o.frozen):
        yield "optim.frozen names all layers: nothing would train"


def _rate_rules(o: Optim) -> Iterator[str]:
    if not o.lr > 0:
        yield f"optim.lr={o.lr} must be above 0"
    if not 0 <= o.momentum < 1:
        yield f"optim.momentum={o.momentum} must be at least 0 and below 1 (2012: 0.9)"
    if o.weight_decay < 0:
        yield f"optim.weight_decay={o.weight_decay} must not be negative"
    for layer, decay in o.layer_decay.items():
        if not isinstance(decay, int | float) or not decay >= 0:
            yield f"optim.layer_decay.{layer}={decay} must be a number, and not negative"
    if not o.bias_lr_mult > 0:
        yield f"optim.bias_lr_mult={o.bias_lr_mult} must be above 0 (2012: 2)"


def _schedule_rules(c: Config) -> Iterator[str]:
    o, t = c.optim, c.trainer
    cuts = {f"optim.{kind}_": (getattr(o, f"{kind}_milestones"), getattr(o, f"{kind}_factors")) for kind in CUTS}
    own = {f"optim.layer_lr of {', '.join(each.layers)}: ": (each.milestones, each.factors) for each in o.layer_lr}
    for kind, (at, to) in (cuts | own).items():
        if len(at) != len(to):
            yield f"{kind}milestones={at} and factors={to} must be of one length: a factor of lr for each time"
        if at != sorted(set(at)) or (at and (at[0] < 0 or (at[0] == 0 and kind in cuts))):
            yield f"{kind}milestones={at} must rise and be {'0 or more' if kind in own else 'above 0'}"
        if any(share < 0 for share in to):
            yield f"{kind}factors={to} are factors of the rate at the start: they must not be negative"
        if at and o.schedule is Schedule.plateau:
            yield f"{kind}milestones={at} means nothing with optim.schedule=plateau: set it to []"
        if at and o.schedule is Schedule.shares and at[-1] >= 1:
            yield f"{kind}milestones={at} are shares of the run with optim.schedule=shares: they must be below 1"
    alone = [layer for each in o.layer_lr for layer in each.layers]
    for layer in sorted({layer for layer in alone if alone.count(layer) > 1}):
        yield f"{layer} has two schedules of its own in optim.layer_lr: leave one out"
    if o.schedule is Schedule.shares and max(t.max_epochs or -1, t.max_steps or -1) < 0:
        yield "optim.schedule=shares needs the length of the run: set trainer.max_epochs or trainer.max_steps"
    if o.schedule is Schedule.plateau and (o.plateau_patience < 1 or o.plateau_cuts < 1):
        yield "optim.plateau_patience and optim.plateau_cuts must be at least 1"
    if o.schedule is Schedule.plateau and t.limit_val_batches == 0:
        yield "optim.schedule=plateau watches the validation error: trainer.limit_val_batches must be above 0"
