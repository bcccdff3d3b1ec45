"""AlexNet through the whole command: the real net for a few steps, and a small one that is stopped and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from alexnet_pl.data import datasets
from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.runs.run import Run
from alexnet_pl.training.module import ImageClassifier
from tests.helpers.processes import Process
from tests.helpers.runs import run_config

SMALL = "model.widths={conv1: 4, conv2: 4, conv3: 4, conv4: 4, conv5: 4, fc6: 8, fc7: 8}"


@pytest.mark.slow
def test_the_papers_net_trains_end_to_end(tmp_path: Path):
    """All 57 million parameters (10 classes), on generated images enlarged to 256 and cropped to 224."""
    process = Process(
        tmp_path,
        "alexnet_pl.train",
        "experiment=alexnet",
        "data.batch_size=8",
        "train_error_window=8",
        "stuck_after_steps=2",
        "train_eval_images=8",
        "logger=csv",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=3",
        "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1",
    )
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    (folder,) = (tmp_path / "runs" / "alexnet").iterdir()
    run = Run(folder)
    assert run.status == "done"
    assert [row["images_seen"] for row in run.metrics] == [8, 16, 24, 24, 24]
    assert 1.5 < run.metrics[0]["train/loss"] < 4, "near ln 10 = 2.3; biases of 1 and dropout add some noise"
    assert "val/error" in run.metrics[-2]
    assert run.done["metrics"]["test/error"] == pytest.approx(run.metrics[-1]["test/error"]), "by ten views"
    checkpoint = torch.load(run.last, weights_only=True, mmap=True)
    assert sum(p.numel() for p in checkpoint["state_dict"].values()) == 60_965_224 - 990 * 4097
    assert checkpoint["config"]["model"]["lrn"] == ["conv1", "conv2"]


class SaveAt(pl.Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(
    ("optim", "dropout"),
    [
        ("released_170", "inverted"),
        *(pytest.param(optim, "mask", marks=pytest.mark.slow) for optim in ("paper", "torch_sgd")),
    ],
)
def test_resumed_in_mid_epoch_is_bit_equal(optim: str, dropout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Crops, flips, colours, dropout masks, velocities and the schedule all go on where they were."""
    monkeypatch.setattr(datasets, "SHAPES_SPLITS", {"train": (1000, 1), "val": (100, 2)})
    cfg = run_config(
        "model=released_2012", SMALL, f"optim={optim}", f"model.dropout={dropout}",
        "data.resize=72", "data.crop_size=67", "data.random_flip=true", "data.batch_size=16", "train_eval_images=0",
        "data.color_noise=released_2012",
    )  # fmt: skip
    cfg.optim.plateau_patience = 1

    def fit(*callbacks: pl.Callback, ckpt_path: Path | None = None) -> tuple[ImageClassifier, list[float]]:
        datamodule = ImageDataModule(cfg)
        classifier = ImageClassifier(cfg, datamodule.input_size)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=3,
            limit_train_batches=6,
            limit_val_batches=1,
            num_sanity_val_steps=0,
            logger=False,
            callbacks=list(callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(classifier, datamodule, ckpt_path=ckpt_path)
        return classifier, [group["lr"] for group in trainer.optimizers[0].param_groups]

    whole, rates = fit(SaveAt(8, tmp_path / "at8.ckpt"))
    torch.manual_seed(12345)
    resumed, rates_again = fit(ckpt_path=tmp_path / "at8.ckpt")
    assert rates == rates_again
    for (name, p), q in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q), name
    if optim == "released_170":
        assert rates[-2:] == pytest.approx([0.01 * 0.004, 0.02 * 0.1]), "the run is in its last quarter"
