"""Every layout in small, built here: names, labels and bytes come back as they were put in, and mistakes are told."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from alexnet_pl import ROOT
from alexnet_pl.data.sources import Source, find
from alexnet_pl.errors import ConfigError

IDS = {"n03000684": 1, "n01440764": 2, "n02102040": 3}  # the devkit's numbers are not in the order of the names
WNIDS = sorted(IDS)
TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT, TRUTH = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"
SHARDS, VAL_SHARD = [f"train-0000{i}-of-00002.parquet" for i in range(2)], "validation-00000-of-00001.parquet"
Images = dict[str, bytes]


def data(name: str) -> bytes:
    """Some bytes, others for each name, of 0 to 3000; a few are whole tar blocks."""
    rng = np.random.default_rng(list(name.encode()))
    return rng.bytes(int(rng.choice([0, 1, 512, 1024, rng.integers(3000)])))


TRAIN = {f"{wnid}/{wnid}_{n}.JPEG": data(f"{wnid}_{n}") for wnid in WNIDS for n in (2, 10, 1, 33, 4)}
VAL = {f"ILSVRC2012_val_{n:08d}.JPEG": data(f"val{n}") for n in range(1, 8)}
VAL_WNIDS = dict(zip(VAL, [WNIDS[i] for i in (2, 0, 1, 1, 0, 2, 2)], strict=True))
VAL_SORTED = {f"{VAL_WNIDS[name]}/{name}": content for name, content in VAL.items()}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def train_tar(**more: Images) -> bytes:
    """A tar of a tar per class; neither classes nor images are sorted."""
    inner = {w: {k.partition("/")[2]: v for k, v in TRAIN.items() if k.startswith(w)} for w in IDS} | more
    return tar({f"{wnid}.tar": tar(files | {"._x.JPEG": b"mac"} if files else {}) for wnid, files in inner.items()})


def meta_mat() -> bytes:
    """As the real one: a struct array of all synsets, of which those without children are the classes."""
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height"]
    rows = [(i, wnid, f"a {wnid}, b", "what it is", 0, [], 0, 5) for wnid, i in IDS.items()]
    rows.append((4, "n00001740", "entity", "all of it", 3, [1, 2, 3], 5, 0))
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": np.array(rows, dtype=[(name, object) for name in [*fields, "num_train_images"]])})
    return buffer.getvalue()


def devkit() -> dict[str, bytes]:
    truth = "".join(f"{IDS[wnid]}\n" for wnid in VAL_WNIDS.values())
    return {
        f"ILSVRC2012_devkit_t12/data/{TRUTH}": truth.encode(),
        "ILSVRC2012_devkit_t12/data/meta.mat": meta_mat(),
    }


def official(root: Path) -> Path:
    files = {
        TRAIN_TAR: train_tar(),
        "ILSVRC2012_img_train_t3.tar": b"not looked into",
        VAL_TAR: tar({name: VAL[name] for name in reversed(VAL)}),
        DEVKIT: tar(devkit(), "w:gz"),
    }
    return put(root, files)


def image_folder(root: Path) -> Path:
    hidden = {
        ".DS_Store": b"",
        "n01440764/.DS_Store": b"",
        "n01440764/._x.jpg": b"",
        ".cache/x.jpg": b"",
        "top.jpg": b"",
    }
    put(root / "train", TRAIN | hidden | {"n01440764/list.txt": b"no image"})
    put(root / "val", VAL_SORTED | {".DS_Store": b""})
    return root


def solution() -> bytes:
    rows = "".join(f"{name[:-5]},{wnid} 1 2 3 4 {wnid} 5 6 7 8\n" for name, wnid in reversed(VAL_WNIDS.items()))
    return f"ImageId,PredictionString\n{rows}".encode()


def kaggle(root: Path) -> Path:
    put(root / "ILSVRC/Data/CLS-LOC/train", TRAIN)
    put(root / "ILSVRC/Data/CLS-LOC/val", VAL)
    put(root / "ILSVRC/Data/CLS-LOC/test", {"ILSVRC2012_test_00000001.JPEG": b"its class is hidden"})
    put(root / "ILSVRC/Annotations", {"CLS-LOC/val/x.xml": b""})
    return put(root, {SOLUTION: solution(), "LOC_synset_mapping.txt": b"n01440764 tench, Tinca tinca"})


def tiny_files() -> dict[str, bytes]:
    train = {f"train/{wnid}/images/{wnid}_{n}.JPEG": data(f"{wnid}_{n}") for wnid in WNIDS for n in range(4)}
    val = {f"val/images/val_{n}.JPEG": data(f"val_{n}") for n in range(5)}
    notes = "".join(f"val_{n}.JPEG\t{WNIDS[n % 3]}\t0\t32\t44\t62\n" for n in (4, 1, 0, 3, 2))
    boxes = {f"train/{wnid}/{wnid}_boxes.txt": b"" for wnid in WNIDS}
    texts = {"wnids.txt": "\n".join(IDS).encode(), "val/val_annotations.txt": notes.encode()}
    return train | val | boxes | texts | {"test/images/test_0.JPEG": b"its class is hidden"}


def tiny_unpacked(root: Path) -> Path:
    put(root / "tiny-imagenet-200", tiny_files())
    return root


def tiny_zip(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    with zipfile.ZipFile(root / "tiny-imagenet-200.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("__MACOSX/tiny-imagenet-200/._wnids.txt", b"mac")
        for name, content in tiny_files().items():
            out.writestr(f"tiny-imagenet-200/{name}", content)
    return root


def shard(file: Path, rows: list[tuple[str | None, bytes | None, int | None]], names: list[str], image="image") -> None:
    """Rows of (path, bytes, label), in row groups of 70; bytes None is a null cell."""
    cells = [None if content is None else {"bytes": content, "path": path} for path, content, _ in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = pa.array([label for *_, label in rows], pa.int64())
    table = pa.table({image: pa.array(cells, kind), "label": labels})
    if names:
        features = {image: {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=70)


HUB_NAMES = ["tench", "dog", "chair"]  # in the order of labels, which is no order of names
HUB_TRAIN = [(f"pic_{n}.JPEG", data(f"pic_{n}"), (n * n) % 3 if n else 2) for n in range(300)]
HUB_VAL = [(f"pic_{n}.JPEG", data(f"other_{n}"), n % 3) for n in range(8, 0, -1)]


def hub(root: Path) -> Path:
    for i in range(2):
        shard(root / f"data/train-0000{i}-of-00002.parquet", HUB_TRAIN[150 * i :][:150], HUB_NAMES)
    shard(root / "data/validation-00000-of-00001.parquet", HUB_VAL, HUB_NAMES)
    shard(root / "data/test-00000-of-00001.parquet", [("x", b"", -1)], HUB_NAMES)
    return root


Expected = dict[str, tuple[bytes, str]]
"""Of each image, by its name, in order: its bytes and the name of its class."""


def by_folder(files: Images) -> Expected:
    return {name: (files[name], name.partition("/")[0]) for name in sorted(files)}


FLAT_VAL = {name: (VAL[name], VAL_WNIDS[name]) for name in sorted(VAL)}
TINY_TRAIN = by_folder({n[6:]: c for n, c in tiny_files().items() if n.startswith("train/") and n.endswith("JPEG")})
TINY_VAL = {f"images/val_{n}.JPEG": (data(f"val_{n}"), WNIDS[n % 3]) for n in range(5)}
HUB_EXPECTED = [{path: (content, HUB_NAMES[label]) for path, content, label in rows} for rows in (HUB_TRAIN, HUB_VAL)]
LAYOUTS: dict[Callable[[Path], Path], tuple[str, list[str], Expected, Expected]] = {
    official: ("ILSVRC2012 tar files", WNIDS, by_folder(TRAIN), FLAT_VAL),
    image_folder: ("image folder", WNIDS, by_folder(TRAIN), by_folder(VAL_SORTED)),
    kaggle: ("Kaggle's layout", WNIDS, by_folder(TRAIN), FLAT_VAL),
    hub: ("Parquet shards", HUB_NAMES, *HUB_EXPECTED),
    tiny_unpacked: ("Tiny ImageNet", WNIDS, TINY_TRAIN, TINY_VAL),
    tiny_zip: ("Tiny ImageNet", WNIDS, TINY_TRAIN, TINY_VAL),
}
layouts = pytest.mark.parametrize("build", LAYOUTS, ids=lambda build: build.__name__)


def holds(source: Source, name: str, expected: Expected) -> None:
    split = source.splits[name]
    assert list(split.names) == list(expected)
    assert split.labels.dtype == np.int64
    assert [source.classes[label] for label in split.labels] == [word for _, word in expected.values()]
    assert len(split) == len(expected)
    assert list(split.read(0, len(split))) == [content for content, _ in expected.values()]


@layouts
def test_layout(build: Callable[[Path], Path], tmp_path: Path):
    kind, classes, train, val = LAYOUTS[build]
    source = find(build(tmp_path / "set"))
    assert (source.kind, source.classes, list(source.splits)) == (kind, classes, ["train", "val"])
    holds(source, "train", train)
    holds(source, "val", val)
    assert source.describe() == f"found: {kind}, 3 classes, {len(train)} train, {len(val)} val"


@layouts
def test_ranges_are_read_from_many_threads(build: Callable[[Path], Path], tmp_path: Path):
    split = find(build(tmp_path / "set")).splits["train"]
    whole = [content for content, _ in LAYOUTS[build][2].values()]
    n = len(whole)
    ranges = [(start, min(start + size, n)) for size in (1, n // 4, n // 2 + 1) for start in range(0, n, 1 + n // 20)]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda r: list(split.read(*r)), ranges))
    assert read == [whole[start:stop] for start, stop in ranges]
    assert list(split.read(3, 3)) == []


PLACES = [
    (kaggle, "ILSVRC"),
    (kaggle, "ILSVRC/Data"),
    (kaggle, "ILSVRC/Data/CLS-LOC"),
    (hub, "data"),
    (image_folder, ".."),
    (official, ".."),
    (tiny_zip, ".."),
    (tiny_zip, "tiny-imagenet-200.zip"),
    (tiny_unpacked, "tiny-imagenet-200"),
]


@pytest.mark.parametrize(("build", "place"), PLACES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_folder_above_or_below_will_do(build: Callable[[Path], Path], place: str, tmp_path: Path, monkeypatch):
    """And a root relative to where the command is run."""
    kind, _, train, val = LAYOUTS[build]
    root = build(tmp_path / "set") / place
    source = find(root)
    assert source.kind == kind
    holds(source, "train", train)
    holds(source, "val", val)
    if root.is_dir():
        monkeypatch.chdir(root)
        assert find(Path(".")).describe() == source.describe()


def test_shards_in_a_folder_of_another_name(tmp_path: Path):
    (hub(tmp_path) / "data").rename(tmp_path / "shards")
    holds(find(tmp_path), "train", HUB_EXPECTED[0])


def test_tar_with_its_val_in_a_folder(tmp_path: Path):
    official(tmp_path)
    put(tmp_path, {VAL_TAR: tar({f"./val/{name}": content for name, content in VAL.items()})})
    holds(find(tmp_path), "val", FLAT_VAL)


def test_tar_with_a_macs_hidden_files(tmp_path: Path):
    whole = {"n1.tar": tar({"._a.JPEG": b"", "a.JPEG": b"a"}), "n2.tar": tar({"b.JPEG": b"b"})}
    put(tmp_path, {TRAIN_TAR: tar({"._n1.tar": b"no tar"} | whole)})
    holds(find(tmp_path), "train", {"n1/a.JPEG": (b"a", "n1"), "n2/b.JPEG": (b"b", "n2")})


def test_tar_of_train_alone(tmp_path: Path):
    official(tmp_path)
    (tmp_path / VAL_TAR).unlink()
    (tmp_path / DEVKIT).unlink()
    assert find(tmp_path).describe() == "found: ILSVRC2012 tar files, 3 classes, 15 train, no val"


MIXTURES = {
    "flat val, devkit in tar": ("val", {DEVKIT: tar(devkit(), "w:gz")}, "image folder"),
    "flat val, devkit unpacked": ("val", devkit(), "image folder"),
    "flat val, Kaggle's table": ("val", {SOLUTION: solution()}, "Kaggle's layout"),
    "flat validation": ("validation", devkit(), "image folder"),
    "val in tar": ("", devkit() | {VAL_TAR: tar(VAL)}, "image folder"),
    "val in tar, test flat": ("test", devkit() | {VAL_TAR: tar(VAL)}, "image folder"),
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_train_unpacked_and_val_as_it_came(mixture: str, tmp_path: Path):
    folder, files, kind = MIXTURES[mixture]
    put(tmp_path, files)
    put(tmp_path / "train", TRAIN)
    if folder:
        put(tmp_path / folder, VAL)
    source = find(tmp_path)
    assert source.kind == kind
    holds(source, "train", by_folder(TRAIN))
    holds(source, "val", FLAT_VAL)


def test_what_is_unpacked_goes_before_its_tar(tmp_path: Path):
    """Sorted into classes by the usual script, val needs no devkit, also where the tar files were kept."""
    image_folder(tmp_path)
    put(tmp_path, {TRAIN_TAR: b"cut", VAL_TAR: b"cut"})
    assert find(tmp_path).describe() == "found: image folder, 3 classes, 15 train, 7 val"


def test_an_empty_folder_does_not_hide_the_tar(tmp_path: Path):
    official(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    assert find(tmp_path).describe() == "found: ILSVRC2012 tar files, 3 classes, 15 train, 7 val"


def test_test_is_val_where_there_is_no_other(tmp_path: Path):
    put(tmp_path / "train", TRAIN)
    put(tmp_path / "test", VAL_SORTED)
    holds(find(tmp_path), "val", by_folder(VAL_SORTED))
    (tmp_path / "test").rename(tmp_path / "other")
    put(tmp_path / "test/images", VAL)
    assert "val" not in find(tmp_path).splits  # its classes are hidden, as they often are


def test_tiny_imagenet_with_val_sorted_into_classes(tmp_path: Path):
    """What many scripts make of it; wnids.txt stays."""
    root = tiny_unpacked(tmp_path) / "tiny-imagenet-200"
    for name, (_, wnid) in TINY_VAL.items():
        (root / "val" / wnid).mkdir(exist_ok=True)
        (root / "val" / name).rename(root / "val" / wnid / Path(name).name)
    (root / "val/images").rmdir()
    assert find(tmp_path).describe() == "found: image folder, 3 classes, 12 train, 5 val"


def test_classes_without_train(tmp_path: Path):
    put(tmp_path, TRAIN | {"README.md": b"", "preview.png": b""})
    source = find(tmp_path)
    assert source.describe() == "found: image folder, 3 classes, 15 train, no val"
    holds(source, "train", by_folder(TRAIN))


def test_images_by_suffix_at_any_depth_and_through_links(tmp_path: Path):
    put(tmp_path / "elsewhere", {"more/b.jpg": b"linked", "c.jpg": b"a link of its own"})
    suffixes = [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".JPEG", ".Png"]
    put(tmp_path / "set/train/a", {f"x{suffix}": suffix.encode() for suffix in suffixes} | {"x.txt": b"", "jpg": b""})
    put(tmp_path / "set/train/a-b", {"deep/er/y.jpg": b"y", "deep/.er/z.jpg": b"hidden"})
    (tmp_path / "set/train/linked").symlink_to(tmp_path / "elsewhere/more")
    (tmp_path / "set/train/a-b/c.jpg").symlink_to(tmp_path / "elsewhere/c.jpg")
    source = find(tmp_path / "set")
    train = {f"a/x{suffix}": (suffix.encode(), "a") for suffix in suffixes} | {
        "a-b/deep/er/y.jpg": (b"y", "a-b"),
        "a-b/c.jpg": (b"a link of its own", "a-b"),
        "linked/b.jpg": (b"linked", "linked"),
    }
    assert source.classes == ["a", "a-b", "linked"]
    holds(source, "train", {name: train[name] for name in sorted(train)})


def test_shards_without_names_and_paths(tmp_path: Path):
    """Classes are called by their numbers, images by file and row, and an image that is not there is empty."""
    rows = [(None, data(str(n)), n % 3) for n in range(100)]
    rows[71] = (None, None, 2)
    rows[78:80] = [(None, b"", 3), (None, b"", 4)]
    shard(tmp_path / "train-00000-of-00002.parquet", rows[:80], [], image="img")
    shard(tmp_path / "train-00001-of-00002.parquet", rows[80:], [], image="img")
    shard(tmp_path / "val-00000-of-00001.parquet", [("same", b"1", 0), ("same", b"2", 4)], [], image="img")
    source = find(tmp_path)
    assert source.classes == ["0", "1", "2", "3", "4"]
    train = source.splits["train"]
    assert train.names[79:81] == ["train-00000-of-00002.parquet:79", "train-00001-of-00002.parquet:0"]
    assert list(train.read(70, 73)) == [rows[70][1], b"", rows[72][1]]
    assert list(source.splits["val"].names) == ["val-00000-of-00001.parquet:0", "val-00000-of-00001.parquet:1"]


def test_order_of_classes_is_torchvisions(tmp_path: Path):
    from torchvision.datasets import ImageFolder

    names = ["b", "B", "a-b", "a", "n10", "n9", "é"]
    put(tmp_path / "train", {f"{name}/{n}.jpg": b"" for name in names for n in range(2)})
    theirs, source = ImageFolder(str(tmp_path / "train")), find(tmp_path)
    assert source.classes == theirs.classes
    labels = {os.path.relpath(path, tmp_path / "train"): label for path, label in theirs.samples}
    train = source.splits["train"]
    assert dict(zip(train.names, train.labels, strict=True)) == labels


def test_official_labels_are_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Their ImageNet unpacks the same tars; checksums are those of the real files, so skipped."""
    from torchvision.datasets import ImageNet, imagenet

    monkeypatch.setattr(imagenet, "_verify_archive", lambda *args: None)
    source = find(official(tmp_path))
    for name, split in source.splits.items():
        theirs = ImageNet(str(tmp_path), split=name)
        assert theirs.wnids == source.classes
        labels = {os.path.basename(path): label for path, label in theirs.samples if "._" not in path}
        assert labels == {os.path.basename(n): label for n, label in zip(split.names, split.labels, strict=True)}


