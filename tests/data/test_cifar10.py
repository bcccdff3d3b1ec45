"""Reading CIFAR-10 in both layouts, small instances of which are built here, and every kind of damage."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from alexnet_pl.data import cifar10
from alexnet_pl.errors import ConfigError
from tests.helpers.commands import Command
from tests.helpers.images import draw_images, encode, write_parquet
from tests.helpers.runs import TINY


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where decoded images stay; of each test its own, or the next run of the tests would decode nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "alexnet_pl"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    for split, n in (("train", 300), ("test", 40)):
        images, labels = draw_images(n)
        write_parquet(
            tmp_path / "hub" / f"{split}-00000-of-00001.parquet", [encode(i, "PNG") for i in images], list(labels)
        )
    return tmp_path / "hub"


def test_parquet(hub: Path):
    expected, labels = draw_images(300)
    for root in (hub, hub.parent):  # the files, or one folder above them
        images, read = cifar10.load(root, "train")
        assert images.dtype == torch.uint8
        np.testing.assert_array_equal(images.numpy(), expected)
        np.testing.assert_array_equal(read.numpy(), labels)


def no_more(*args: object) -> None:
    raise AssertionError("decoded again")


def test_images_are_decoded_once_wherever_they_lie(hub: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    first = cifar10.load(hub, "train")
    (kept,) = cache.iterdir()
    assert kept.name.startswith("cifar10-train-")
    monkeypatch.setattr(cifar10, "_decode", no_more)
    moved = hub.rename(hub.parent / "moved")
    images, labels = cifar10.load(moved, "train")
    assert torch.equal(images, first[0])
    assert torch.equal(labels, first[1])
    images += 1  # they are this process's own
    with pytest.raises(AssertionError, match="decoded again"):
        cifar10.load(moved, "test")


@pytest.mark.parametrize("size", [0, 100, -100])
def test_other_files_and_a_damaged_cache_are_decoded_anew(hub: Path, cache: Path, size: int):
    cifar10.load(hub, "train")
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:size])
    expected, _ = draw_images(300)
    np.testing.assert_array_equal(cifar10.load(hub, "train")[0].numpy(), expected)
    assert kept.stat().st_size == len(whole)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    kept.write_bytes(damaged)
    np.testing.assert_array_equal(cifar10.load(hub, "train")[0].numpy(), expected)
    others = 255 - expected[:7]
    write_parquet(hub / "train-00000-of-00001.parquet", [encode(i, "PNG") for i in others], [0] * 7)
    np.testing.assert_array_equal(cifar10.load(hub, "train")[0].numpy(), others)
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_does_no_harm(hub: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    cache.parent.write_text("a file")
    assert len(cifar10.load(hub, "train")[0]) == 300
    cache.parent.unlink()

    def full(file: object, **arrays: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(cifar10.load(hub, "train")[0]) == 300
    assert list(cache.iterdir()) == []


def test_what_does_not_decode_is_not_kept(hub: Path, cache: Path):
    damage_image(hub)
    with pytest.raises(ConfigError, match="does not decode"):
        cifar10.load(hub, "train")
    assert not cache.exists()


def test_two_processes_may_decode_at_once(hub: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """The other has decoded and written all while this one decodes."""
    decode, others = cifar10._read_shards, []

    def with_another(files: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
        if not others:
            others.append(True)
            others.append(cifar10.load(hub, "train"))
        return decode(files)

    monkeypatch.setattr(cifar10, "_read_shards", with_another)
    images, _ = cifar10.load(hub, "train")
    assert torch.equal(images, others[1][0])
    assert len(list(cache.iterdir())) == 1
    assert torch.equal(cifar10.load(hub, "train")[0], images)


def test_shards_are_read_in_order(tmp_path: Path):
    images, labels = draw_images(6)
    for shard in (0, 1):
        part = slice(3 * shard, 3 * shard + 3)
        write_parquet(
            tmp_path / f"train-0000{shard}-of-00002.parquet",
            [encode(i, "PNG") for i in images[part]],
            list(labels[part]),
        )
    np.testing.assert_array_equal(cifar10.load(tmp_path, "train")[0].numpy(), images)


def test_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The original layout: rows of 3072 bytes, red plane first. Checksums are those of the real files, so skipped."""
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *a: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images, labels = draw_images(60)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for i, name in enumerate(names):
        rows = images[10 * i : 10 * i + 10].transpose(0, 3, 1, 2).reshape(10, 3072)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": labels[10 * i : 10 * i + 10].tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    np.testing.assert_array_equal(cifar10.load(tmp_path, "train")[0].numpy(), images[:50])
    np.testing.assert_array_equal(cifar10.load(tmp_path, "test")[1].numpy(), labels[50:])


