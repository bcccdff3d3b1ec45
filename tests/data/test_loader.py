"""Batches from a packed store: the right images, in order, read ahead, counted exactly by any number of processes."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from alexnet_pl import cpu
from alexnet_pl.config.choices import ColorNoise, OnDevice
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.data import augment, loader, on_device, store
from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.errors import ConfigError, Interrupted, TrainingError
from alexnet_pl.prepare.options import Options
from alexnet_pl.prepare.prepare import prepare
from alexnet_pl.runs.run import Run
from alexnet_pl.training.module import ImageClassifier
from tests.helpers.commands import Command
from tests.helpers.runs import assert_same_training, run_config
from tests.training import test_resume

SIZE, CLASSES = 40, 13
COUNTS = {"train": 8, "val": 3}  # of each class


@pytest.fixture(scope="module", params=["raw", pytest.param("jpeg", marks=pytest.mark.slow)])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 13 classes: each has a colour of its own, and each of its images a shade of that."""
    folder = tmp_path_factory.mktemp(request.param)
    for split, count in COUNTS.items():
        for label in range(CLASSES):
            place = folder / "source" / split / f"class{label:02d}"
            place.mkdir(parents=True)
            for i in range(count):
                noise = np.random.default_rng([label, i]).integers(0, 8, (SIZE, SIZE, 3))
                colour = np.array([label * 18, i * 25, 200 - label * 10])
                Image.fromarray((noise + colour).astype(np.uint8)).save(place / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FILES_PER_SHARD", 10)  # several parts, the last one short
        prepare(folder / "source", folder / "store", Options(size=SIZE, form=request.param), Console(quiet=True))
    return folder / "store"


def open_split(packed: Path, split: str = "train") -> loader.PackedDataset:
    return loader.PackedDataset(store.require(packed), split)


def as_saved(packed: Path, name: str, split: str = "train") -> np.ndarray:
    return np.asarray(Image.open(packed.parent / "source" / split / name))


def test_rows_are_the_images_of_their_names(packed: Path):
    dataset = open_split(packed)
    names = store.require(packed).index("train")["name"].to_pylist()
    rows = torch.randperm(len(names), generator=augment.stream(3))[:40]
    images = dataset.read(rows)
    assert images.dtype == torch.uint8
    worst = 0 if store.require(packed).plan.form == "raw" else 12  # JPEG is not exact
    for image, row in zip(images, rows.tolist(), strict=True):
        assert int(names[row][5:7]) == dataset.labels[row]
        difference = image.numpy().astype(int) - as_saved(packed, names[row])
        assert np.abs(difference).max() <= worst


def batches(dataset: loader.PackedDataset, log: list[Tensor] | None = None) -> loader.BatchLoader:
    def transform(images: Tensor, draws: augment.Draws) -> Tensor:
        if log is not None:
            log.append(images)
        return images.float() + draws.divisor

    def draw(step: int, part: loader.BatchSlice) -> augment.Draws:
        return augment.Draws(divisor=step)

    order = torch.randperm(len(dataset), generator=augment.stream(5))
    return loader.BatchLoader(dataset, lambda: order, len(order), 9, transform, torch.device("cpu"), draw=draw)


def test_reading_ahead_keeps_the_order_and_the_numbers_of_the_batches(packed: Path):
    dataset = open_split(packed)
    dataset.workers = 4
    order = torch.randperm(len(dataset), generator=augment.stream(5))
    given = list(batches(dataset))
    assert [len(labels) for _, labels, _ in given] == [9] * 11 + [5]
    for step, ((images, labels, _), rows) in enumerate(zip(given, order.split(9), strict=True)):
        assert torch.equal(labels, dataset.labels[rows])
        assert torch.equal(images, dataset.read(rows).float() + step)


def test_the_threads_that_read_make_the_random_choices(packed: Path):
    """So that a GPU's come with its images. What they are does not depend on the thread: see test_datamodule.py."""
    order, drawers = torch.arange(40), set[str]()

    def draw(step: int, part: loader.BatchSlice) -> augment.Draws:
        drawers.add(threading.current_thread().name)
        return augment.Draws(shift=torch.full((part.last - part.first, 3), float(step)))

    few = loader.BatchLoader(
        open_split(packed), lambda: order, 40, 9, lambda images, draws: draws.shift, torch.device("cpu"),
        loader.Replica(1, 2), draw,
    )  # fmt: skip
    shifts = [(shift.unique().item(), len(shift)) for shift, *_ in few]
    assert shifts == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 2)]
    assert drawers
    assert all(name.startswith("images") for name in drawers)