def test_hold_out_is_spread_over_each_classs_names(tmp_path: Path):
    """k = share * n rounded, at most n - 1: the middle one of each of k equal stretches."""
    counts = {"a": 10, "b": 4, "c": 1, "d": 2}
    put(tmp_path, {f"{name}/{i}.jpg": f"{name}{i}".encode() for name, n in counts.items() for i in range(n)})

    def held(share: float) -> str:
        source = find(tmp_path, share)
        train, val = source.splits["train"], source.splits["val"]
        assert sorted([*train.names, *val.names]) == sorted(find(tmp_path).splits["train"].names)
        for split in (train, val):
            assert [content.decode() for content in split.read(0, 99)] == [n[0] + n[2] for n in split.names]
            assert [source.classes[label] for label in split.labels] == [n[0] for n in split.names]
        assert set(train.labels) == {0, 1, 2, 3}
        return " ".join(n[0] + n[2] for n in val.names)

    assert held(0.2) == "a2 a7 b2"
    assert held(0.3) == "a1 a5 a8 b2 d1"
    assert held(0.99) == "a0 a1 a2 a3 a5 a6 a7 a8 a9 b0 b2 b3 d1"


def test_hold_out_from_shards(tmp_path: Path):
    """The rows of val are scattered over the row groups, and by name, not by row."""
    hub(tmp_path)
    (tmp_path / "data/validation-00000-of-00001.parquet").unlink()
    source = find(tmp_path, 0.1)
    assert source.describe() == "found: Parquet shards, 3 classes, 270 train, 30 val"
    for split in source.splits.values():
        assert list(split.read(0, len(split))) == [HUB_EXPECTED[0][name][0] for name in split.names]
        assert list(split.read(11, 25)) == [HUB_EXPECTED[0][name][0] for name in split.names[11:25]]
        assert split.names == sorted(split.names, key=list(HUB_EXPECTED[0]).index)
    for word in ("tench", "dog"):
        names = sorted(name for name, (_, said) in HUB_EXPECTED[0].items() if said == word)
        stretch = len(names) / round(0.1 * len(names))
        held = [names[int((i + 0.5) * stretch)] for i in range(round(0.1 * len(names)))]
        val = source.splits["val"]
        assert sorted(n for n, label in zip(val.names, val.labels, strict=True) if HUB_NAMES[label] == word) == held


