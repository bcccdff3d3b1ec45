"""The recipes of 2012 compose to the numbers in the notes of the released code, which their headers point to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alexnet_pl import ROOT
from alexnet_pl.config.schema import as_dict
from alexnet_pl.errors import ConfigError
from alexnet_pl.runs.config import check_config
from alexnet_pl.training.optim import lr_factor
from tests.helpers.runs import run_config

CONV, FULL = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6"), ("fc6", "fc7", "fc8")
ALL = CONV + FULL

# (layers, epochs that are over, rate of their weights then)
NOTED: dict[str, list[tuple[tuple[str, ...], float, float]]] = {
    "finetune": [  # layer-params-146-2012-2011.cfg
        (("conv1",), 0, 1e-4), (ALL[1:], 0, 1e-3), (("fc8",), 0.25, 1e-2), (("fc8",), 8.9, 1e-2), (("fc8",), 9, 1e-3),
        (("conv1",), 4.9, 1e-4), (("conv1",), 5, 1e-5), (("conv1",), 6.9, 1e-5), (("conv1",), 7, 0),
        (ALL[1:], 21.9, 1e-3), (ALL[1:], 22, 1e-4), (ALL[1:], 41.9, 1e-4), (ALL[1:], 42, 1e-5), (("conv1",), 53, 0),
    ],
    "six_conv": [  # layer-params-146-2011.cfg
        (CONV, 0, 1e-3), (FULL, 0, 1e-2), (FULL, 5.9, 1e-2), (FULL, 6, 1e-3), (CONV, 7.8, 1e-3),
    ],
    "fall2009": [  # layer-params-141-2009-half.cfg
        (ALL, 0, 1e-2), (ALL, 5.5, 1e-2), (ALL, 5.7, 1e-3), (ALL, 12.7, 1e-3), (ALL, 12.9, 1e-4), (ALL, 17.5, 1e-4),
        (("conv1", "conv2"), 17.7, 1e-5), (("conv1", "conv2"), 20.5, 0), (ALL[2:], 24.8, 1e-4), (ALL[2:], 25, 1e-5),
    ],
    "released_2012": [  # layer-params-145.cfg
        (ALL, 24.9, 1e-2), (ALL, 25, 1e-3), (ALL, 51, 1e-4), (("conv1",), 67, 1e-5), (("conv1",), 72, 0),
        (ALL[1:], 78.9, 1e-4), (ALL[1:], 79, 1e-5),
    ],
}  # fmt: skip
LENGTH = {"finetune": (54, 38), "six_conv": (8, None), "fall2009": (28, 18), "released_2012": (91, 67)}
"""Epochs, and those with colour noise"""
BIASES = {"finetune": 0.02, "six_conv": 0.02, "fall2009": 0.002, "released_2012": 0.02}
"""Their rate at the end"""


@pytest.mark.parametrize("name", NOTED)
def test_a_recipe_has_the_noted_rates(name: str):
    cfg = run_config(f"experiment={name}", "pretrained=null")
    layers = [layer for layer in ALL if layer != "conv6" or name != "released_2012"]
    assert (cfg.trainer.max_epochs, cfg.data.color_noise_until) == LENGTH[name]
    for some, epoch, rate in NOTED[name]:
        for layer in set(some) & set(layers):
            assert cfg.optim.lr * lr_factor(cfg.optim, f"{layer}.weight", epoch) == pytest.approx(rate), (layer, epoch)
    last = cfg.optim.lr * cfg.optim.bias_lr_mult * lr_factor(cfg.optim, "fc8.bias", LENGTH[name][0] - 1)
    assert last == pytest.approx(BIASES[name])
    assert check_config(as_dict(cfg), Path("config.yaml"), "") == as_dict(cfg), "what a run's folder holds is read back"


@pytest.mark.parametrize(
    "file", [f"experiment/{name}" for name in NOTED] + ["optim/released_145", "experiment/one_gpu"]
)
def test_its_header_names_file_and_line(file: str):
    head = (ROOT / "conf" / f"{file}.yaml").read_text().split("\n\n")[0].split("\ndefaults:")[0]
    said = re.sub(r"\n#\s*", " ", head)
    assert re.search(
        r"layers/layer-params-[\w-]+\.cfg, lines \d+ to \d+|layers/layer-params-[\w-]+\.cfg, lines \d+", said
    )


@pytest.mark.slow
def test_the_sweeps_take_them():
    assert run_config("sweep=fall2009", "experiment=fall2009", "data=shapes").trainer.max_epochs == 28
    assert run_config("sweep=pretrain", "experiment=six_conv", "data=shapes").optim.layer_lr == [], "from nothing"
    small = run_config("experiment=finetune", "scale=small", "pretrained=null").optim
    assert (small.layer_lr, small.lr_milestones) == ([], [0.6, 0.85])


@pytest.mark.slow
def test_mistakes_in_schedules_of_layers():
    def said(*overrides: str) -> str:
        with pytest.raises(ConfigError) as error:
            run_config("model=convnet", *overrides)
        return str(error.value)

    own = "optim.layer_lr=[{{layers: [{}], milestones: {}, factors: {}}}]"
    assert "must be of one length" in said(own.format("conv1", [1, 2], [0.1]))
    assert "must rise and be 0 or more" in said(own.format("conv1", [2, 1], [0.1, 1]))
    assert "optim.layer_lr names conv9, which the net does not have" in said(own.format("conv9", [1], [0.1]))
    assert "conv1 has two schedules" in said(own.format("conv1, conv1", [1], [0.1]))
    assert "optim.lr_milestones=[0.0] must rise and be above 0" in said(
        "optim.lr_milestones=[0]", "optim.lr_factors=[1]"
    )
    assert "optim.frozen names fc6" in said("optim.frozen=[fc6]")
    assert "nothing would train" in said("optim.frozen=[conv1,conv2,conv3,fc10]")


@pytest.mark.parametrize("own", [{"layers": ["conv1"]}, 3, {"layers": "conv1", "milestones": [1], "factors": [1]}])
def test_a_damaged_schedule_in_a_runs_folder_is_told(own: object):
    plain = as_dict(run_config("model=convnet"))
    plain["optim"]["layer_lr"] = [own]
    with pytest.raises(ConfigError, match=r"config\.yaml is damaged: optim\.layer_lr is"):
        check_config(plain, Path("config.yaml"), "remove it")