@pytest.mark.gpu
def test_a_gpu_gets_the_same_images_while_it_computes(packed: Path):
    """Also while its memory is used again and again."""
    dataset = loader.PackedDataset(store.require(packed), "train", pinned=True)
    order = torch.randperm(len(dataset), generator=augment.stream(5))
    heavy = torch.ones(2000, 2000, device="cuda")

    def transform(images: Tensor, draws: augment.Draws) -> Tensor:
        return images.float() + 0 * (heavy @ heavy)[0, 0]

    on_gpu = loader.BatchLoader(dataset, lambda: order, len(order), 9, transform, torch.device("cuda", 0))
    for images, rows in zip([images for images, *_ in on_gpu], order.split(9), strict=True):
        assert torch.equal(images.cpu(), open_split(packed).read(rows).float())


@pytest.mark.gpu
@pytest.mark.parametrize("choice", OnDevice)
def test_a_gpu_trains_on_the_same_batches_as_a_cpu(packed: Path, choice: OnDevice):
    """Drawn and gathered in another thread and stream."""
    cfg = run_config(
        "model=convnet", "model.input_size=32", "data=imagenet", f"data.root={packed}", "data.color_noise=paper",
        "data.random_flip=true", "data.batch_size=16",
    )  # fmt: skip
    there = replace(cfg, data=replace(cfg.data, on_device=choice))
    here, gpus = ImageDataModule(cfg), ImageDataModule(there, torch.device("cuda", 0))
    for images in (here, gpus):
        images.setup("fit")
    for (inputs, labels, _), (expected, its_labels, _) in zip(
        gpus.train_dataloader(), here.train_dataloader(), strict=True
    ):
        assert inputs.is_cuda
        assert torch.equal(inputs.cpu(), expected)
        assert torch.equal(labels.cpu(), its_labels)


@pytest.mark.parametrize(("images", "processes"), [(128, 1), (128, 4), (27, 2), (3, 4), (5, 3)])
def test_slices_of_a_batch_are_torchs_chunks(images: int, processes: int):
    slices = [loader.Replica(rank, processes).slice_of(images) for rank in range(processes)]
    rows = torch.arange(images)
    chunks = [chunk.tolist() for chunk in rows.chunk(processes)]
    assert [rows[part.first : part.last].tolist() for part in slices] == chunks + [[]] * (processes - len(chunks))
    assert {(part.of, part.full) for part in slices} == {(images, len(chunks[0]))}
    assert slices[0].times(10) == (0, 10 * len(chunks[0]), 10 * images, 10 * len(chunks[0]))


def test_a_resumed_epoch_goes_on_with_the_next_batch(packed: Path):
    first, second = batches(open_split(packed)), batches(open_split(packed))
    whole = []
    for batch in first:
        whole.append(batch)
        if len(whole) == 4:
            second.load_state_dict(first.state_dict())
    rest = list(second)
    assert len(rest) == len(whole) - 4
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[4:], rest, strict=True))
    assert len(list(second)) == len(whole), "the epoch after it is whole"


def test_an_epoch_left_early_leaves_no_thread_behind(packed: Path):
    before = threading.active_count()
    for number, _ in enumerate(batches(open_split(packed))):
        if number == 2:
            break
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


class Slow(loader.InMemoryDataset):
    """A set whose images take their time."""

    workers = 1

    def read(self, rows: Tensor) -> Tensor:
        time.sleep(0.05)
        return super().read(rows)