def cut(root: Path, name: str, end: int) -> None:
    (root / name).write_bytes((root / name).read_bytes()[:end])


def second(root: Path, name: str) -> int:
    """Where the second member of a tar begins: cut there, a tar looks whole but for its end."""
    with tarfile.open(root / name) as file:
        return file.getmembers()[1].offset


def without(root: Path, *names: str) -> None:
    for name in names:
        (root / name).unlink()


def unpacked_devkit(root: Path, name: str, content: bytes) -> None:
    put(root, devkit() | {f"ILSVRC2012_devkit_t12/data/{name}": content})


def row(file: str, *rows: tuple[str | None, bytes | None, int | None], names: list[str] = HUB_NAMES):
    return lambda root: shard(root / "data" / file, list(rows), names)


MISTAKES: list[tuple[Callable[[Path], Path], Callable[[Path], object], float, str]] = [
    # tars
    (official, lambda r: cut(r, TRAIN_TAR, -12_000), 0, "img_train.tar is damaged or cut short"),
    (official, lambda r: cut(r, TRAIN_TAR, 10_240), 0, "img_train.tar is damaged or cut short"),
    (official, lambda r: cut(r, TRAIN_TAR, second(r, TRAIN_TAR)), 0, "img_train.tar is damaged or cut short"),
    (official, lambda r: cut(r, TRAIN_TAR, 0), 0, "img_train.tar is damaged or cut short"),
    (official, lambda r: put(r, {TRAIN_TAR: tar(VAL)}), 0, "holds no tar per class"),
    (official, lambda r: put(r, {TRAIN_TAR: train_tar(n1={})}), 0, "class n1 has no training images"),
    (official, lambda r: without(r, TRAIN_TAR), 0, "looked for ILSVRC2012_img_train.tar and train/"),
    (official, lambda r: cut(r, VAL_TAR, second(r, VAL_TAR)), 0, "img_val.tar is damaged or cut short"),
    (official, lambda r: cut(r, VAL_TAR, -12_000), 0, "img_val.tar is damaged or cut short"),
    (official, lambda r: put(r, {VAL_TAR: tar({"x.JPEG": b""})}), 0, "7 val images, but there are 1"),
    (official, lambda r: without(r, DEVKIT), 0, "put ILSVRC2012_devkit_t12.tar.gz"),
    (official, lambda r: cut(r, DEVKIT, 500), 0, "devkit_t12.tar.gz is damaged or cut short"),
    (official, lambda r: put(r, {DEVKIT: tar({}, "w:gz")}), 0, f"(it holds no {TRUTH})"),
    (official, lambda r: unpacked_devkit(r, "meta.mat", b""), 0, "devkit_t12 is damaged or cut short"),
    (official, lambda r: unpacked_devkit(r, "meta.mat", meta_mat()[:-50]), 0, "devkit_t12 is damaged or cut short"),
    (official, lambda r: unpacked_devkit(r, TRUTH, b"1 2 3 4 1 1 1"), 0, "devkit_t12 has class number 4, which"),
    (official, lambda r: unpacked_devkit(r, TRUTH, b"1 2"), 0, "classes of 2 val images, but there are 7"),
    (official, lambda r: (r / DEVKIT[:-7]).mkdir(), 0, "data/meta.mat cannot be read: No such file"),
    # folders
    (image_folder, lambda r: put(r, {"val/n09/x.jpg": b""}), 0, "val has class n09, which the training images lack"),
    (image_folder, lambda r: (r / "train/n09").mkdir(), 0, "class n09 has no training images"),
    (image_folder, lambda r: put(r, {"val/x.jpg": b""}), 0, "half sorted into classes: x.jpg, for one"),
    (image_folder, lambda r: (r / "train").rename(r / "trian"), 0, "holds val/ but no train/"),
    (lambda r: put(r / "train", {"n1.tar": b""}).parent, lambda r: None, 0, "images, found n1.tar"),
    (lambda r: image_folder(r / "a").parent, lambda r: put(r, {"b/x.jpg": b""}), 0, "is a folder of data sets"),
    (image_folder, lambda r: (r / "val").rename(r / "x") and (r / "val").mkdir(), 0, "its val split holds no images"),
    (image_folder, lambda r: put(r, {"store.json": b""}), 0, "set is a packed store already, give the source"),
    (image_folder, lambda r: put(r, {"plan.json": b""}), 0, "set is a packed store already, give the source"),
    (image_folder, tiny_zip, 0, "set holds Tiny ImageNet and image folder: give a folder with one of them"),
    (image_folder, lambda r: None, 0.1, "has a val split of 7 images: leave out --hold-out 0.1"),
    (image_folder, lambda r: None, 1.0, "--hold-out 1 must be a share"),
    (lambda r: put(r, TRAIN), lambda r: None, 0.05, "--hold-out 0.05 is less than one image of every class"),
    # Kaggle
    (kaggle, lambda r: without(r, SOLUTION), 0, "does not give the classes of its images"),
    (kaggle, lambda r: put(r, {"ILSVRC/Data/CLS-LOC/val/x.JPEG": b""}), 0, "give the class of image x: both"),
    (kaggle, lambda r: without(r, f"ILSVRC/Data/CLS-LOC/val/{min(VAL)}"), 0, "missing image ILSVRC2012_val_00000001"),
    (kaggle, lambda r: cut(r, SOLUTION, 145), 0, "and 4 more"),
    (kaggle, lambda r: cut(r, SOLUTION, 40), 0, "LOC_val_solution.csv is damaged or cut short"),
    # shards
    (hub, lambda r: without(r, f"data/{SHARDS[0]}"), 0, f"lacks {SHARDS[0]} of 2 shards: download them"),
    (lambda r: r, row("train-00000-of-00009.parquet"), 0, "train-00003-of-00009.parquet and 5 more of 9 shards"),
    (hub, row("train-00000-of-00009.parquet"), 0, "holds train shards of more than one download"),
    (hub, row("train-00000-of-00002-0f3b.parquet"), 0, "holds train shards of more than one download"),
    (hub, lambda r: without(r, *(f"data/{name}" for name in SHARDS)), 0, "but no train-*.parquet"),
    (hub, lambda r: cut(r, f"data/{VAL_SHARD}", -1), 0, f"{VAL_SHARD} is damaged or cut short"),
    (hub, row(VAL_SHARD, ("x", b"", 1), ("x", b"", -1)), 0, f"{VAL_SHARD}, row 1: no label"),
    (hub, row(VAL_SHARD, ("x", b"", 1), ("x", b"", None)), 0, f"{VAL_SHARD}, row 1: no label"),
    (hub, row(VAL_SHARD, ("x", b"", 3)), 0, "has label 3, but its files name 3 classes"),
    (hub, row(VAL_SHARD), 0, "its val split holds no images"),
    (hub, lambda r: pq.write_table(pa.table({"a": [1]}), r / "data" / VAL_SHARD), 0, "has columns a: int64; needed"),
    # Tiny ImageNet
    (tiny_zip, lambda r: cut(r, "tiny-imagenet-200.zip", -300), 0, "tiny-imagenet-200.zip is damaged or cut short"),
    (tiny_zip, lambda r: zipfile.ZipFile(r / "tiny-imagenet-200.zip", "w").close(), 0, "it holds no wnids.txt"),
    (tiny_unpacked, lambda r: without(r, "tiny-imagenet-200/val/images/val_3.JPEG"), 0, "missing image images/val_3"),
    (tiny_unpacked, lambda r: without(r, "tiny-imagenet-200/val/val_annotations.txt"), 0, "No such file or directory"),
    (
        tiny_unpacked,
        lambda r: cut(r, "tiny-imagenet-200/val/val_annotations.txt", 5),
        0,
        "val_annotations.txt is damaged",
    ),
    (tiny_unpacked, lambda r: put(r, {"tiny-imagenet-200/wnids.txt": b"n01440764"}), 0, "has class n02102040, which"),
]


