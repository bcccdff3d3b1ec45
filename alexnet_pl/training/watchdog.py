"""Warn of a training loss that does not move or is not finite, with the usual causes and this run's settings.

A net that only guesses has a loss of ln(classes). With the weights of 2012 it stays there for a while. With wrong
settings it stays there for ever, and both look the same at first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytorch_lightning as pl

from alexnet_pl.config.choices import Activation, Dropout, Init, Rule
from alexnet_pl.config.schema import Config
from alexnet_pl.errors import NotFinite
from alexnet_pl.model.specs import LayerSpec, layer_specs

PIXEL_RMS = 60.0
"""Root mean square of natural images minus their mean, in 0..255"""


class Cause(NamedTuple):
    """A usual cause, and whether this run's settings make it likely."""

    name: str
    suspect: bool
    finding: str


class Watchdog(pl.Callback):
    """Check the training loss of the last window once, after `stuck_after_steps` updates, and any that is not finite.

    Args:
        say: prints a line for the user.
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
            self.say(f"    {'!' if cause.suspect else ' '} {cause.name}: {cause.finding}")

    def state_dict(self) -> dict[str, bool]:
        return {"looked": self.looked}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        self.looked = state_dict["looked"]


class Signal(NamedTuple):
    """The size of the signal from layer to layer under the initial weights, as root mean squares."""

    layers: list[LayerSpec]
    """those with weights"""
    gains: list[float]
    """factor of the signal in each of them"""
    pixels: float
    """size of the net's inputs"""
    logits: float
    """size of its outputs"""


def initial_signal(cfg: Config) -> Signal:
    """Estimate the size of the signal under the initial weights."""
    layers = [spec for spec in layer_specs(cfg.model, cfg.data.input_size) if spec.parameters]
    gains = [gain(cfg, spec) for spec in layers]
    pixels = PIXEL_RMS / cfg.data.pixel_scale
    return Signal(layers, gains, pixels, pixels * math.prod(gains))


def causes(cfg: Config) -> list[Cause]:
    """Return the usual causes of a net that guesses or diverges, each with the evidence in the settings."""
    signal = initial_signal(cfg)
    return [
        input_scale(cfg),
        initial_weights(cfg, signal),
        biases(cfg, signal),
        learning_rate(cfg),
        activation(cfg, signal),
        dropout(cfg),
        labels(cfg),
    ]


def input_scale(cfg: Config) -> Cause:
    """Suspect pixels whose size does not suit the initial weights."""
    scale, init = cfg.data.pixel_scale, cfg.model.init
    if init is Init.gaussian:
        wrong = scale > 4
        advice = "is too small for init=gaussian, made for 0..255: set data.pixel_scale=1 or model.init=fan_in"
    else:
        wrong = scale <= 4
        advice = f"is far too large for the weights of init={init.name}: set data.pixel_scale=64"
    verdict = advice if wrong else f"suits init={init.name}"
    return Cause("input scale", wrong, f"(0..255 minus the mean) / {scale:g} {verdict}")


def initial_weights(cfg: Config, signal: Signal) -> Cause:
    """Suspect weights that make the logits far too small or too large."""
    weakest = signal.layers[signal.gains.index(min(signal.gains))]
    std = f" with std {weakest.row.std:g}" if cfg.model.init is Init.gaussian else ""
    return Cause(
        "initial weights",
        not 1e-5 < signal.logits < 100,  # 3e-4 in Figure 1's net, which trains; 0.2 in net 145
        f"from pixels to logits they multiply the signal by {math.prod(signal.gains):.1g}, to about "
        f"{signal.logits:.1g}; the smallest step is {weakest.name}{std}",
    )


def biases(cfg: Config, signal: Signal) -> Cause:
    """Suspect biases of about one together with a weak signal."""
    ones = [s.name for s in signal.layers if s.row.bias >= 0.5] if cfg.model.init is Init.gaussian else []
    drowned = bool(ones) and signal.logits < 0.1
    finding = "they start at 0"
    if ones:
        finding = f"those of {', '.join(ones)} start at {max(s.row.bias for s in signal.layers):g}"
    if drowned:
        finding += ": a weak signal drowns in them (net 145: std 0.03 in conv3 to conv5; Caffe: biases of 0.1)"
    return Cause("biases", drowned, finding)


def learning_rate(cfg: Config) -> Cause:
    """Suspect a rate far from one that trains AlexNet at this input scale."""
    o = cfg.optim
    reference = 0.01 if cfg.data.pixel_scale <= 4 else 0.05
    return Cause(
        "learning rate",
        not reference / 20 <= o.lr <= 4 * reference,
        f"optim.lr={o.lr:g}, biases {o.lr * o.bias_lr_mult:g}, at {cfg.data.batch_size} images a step (2012: 0.01 and "
        "0.02 at 128; a rate that is too high kills relu units at once, for good)",
    )


def activation(cfg: Config, signal: Signal) -> Cause:
    """Suspect units that saturate, and sigmoids."""
    kind = cfg.model.activation
    saturates = kind is not Activation.relu and signal.gains[0] * signal.pixels > 5
    finding = kind.name
    if saturates:
        finding += " is saturated from the first layer on"
    if kind is Activation.sigmoid:
        finding += ", the slowest to leave the start"
    return Cause("activation", saturates or kind is Activation.sigmoid, finding)


def dropout(cfg: Config) -> Cause:
    """Suspect a rate that leaves few units."""
    m, o = cfg.model, cfg.optim
    finding = "none" if m.dropout is Dropout.none else f"{m.dropout.name}, rate {m.dropout_rate:g}"
    if m.dropout is Dropout.inverted and o.name is Rule.sgd_2012 and o.lr >= 0.01:
        finding += ": the learning rate counts four times in the layers above, against mask"
    return Cause("dropout", m.dropout is not Dropout.none and m.dropout_rate > 0.6, finding)


def labels(cfg: Config) -> Cause:
    """Suspect the labels, of which the settings say nothing."""
    return Cause(
        "labels",
        False,
        f"{cfg.model.num_classes} outputs for the {cfg.data.num_classes} classes of data.name={cfg.data.name}; are "
        "images and labels in the same order?",
    )


def gain(cfg: Config, spec: LayerSpec) -> float:
    """Return the factor that a layer's initial weights put on the root mean square of the signal.

    A relu cuts off half of the signal, and so multiplies its mean square by 1/2.
    """
    half = 2 if cfg.model.activation is Activation.relu else 1
    match cfg.model.init:
        case Init.gaussian:
            return spec.row.std * math.sqrt(spec.fan_in / half)
        case Init.fan_in:
            return 1.0
        case Init.torch:  # uniform to 1 / sqrt(fan_in): a standard deviation of a third of that, squared
            return math.sqrt(1 / 3 / half)