def test_the_threads_of_a_process_stay_on_its_gpu(monkeypatch: pytest.MonkeyPatch):
    """Of several GPUs, a new thread is on the first, whoever started it."""
    gpu, calls = torch.device("cuda", 1), list[tuple[str, torch.device]]()

    def set_device(device: torch.device) -> None:
        calls.append((threading.current_thread().name, device))

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(device=device))
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(loader.BatchLoader, "_read_to_gpu", lambda self, copies, *each: self._read(*each))
    monkeypatch.setattr(loader.BatchLoader, "_wait_for", lambda self, batch: batch.result())
    slow = Slow(torch.zeros(6, 2, 2, 3, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64))
    few = loader.BatchLoader(slow, lambda: torch.arange(6), 6, 1, lambda images, draws: images, gpu)
    read = few._read_ahead([(torch.tensor([row]), row, loader.Replica().slice_of(1)) for row in range(3)])
    assert len(list(read)) == 3
    assert calls == [("images_0", gpu)]


def test_waiting_is_measured_and_what_a_gpu_still_has_to_do_is_none(monkeypatch: pytest.MonkeyPatch):
    slow = Slow(torch.zeros(6, 2, 2, 3, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64))
    few = loader.BatchLoader(slow, lambda: torch.arange(6), 6, 1, lambda images, draws: images, torch.device("cpu"))
    assert len(list(few)) == 6
    assert 0.25 < few.wait_seconds < 3, "six times 0.05 s, one after the other"
    monkeypatch.setattr(few, "_is_device_busy", lambda: True)
    assert len(list(few)) == 6
    assert few.wait_seconds < 0.05, "each epoch counts anew"


def test_a_store_cut_short_is_refused_and_one_damaged_under_way_is_named(packed: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(packed, copy)
    images = open_split(copy)
    part = copy / store.require(copy).parts["train"][0].file
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=rf"{part.name} has [\d,]+ bytes instead of [\d,]+: copy the store again"):
        open_split(copy)
    with pytest.raises(TrainingError, match="prepare --verify"):
        images.read(torch.arange(10))
    part.unlink()
    with pytest.raises(ConfigError, match="is missing"):
        open_split(copy)


# ------------------------------------------------------------------------------------------------ through a run

NET = ["model=alexnet", "model.widths={conv1: 4, conv2: 4, conv3: 4, conv4: 4, conv5: 4, fc6: 8, fc7: 8}"]


def configuration(packed: Path) -> Config:
    return run_config(
        "experiment=released_2012", *NET, "data=imagenet", f"data.root={packed}", "data.resize=72",
        "model.input_size=67", "data.batch_size=16", "train_eval_images=20", "logger=csv",
    )  # fmt: skip


