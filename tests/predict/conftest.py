"""A net with random weights, and the command, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet_pl.predict.cli import main
from alexnet_pl.runs.trained import TrainedModel
from tests.helpers.nets import save_checkpoint, untrained_model


@pytest.fixture(scope="module")
def net() -> TrainedModel:
    return untrained_model("convnet", "data.resize=36", "data.crop_size=32", "data.pixel_scale=64")


@pytest.fixture
def run(net: TrainedModel, tmp_path: Path) -> str:
    return str(save_checkpoint(net, tmp_path / "net.ckpt"))


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`predict(RUN, IMAGE, ...)`: exit code, what it printed, and what it complained of."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["alexnet-predict", *map(str, args)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return call
