"""One run of the LightningModule against a bare PyTorch loop written from the paper's formulas."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet_pl.config.choices import Arch, Init, LoggerName
from alexnet_pl.config.schema import Config, Data, Logger, Model, Optim, Trainer, as_dict, from_dict
from alexnet_pl.data import augment, datasets
from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.errors import TrainingError
from alexnet_pl.model.build import build_net
from alexnet_pl.runs.run import Run
from alexnet_pl.training import loggers
from alexnet_pl.training.module import ImageClassifier

LR, SCALE, BATCH, BATCHES, EPOCHS = 0.02, 64.0, 16, 10, 2
SETS = {"train": (1000, 1), "val": (50, 2)}


def small_config(**optim: float) -> Config:
    cfg = Config(name="x", seed=5, train_error_window=53, train_eval_images=100)
    cfg.model = Model(name="convnet", arch=Arch.convnet, width=0.25, init=Init.fan_in, num_classes=10, input_size=32)
    cfg.data = Data(kind="shapes", name="shapes", num_classes=10, pixel_scale=SCALE, batch_size=BATCH)
    cfg.optim = Optim(**{"lr": LR, "weight_decay": 0.01} | optim)
    cfg.trainer = Trainer(max_epochs=EPOCHS, devices=1)
    cfg.logger = Logger(name=LoggerName.csv)
    return cfg


def fit(cfg: Config, folder: Path) -> tuple[ImageClassifier, ImageDataModule, list[dict[str, float]]]:
    run = Run(folder)
    run.start(as_dict(cfg), [])
    datamodule = ImageDataModule(cfg)
    classifier = ImageClassifier(cfg, datamodule.input_size)
    trainer = pl.Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=EPOCHS,
        limit_train_batches=BATCHES,
        logger=loggers.MetricsCSV(run),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(classifier, datamodule)
    return classifier, datamodule, run.metrics


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "SHAPES_SPLITS", SETS)  # float64 convolutions are slow: a small set
        yield fit(small_config(), tmp_path_factory.mktemp("run"))


def forward(w: dict[str, Tensor], x: Tensor) -> Tensor:
    x = F.relu(F.max_pool2d(F.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=2), 3, 2, ceil_mode=True))
    x = F.avg_pool2d(F.relu(F.conv2d(x, w["conv2.weight"], w["conv2.bias"], padding=2)), 3, 2, ceil_mode=True)
    x = F.avg_pool2d(F.relu(F.conv2d(x, w["conv3.weight"], w["conv3.bias"], padding=2)), 3, 2, ceil_mode=True)
    return F.linear(x.flatten(1), w["fc10.weight"], w["fc10.bias"])


def test_equals_a_bare_loop(fitted):
    """Weights after 20 steps, the running error of every window, and the errors after each epoch, in float64."""
    classifier, datamodule, rows = fitted
    images, labels = datamodule.train.images, datamodule.train.labels
    mean = images.double().mean(0)

    def net_input(batch: Tensor) -> Tensor:
        return ((batch.double() - mean) / SCALE).permute(0, 3, 1, 2)

    start = build_net(small_config().model, 32, seed=5)
    w = {name: p.detach().double().requires_grad_() for name, p in start.named_parameters()}
    v = {name: torch.zeros_like(p) for name, p in w.items()}
    wrong: list[list[int]] = []
    evaluated = []
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images), generator=augment.stream(5, epoch))
        for i in range(BATCHES):
            rows_ = order[i * BATCH : (i + 1) * BATCH]
            logits = forward(w, net_input(images[rows_]))
            wrong.append((logits.argmax(1) != labels[rows_]).int().tolist())
            gradients = torch.autograd.grad(F.cross_entropy(logits, labels[rows_]), list(w.values()))
            with torch.no_grad():
                for (name, p), g in zip(w.items(), gradients, strict=True):
                    lr, decay = (2 * LR, 0.0) if name.endswith("bias") else (LR, 0.01)
                    v[name] = 0.9 * v[name] - lr * (decay * p + g)
                    p += v[name]
        with torch.no_grad():
            sets = ((datamodule.val.images, datamodule.val.labels), (images[:100], labels[:100]))
            evaluated.append([(forward(w, net_input(x)).argmax(1) != y).double().mean().item() for x, y in sets])

    for name, p in classifier.net.named_parameters():
        torch.testing.assert_close(p.double(), w[name], rtol=1e-5, atol=1e-7)
    # 3 windows of an epoch of 10 batches: a window closes after batches 4, 7 and 10
    edges = [(10 * e + a, 10 * e + b) for e in range(EPOCHS) for a, b in ((0, 4), (4, 7), (7, 10))]
    windows = [list(chain(*wrong[a:b])) for a, b in edges]
    ours = [row["train/error"] for row in rows if "train/error" in row]
    assert ours == pytest.approx([sum(part) / len(part) for part in windows])
    per_epoch = [row for row in rows if "val/error" in row]
    for row, (val, subset), e in zip(per_epoch, evaluated, range(EPOCHS), strict=True):
        assert row["val/error"] == pytest.approx(val, rel=1e-6)
        assert row["train_eval/error"] == pytest.approx(subset, rel=1e-6)
        flat = list(chain(*wrong[10 * e : 10 * e + 10]))
        assert row["train/epoch_error"] == pytest.approx(sum(flat) / len(flat))


def test_rows_stand_on_the_epoch_axis(fitted):
    _, datamodule, rows = fitted
    ends = [4, 7, 10, 10, 14, 17, 20, 20]  # batches seen at each row
    assert [row["images_seen"] for row in rows] == [BATCH * n for n in ends]
    assert [row["epoch"] for row in rows] == [BATCH * n / datamodule.images_per_epoch for n in ends]
    assert all(row["images_per_second"] > 0 for row in rows if "train/error" in row)


def test_a_loss_that_is_not_finite_ends_the_run_before_the_next_update(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) in epoch 1.*optim\.lr=1e\+30"):
        fit(small_config(lr=1e30), tmp_path)


def test_checkpoint_is_plain_and_rebuilds_its_net(fitted, tmp_path: Path):
    classifier, *_ = fitted
    checkpoint: dict = {"state_dict": classifier.state_dict()}
    classifier.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "a.ckpt")
    loaded = torch.load(tmp_path / "a.ckpt", weights_only=True)

    again = ImageClassifier(from_dict(loaded["config"]), 32).double()
    again.load_state_dict(loaded["state_dict"])
    again.on_load_checkpoint(loaded)
    assert again.images_seen == classifier.images_seen == EPOCHS * BATCHES * BATCH
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(again(x), classifier(x))
    assert math.isnan(again.epoch_error())