@pytest.mark.parametrize(("build", "damage", "hold_out", "said"), MISTAKES, ids=[said[:40] for *_, said in MISTAKES])
def test_mistakes_are_named_in_one_sentence(build, damage, hold_out: float, said: str, tmp_path: Path):
    root = build(tmp_path / "set")
    damage(root)
    with pytest.raises(ConfigError) as error:
        find(root, hold_out)
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value) or "--hold-out" in said
    assert "\n" not in str(error.value)


def unknown(root: Path) -> Path:
    return put(root, {"a/x.jpg": b"", "b/notes.txt": b"", "c": b"", "d": b"", "e": b"", "f": b"", ".hidden": b""})


def test_nothing_is_recognised(tmp_path: Path):
    """What is there is told, and what was looked for."""
    for root, said in [
        (
            unknown(tmp_path / "unknown"),
            "unknown holds no images in a layout that is known: found a, b, c, d, e, …; ",
        ),
        (put(tmp_path / "empty", {".x": b""}), "empty holds no images in a layout that is known: found nothing; "),
        (tmp_path / "gone", "gone does not exist: "),
    ]:
        with pytest.raises(ConfigError) as error:
            find(root)
        assert said in str(error.value)
        for layout in (TRAIN_TAR, "train/<class>/", "folders <class>/", "train-*.parquet", "tiny-imagenet-200.zip"):
            assert layout in str(error.value).partition("looked for")[2]
    for file in ("c", "a/x.jpg"):
        with pytest.raises(ConfigError, match=f"{file} is a file: give the folder that holds it"):
            find(tmp_path / "unknown" / file)


