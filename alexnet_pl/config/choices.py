"""The closed sets of values that a configuration chooses from. schema.py says beside each field what they mean."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any


class Choice(Enum):
    """A closed set of values, shown and typed by their names only; a number is no choice."""

    @staticmethod
    def _generate_next_value_(name: str, *rest: Any) -> str:
        return name

    def __str__(self) -> str:
        return self.name


class Arch(Choice):
    alexnet = auto()
    six_conv = auto()
    convnet = auto()
    conv_local = auto()


class Activation(Choice):
    """Activations with their modules in model/layers.py or torch.nn. To add one, add a line."""

    relu = "ReLU"
    tanh = "Tanh"
    sigmoid = "Sigmoid"
    abs_tanh = "AbsTanh"


class Order(Choice):
    act_lrn_pool = auto()
    act_pool_lrn = auto()
    lrn_act_pool = auto()
    lrn_pool_act = auto()
    pool_act_lrn = auto()
    pool_lrn_act = auto()


class Pooling(Choice):
    overlapping = auto()
    plain = auto()


class Conv1Padding(Choice):
    right_bottom = auto()
    symmetric = auto()
    none = auto()


class LrnAlphaConvention(Choice):
    code = auto()
    paper = auto()


class CompileLrn(Choice):
    on_gpu = auto()
    always = auto()
    never = auto()


class Dropout(Choice):
    none = auto()
    mask = auto()
    inverted = auto()


class DropoutAt(Choice):
    outputs = auto()
    inputs = auto()


class Init(Choice):
    gaussian = auto()
    fan_in = auto()
    torch = auto()


class ParameterNames(Choice):
    layers = auto()
    torchvision = auto()


class PretrainedLayers(Choice):
    conv = auto()
    all = auto()


class Squares(Choice):
    centre = auto()
    torchvision = auto()
    warp = auto()


class OnDevice(Choice):
    if_it_fits = auto()
    always = auto()
    never = auto()


class ColorNoise(Choice):
    off = auto()
    paper = auto()
    released_2012 = auto()


class Rule(Choice):
    sgd_2012 = auto()
    sgd = auto()


class Schedule(Choice):
    epochs = auto()
    shares = auto()
    plateau = auto()


class Scale(Choice):
    paper = auto()
    small = auto()
    smoke = auto()


class LoggerName(Choice):
    wandb = auto()
    tensorboard = auto()
    csv = auto()
    none = auto()


class WandbMode(Choice):
    offline = auto()
    online = auto()
    disabled = auto()


class LogModel(Choice):
    none = auto()
    last = auto()
    best = auto()
