"""A training loss that does not move, or is not finite: said in time, with the usual causes and this run's settings.

A net that only guesses has a loss of ln(classes). With the weights of 2012 it stays there for a while, and with
the wrong settings for ever, which looks the same at first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytorch_lightning as pl

from alexnet_pl.config.choices import Activation, Dropout, Init, Rule
from alexnet_pl.config.schema import Config
from alexnet_pl.errors import NotFinite
from alexnet_pl.model.specs import LayerSpec, layer_specs

PIXELS = 60.0  # root mean square of natural images minus their mean, 0..255


class Cause(NamedTuple):
    """A usual cause, and whether this run's settings speak for it."""

    name: str
    suspect: bool
    says: str


class Watchdog(pl.Callback):
    """Looks at the training loss of the last window, once after `stuck_after_steps` updates; and at one not finite.

    Args:
        say: prints a line where the user looks.
    """

    def __init__(self, cfg: Config, say: Callable[[str], None]) -> None:
        self.cfg, self.say = cfg, say
        self.looked = cfg.stuck_after_steps == 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        if self.looked or trainer.global_step < self.cfg.stuck_after_steps or math.isnan(pl_module.window_loss):
            return
        self.looked = True
        classes = self.cfg.data.num_classes  # outputs beyond them are soon learned to be unused
        guessing = math.log(classes)
        if pl_module.window_loss > 0.98 * guessing:
            self._report(
                f"after {trainer.global_step:,} updates the training loss is {pl_module.window_loss:.3f}, still that "
                f"of guessing (ln {classes} = {guessing:.3f})"
            )

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, NotFinite):
            self._report(f"after {trainer.global_step:,} updates the training loss is not finite")

    def _report(self, finding: str) -> None:
        self.say(f"  warning: {finding}. The usual causes, and this run:")
        for cause in sorted(causes(self.cfg), key=lambda cause: not cause.suspect):
            self.say(f"    {'!' if cause.suspect else ' '} {cause.name}: {cause.says}")

    def state_dict(self) -> dict[str, bool]:
        return {"looked": self.looked}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        self.looked = state_dict["looked"]


def causes(cfg: Config) -> Iterator[Cause]:
    """What commonly keeps a net guessing or makes it diverge, and what the settings say about each."""
    m, d, o = cfg.model, cfg.data, cfg.optim
    layers = [step for step in layer_specs(m, d.input_size) if step.parameters]
    small = d.pixel_scale > 4
    if m.init is Init.gaussian:
        wrong, advice = (
            small,
            "is too small for init=gaussian, made for 0..255: set data.pixel_scale=1 or model.init=fan_in",
        )
    else:
        wrong, advice = not small, f"is far too large for the weights of init={m.init.name}: set data.pixel_scale=64"
    yield Cause(
        "input scale",
        wrong,
        f"(0..255 minus the mean) / {d.pixel_scale:g} {advice if wrong else f'suits init={m.init.name}'}",
    )

    # Each relu layer multiplies the image's part of the signal by about std sqrt(fan_in / 2).
    gains = [gain(cfg, step) for step in layers]
    total = math.prod(gains)
    least = layers[gains.index(min(gains))]
    signal = PIXELS / d.pixel_scale * total
    yield Cause(
        "initial weights",
        not 1e-5 < signal < 100,  # 3e-4 in Figure 1's net, which trains; 0.2 in net 145
        f"from pixels to logits they multiply the signal by {total:.1g}, to about {signal:.1g}; the smallest "
        f"step is {least.name}" + (f" with std {least.row.std:g}" if m.init is Init.gaussian else ""),
    )
    ones = [s.name for s in layers if s.row.bias >= 0.5] if m.init is Init.gaussian else []
    drowns = bool(ones) and signal < 0.1
    yield Cause(
        "biases",
        drowns,
        (f"those of {', '.join(ones)} start at {max(s.row.bias for s in layers):g}" if ones else "they start at 0")
        + (": a weak signal drowns in them (net 145: std 0.03 in conv3 to conv5; Caffe: biases of 0.1)" * drowns),
    )
    reference = 0.01 if d.pixel_scale <= 4 else 0.05
    yield Cause(
        "learning rate",
        not reference / 20 <= o.lr <= 4 * reference,
        f"optim.lr={o.lr:g}, biases {o.lr * o.bias_lr_mult:g}, at {d.batch_size} images a step (2012: 0.01 and "
        "0.02 at 128; a rate that is too high kills relu units at once, for good)",
    )
    saturates = m.activation is not Activation.relu and gains[0] * PIXELS / d.pixel_scale > 5
    yield Cause(
        "activation",
        saturates or m.activation is Activation.sigmoid,
        f"{m.activation.name}" + (" is saturated from the first layer on" if saturates else "")
        + (", the slowest to leave the start" if m.activation is Activation.sigmoid else ""),
    )  # fmt: skip
    inverted = m.dropout is Dropout.inverted and o.name is Rule.sgd_2012 and o.lr >= 0.01
    yield Cause(
        "dropout",
        m.dropout is not Dropout.none and m.dropout_rate > 0.6,
        "none" if m.dropout is Dropout.none else f"{m.dropout.name}, rate {m.dropout_rate:g}"
        + (": the learning rate counts four times in the layers above, against mask" if inverted else ""),
    )  # fmt: skip
    yield Cause(
        "labels",
        False,
        f"{m.num_classes} outputs for the {d.num_classes} classes of data={d.name}; are images and labels in "
        "the same order?",
    )


def gain(cfg: Config, step: LayerSpec) -> float:
    """What a layer's initial weights multiply the root mean square of the signal by, half of it cut off by relu."""
    half = 2 if cfg.model.activation is Activation.relu else 1
    match cfg.model.init:
        case Init.gaussian:
            return step.row.std * math.sqrt(step.fan_in / half)
        case Init.fan_in:
            return 1.0
        case Init.torch:  # uniform to 1 / sqrt(fan_in): a standard deviation of a third of that, squared
            return math.sqrt(1 / 3 / half)