def test_an_image_lost_after_it_was_listed_names_its_file(tmp_path: Path):
    for build, name in ((official, TRAIN_TAR), (image_folder, "train/n01440764/n01440764_1.JPEG")):
        root = build(tmp_path / build.__name__)
        train = find(root).splits["train"]
        os.truncate(root / name, 600) if build is official else without(root, name)
        with pytest.raises(ConfigError, match=name):
            list(train.read(0, len(train)))


def test_a_lost_image_of_the_working_folder_is_named_as_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(image_folder(tmp_path / "set") / "train")
    train = find(Path(".")).splits["train"]
    Path(train.names[0]).unlink()
    with pytest.raises(ConfigError, match=f"^{train.names[0]} cannot be read: No such file or directory$"):
        list(train.read(0, 1))


def test_sources_do_not_need_torch():
    code = "import sys, alexnet_pl.data.sources; sys.exit(bool({'torch', 'pyarrow', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


SHARED = ROOT / "../shared/data"
REAL = {
    "ilsvrc-samples": "found: image folder, 43 classes, 43 train, no val",
    "tiny-imagenet-100": "found: Parquet shards, 100 classes, 50,000 train, 5,000 val",
}


@pytest.mark.parametrize("name", REAL)
def test_real_images(name: str):
    if not (SHARED / name).is_dir():
        pytest.skip(f"needs the images of ../shared/data/{name}")
    source = find(SHARED / name)
    assert source.describe() == REAL[name]
    for split in source.splits.values():
        assert [n.partition("/")[0] for n in split.names] == [source.classes[label] for label in split.labels]
        assert all(content.startswith(b"\xff\xd8\xff") for content in split.read(len(split) - 40, len(split)))  # JPEG