def damage_truncated(hub: Path) -> None:
    file = hub / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-500])


def damage_image(hub: Path) -> None:
    write_parquet(
        hub / "train-00000-of-00001.parquet",
        [encode(i, "PNG") for i in draw_images(3)[0]] + [b"no image"],
        [0, 1, 2, 3],
    )


def damage_size(hub: Path) -> None:
    write_parquet(hub / "train-00000-of-00001.parquet", [encode(np.zeros((16, 32, 3), np.uint8), "PNG")], [0])


def damage_labels(hub: Path) -> None:
    write_parquet(hub / "train-00000-of-00001.parquet", [encode(i, "PNG") for i in draw_images(3)[0]], [0, 10, 2])


def damage_empty(hub: Path) -> None:
    write_parquet(hub / "train-00000-of-00001.parquet", [], [])


def damage_columns(hub: Path) -> None:
    pq.write_table(pa.table({"image": [b""], "label": [1]}), hub / "train-00000-of-00001.parquet")


def damage_gone(hub: Path) -> None:
    (hub / "train-00000-of-00001.parquet").unlink()


def damage_pickles(hub: Path) -> None:
    damage_gone(hub)
    (hub / "cifar-10-batches-py").mkdir()
    (hub / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half a file")


DAMAGES = [
    (damage_truncated, "train-00000-of-00001.parquet is damaged or cut short"),
    (damage_image, "train-00000-of-00001.parquet:3: the image does not decode"),
    (
        damage_size,
        "train-00000-of-00001.parquet:0: the image does not decode (an image of 32x16 pixels",
    ),
    (damage_labels, "labels from 0 to 10, but data.num_classes=10"),
    (damage_empty, "train-00000-of-00001.parquet holds no images"),
    (damage_columns, "needed are image: struct"),
    (damage_gone, "holds no CIFAR-10 train set"),
    (damage_pickles, "cannot be read or downloaded"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_damage_is_named_in_one_sentence(hub: Path, damage, said: str):
    from alexnet_pl.config.schema import Config, Data
    from alexnet_pl.data.datamodule import ImageDataModule

    damage(hub)
    cfg = Config(name="x", seed=1, train_error_window=100, train_eval_images=10)
    cfg.data = Data(kind="cifar10", name="cifar10", root=str(hub), num_classes=10)
    with pytest.raises(ConfigError) as error:
        ImageDataModule(cfg).setup("fit")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_set_is_refused(hub: Path, train: Command, tmp_path: Path):
    damage_image(hub)
    result = train("data=cifar10", f"data.root={hub}", *TINY)
    assert result.returncode == 1
    (sentence,) = result.stderr.strip().splitlines()
    assert "parquet:3: the image does not decode" in sentence
    assert not (tmp_path / "runs").exists(), "it did not begin"


def test_trains_on_the_hubs_files(hub: Path, train: Command):
    result = train("data=cifar10", f"data.root={hub}", "trainer.max_epochs=1", "train_eval_images=50", "logger=csv")
    assert result.returncode == 0, result.stderr
    assert "epoch   1/1" in result.stdout
