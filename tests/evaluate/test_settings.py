"""What evaluate is asked for is checked before weights are fetched or read."""

from __future__ import annotations

from pathlib import Path

import pytest

from alexnet_pl.errors import ConfigError
from alexnet_pl.evaluate.settings import Settings, find_members


@pytest.mark.parametrize("word", ["torchvision", "caffe:net.caffemodel", "net.pth", "net.onnx", "net.safetensors"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(weights=["best"], data=Path()), "--weights chooses a run's checkpoints"),
        (Settings(), "say with --data which packed dataset"),
        (Settings(data=Path("away")), "away is no folder: make one"),
        (Settings(data=Path()), r"\. is no packed store"),
    ],
    ids=["checkpoint", "no data", "no folder", "no store"],
)
def test_published_weights_need_a_store(
    word: str, settings: Settings, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        find_members([Path(word)], settings)