def test_the_configuration_takes_classes_and_size_from_the_store(packed: Path):
    cfg = configuration(packed)
    assert (cfg.data.num_classes, cfg.model.num_classes, cfg.data.size) == (CLASSES, CLASSES, SIZE)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.num_classes=12"], "data.num_classes=12, but the store in data.root=.* has 13"),
        (["data.size=256"], "data.size=256, but the store in data.root=.* has 40"),
        (["data.store=other"], "data.store=other, but the store in data.root=.* has "),
        (
            ["test_views=10", "data.crop_size=40", "data.resize=40"],
            "test_views=10 needs images larger than their crops",
        ),
        (["data.resize=32", "data.crop_size=40"], r"data\.crop_size=40 must lie between 8 and the image's 32 pixels"),
    ],
)
def test_what_contradicts_the_store_is_refused(packed: Path, overrides: list[str], sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        run_config("model=convnet", "data=imagenet", f"data.root={packed}", *overrides)


def test_a_store_without_validation_images_trains_without(packed: Path, tmp_path: Path):
    alone = tmp_path / "alone"
    prepare(packed.parent / "source" / "train", alone, Options(size=32), Console(quiet=True))
    with pytest.raises(ConfigError, match=r"holds no validation images: prepare it with --hold-out 0\.1"):
        run_config("data=imagenet", f"data.root={alone}")
    cfg = run_config("data=imagenet", f"data.root={alone}", "trainer.limit_val_batches=0")
    images = ImageDataModule(cfg)
    images.setup("fit")
    assert len(images.train) == CLASSES * COUNTS["train"]


def test_a_store_that_is_not_finished_is_refused(packed: Path, tmp_path: Path):
    (tmp_path / "plan.json").write_bytes((packed / "plan.json").read_bytes())
    with pytest.raises(ConfigError, match="is not finished: run its prepare command again"):
        run_config("data=imagenet", f"data.root={tmp_path}")


def test_the_mean_and_the_colours_are_the_stores(packed: Path):
    datamodule = ImageDataModule(configuration(packed))
    datamodule.setup("fit")
    images = datamodule.train.read(torch.arange(len(datamodule.train))).double()
    mean = augment.resize(images.mean(0).float()[None], 72)[0][2:69, 2:69]
    torch.testing.assert_close(datamodule.mean, mean)
    covariance = torch.cov(images.reshape(-1, 3).T, correction=0)
    torch.testing.assert_close(
        datamodule.colors.vectors.T @ datamodule.colors.std.square().diag() @ datamodule.colors.vectors, covariance
    )


def test_a_limited_evaluation_is_a_fair_sample(packed: Path):
    """The store holds one class after the other; the first batch of an evaluation does not."""
    images = ImageDataModule(configuration(packed))
    images.setup("fit")
    val, subset = images.val_dataloader()
    _, labels, _ = next(iter(val))
    assert len(labels[:13].unique()) > 6
    assert sum(len(labels) for _, labels, _ in subset) == 20


def reference_counts(cfg: Config) -> tuple[float, float]:
    """Top-1 and top-5 error of the untrained net, one image at a time in float64."""
    images = ImageDataModule(cfg)
    images.setup("fit")
    net = ImageClassifier(cfg, images.input_size).eval().double()
    wrong = wrong5 = 0
    for row in range(len(images.val)):
        image = images.centre_input(images.val.read(torch.tensor([row]))).double()
        best = net(image)[0].argsort(descending=True).tolist()
        wrong += best[0] != int(images.val.labels[row])
        wrong5 += int(images.val.labels[row]) not in best[:5]
    return wrong / len(images.val), wrong5 / len(images.val)


@pytest.mark.parametrize("packed", ["raw"], indirect=True)
@pytest.mark.timeout(60)
def test_validation_counts_every_image_once_where_processes_do_not_divide_them(packed: Path):
    """39 images on two processes."""
    cfg = configuration(packed)
    images = ImageDataModule(cfg)
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.validate(ImageClassifier(cfg, images.input_size), images, verbose=False)
    results = trainer.callback_metrics
    assert trainer.world_size == 2
    error, top5_error = reference_counts(cfg)
    assert results["val/error"].item() == pytest.approx(error, abs=1e-7)
    assert results["val/top5_error"].item() == pytest.approx(top5_error, abs=1e-7)


@pytest.mark.parametrize("batch", [3, pytest.param(7, marks=pytest.mark.slow)])
def test_a_run_from_a_store_is_resumed_bit_for_bit(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
):
    """Stopped in the middle of an epoch, or at its end; read by other threads then, all at once."""
    monkeypatch.chdir(tmp_path)
    over = [
        "data=imagenet", f"data.root={packed}", "data.batch_size=16", "data.color_noise=paper", "optim=released_170",
        "trainer.max_epochs=2", "trainer.limit_val_batches=1",
    ]  # fmt: skip
    whole = test_resume.fit(tmp_path / "whole", over, monkeypatch)
    with pytest.raises(Interrupted):
        test_resume.fit(tmp_path / "stopped", [*over, "data.workers=1"], monkeypatch, stop_in=batch)
    stopped = test_resume.fit(tmp_path / "stopped", [*over, "data.workers=3", "data.on_device=always"], monkeypatch)
    assert_same_training(stopped, whole)
    left, right = stopped.done["metrics"], whole.done["metrics"]
    assert left == right
    assert "val/top5_error" in left


@pytest.mark.parametrize("count", [2, 256])
def test_a_store_in_the_devices_memory_gives_the_same_batches(
    packed: Path, monkeypatch: pytest.MonkeyPatch, count: int
):
    """Training with all that is random, validation, and the training subset."""
    monkeypatch.setattr(on_device, "CHUNK", count)
    cfg = configuration(packed)
    cfg.data.color_noise = ColorNoise.paper
    there, files = (
        ImageDataModule(replace(cfg, data=replace(cfg.data, on_device=OnDevice.always))),
        ImageDataModule(cfg),
    )
    for images in (there, files):
        images.setup("fit")
    assert isinstance(files.train, loader.PackedDataset)
    assert isinstance(there.train, loader.InMemoryDataset)
    assert isinstance(there.val, loader.InMemoryDataset)
    assert torch.equal(there.mean, files.mean)
    pairs = zip(
        [there.train_dataloader(), *there.val_dataloader()], [files.train_dataloader(), *files.val_dataloader()],
        strict=True,
    )  # fmt: skip
    for ours, theirs in pairs:
        for (images, labels, part), (expected, its_labels, its_part) in zip(ours, theirs, strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, its_labels)
            assert part == its_part


def test_a_store_larger_than_the_memory_is_refused(packed: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu, "memory", lambda: 100_000)
    split = open_split(packed)
    with pytest.raises(ConfigError, match=r"are 0\.000499 GB, and the device has 0\.0001 GB free"):
        on_device.place(split, torch.device("cpu"), OnDevice.always)
    assert on_device.place(split, torch.device("cpu"), OnDevice.if_it_fits) is split


def test_a_run_is_not_continued_on_another_store(packed: Path, tmp_path: Path):
    """The store may move, but images, size and form are its own."""
    cfg = configuration(packed)
    run = Run(tmp_path / "run")
    run.start(as_dict(cfg), [])
    cfg.data.root = "/moved"
    run.refuse_another(as_dict(cfg))
    cfg.data.store = "0123456789abcdef-40-raw"
    with pytest.raises(ConfigError, match=r"data\.store was .* and is now 0123456789abcdef-40-raw"):
        run.refuse_another(as_dict(cfg))


@pytest.mark.parametrize("name", ["val.parquet", "mean.npy"])
def test_a_damaged_index_or_mean_is_named(packed: Path, tmp_path: Path, name: str):
    copy = tmp_path / "copy"
    shutil.copytree(packed, copy)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = bytes(range(20))
    (copy / name).write_bytes(data)
    with pytest.raises(ConfigError, match=f"{name} is damaged: copy the store again"):
        open_split(copy)


@pytest.mark.slow
def test_a_signal_in_the_test_at_the_end_is_heard(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    over = ["model=alexnet", "data=imagenet", f"data.root={packed}", "trainer.max_epochs=1", "test_views=10"]
    step = ImageClassifier.test_step

    def stopped(self: ImageClassifier, *args: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        step(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ImageClassifier, "test_step", stopped)
        with pytest.raises(Interrupted, match="training is done and saved: the same command continues"):
            test_resume.fit(tmp_path / "run", over, monkeypatch)
    run = test_resume.fit(tmp_path / "run", over, monkeypatch)
    assert {"val/error", "train/epoch_error", "test/error"} <= set(run.done["metrics"])
    assert sum("test/error" in row for row in run.metrics) == 1


def test_a_run_from_a_store_reports_its_waiting_and_ends_with_ten_views(packed: Path, train: Command, tmp_path: Path):
    result = train(
        "experiment=released_2012", *NET, "data=imagenet", f"data.root={packed}", "data.resize=72",
        "model.input_size=67", "data.batch_size=16", "trainer.max_epochs=2", "logger=csv", "name=own",
        "train_error_window=52",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "runs" / "own").iterdir()
    run = Run(folder)
    epochs = [row for row in run.metrics if "train/epoch_error" in row]
    assert all(0 <= row["data_wait"] < 1 and row["images_per_second"] > 0 for row in epochs)
    assert all(0 <= row["val/top5_error"] <= row["val/error"] for row in epochs)
    assert run.done["metrics"]["test/top5_error"] <= run.done["metrics"]["test/error"]
    assert "test, 10 views averaged: error" in result.stdout
