"""A hundred small sources in every layout, damaged at random: prepare packs each, or refuses it in one sentence."""

from __future__ import annotations

import io
import os
import pickle
import random
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from alexnet_pl.data import store
from alexnet_pl.data.loader import PackedDataset
from alexnet_pl.prepare import cli
from tests.helpers.fuzz import untouched
from tests.helpers.images import encode, smooth_image

COUNT = 100
CLASSES = ("n01", "n02", "n03")
KINDS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
IMAGES = [encode(np.roll(smooth_image(20 + n, 30 - n), n, 1), KINDS[n % len(KINDS)]) for n in range(10)]
Files = dict[str, bytes]

# ----------------------------------------------------------------------------------------- layouts


def images(chance: random.Random, split: str, count: int) -> Files:
    """Images by `<class>/<name>`, some of each class."""
    return {f"{CLASSES[n % 3]}/{split}_{n}.JPEG": chance.choice(IMAGES) for n in range(count)}


def below(folder: str, files: Files) -> Files:
    return {f"{folder}/{name}": data for name, data in files.items()}


def flat(files: Files) -> Files:
    return {os.path.basename(name): data for name, data in files.items()}


def tar(files: Files, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as out:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def folders(chance: random.Random) -> Files:
    train, val = chance.choice([("train", "val"), ("Train", "Test"), ("seg_train", "seg_test"), ("train", "valid")])
    return below(train, images(chance, "train", 15)) | below(val, images(chance, "val", 6))


def classes(chance: random.Random) -> Files:
    return images(chance, "train", 15)


def official(chance: random.Random) -> Files:
    """The three files of ILSVRC2012."""
    train, val = images(chance, "train", 15), images(chance, "val", 6)
    inner = {f"{c}.tar": tar(flat({k: v for k, v in train.items() if k.startswith(c)})) for c in CLASSES}
    meta, fields = io.BytesIO(), [(name, object) for name in ("ILSVRC2012_ID", "WNID", "num_children")]
    savemat(meta, {"synsets": np.array([(n, c, 0) for n, c in enumerate(CLASSES, 1)], fields)})
    truth = "".join(f"{CLASSES.index(name[:3]) + 1}\n" for name in sorted(val, key=os.path.basename)).encode()
    kit = {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth}
    kit = below("ILSVRC2012_devkit_t12/data", kit)
    files = {"ILSVRC2012_img_train.tar": tar(inner), "ILSVRC2012_img_val.tar": tar(flat(val))}
    return files | (kit if chance.random() < 0.5 else {"ILSVRC2012_devkit_t12.tar.gz": tar(kit, "w:gz")})


def kaggle(chance: random.Random) -> Files:
    val = images(chance, "val", 6)
    rows = "".join(f"{Path(name).stem},{name[:3]} 1 2 3 4\n" for name in val)
    table = {"LOC_val_solution.csv": f"ImageId,PredictionString\n{rows}".encode()}
    return (
        table
        | below("ILSVRC/Data/CLS-LOC/train", images(chance, "train", 15))
        | below("ILSVRC/Data/CLS-LOC/val", flat(val))
    )


def tiny(chance: random.Random) -> Files:
    train = {f"train/{k[:3]}/images/{k[4:]}": v for k, v in images(chance, "train", 15).items()}
    val = images(chance, "val", 6)
    notes = "".join(f"{name[4:]}\t{name[:3]}\t0\t0\t9\t9\n" for name in val).encode()
    texts = {"wnids.txt": "\n".join(CLASSES).encode(), "val/val_annotations.txt": notes}
    return below("tiny-imagenet-200", train | below("val/images", flat(val)) | texts)


def zipped(chance: random.Random) -> Files:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as out:
        for name, data in tiny(chance).items():
            out.writestr(name, data)
    return {"tiny-imagenet-200.zip": buffer.getvalue()}


def parquet(files: Files, column: str) -> bytes:
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": data, "path": name} for name, data in files.items()], cell)
    out = io.BytesIO()
    pq.write_table(pa.table({column: cells, "label": [CLASSES.index(n[:3]) for n in files]}), out, row_group_size=4)
    return out.getvalue()


def shards(chance: random.Random) -> Files:
    val = chance.choice(["validation", "val", "valid", "test"])
    made = {f"train-0000{n}-of-00002.parquet": parquet(images(chance, f"t{n}", 8), "image") for n in range(2)}
    return made | {f"{val}-00000-of-00001.parquet": parquet(images(chance, "val", 6), "image")}


def cifar10(chance: random.Random) -> Files:
    """As the hub has it, with the pickles of the original release beside."""
    rows = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
    pickles = {f"cifar-10-batches-py/data_batch_{n}": pickle.dumps(rows) for n in range(1, 6)}
    splits = {f"plain_text/{s}-00000-of-00001.parquet": parquet(images(chance, s, 9), "img") for s in ("train", "test")}
    return chance.choice([pickles, splits, splits])


LAYOUTS = (folders, classes, official, kaggle, tiny, zipped, shards, cifar10)

# ----------------------------------------------------------------------------------------- damage


def cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size + 1))


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 8, 64]) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def zero(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    start = chance.randrange(len(data) + 1)
    path.write_bytes(data[:start].ljust(len(data), b"\0"))


def grow(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randrange(2000)))


ODD_NAMES = [
    b"caf\xe9.jpg",
    b"\x1b[31m.jpg",
    b"two\nlines.png",
    b"=cmd.jpg",
    b"-1",
    "é.JPEG".encode(),
    b"a" * 250,
    b".x",
]


def rename(path: Path, chance: random.Random) -> None:
    """Give the file, or its folder, an odd name."""
    old = path if chance.random() < 0.6 or path.parent.name == "source" else path.parent
    os.rename(os.fsencode(old), os.fsencode(old.parent) + b"/" + chance.choice(ODD_NAMES))


def move(path: Path, chance: random.Random) -> None:
    path.rename(path.parent.parent / path.name if path.parent.name != "source" else path.parent / "more.jpg")


def remove(path: Path, chance: random.Random) -> None:
    path.unlink()


def replace(path: Path, chance: random.Random) -> None:
    """Put something else in its place."""
    path.unlink()
    others: list[Callable[[], object]] = [
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: path.symlink_to("gone"),
        lambda: path.symlink_to(path.name),
        lambda: path.symlink_to(".."),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(chance.choice(IMAGES)),
        lambda: path.write_text('{"a": [1, 2]}\n'),
        lambda: path.write_bytes(b"\xff\xfe" * 99),
        lambda: (path.touch(), os.truncate(path, 2**40)),
    ]
    chance.choice(others)()


DAMAGE = (cut, flip, zero, grow, rename, move, remove, replace)


def make(root: Path, chance: random.Random) -> tuple[str, list[str]]:
    """Make a source; return its layout, and how it was damaged."""
    layout = chance.choice(LAYOUTS)
    for name, data in layout(chance).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    done = []
    for _ in range(chance.randrange(4)):
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        if not files:
            break
        damage, path = chance.choice(DAMAGE), chance.choice(files)
        if path.stat().st_size < 2**30:
            damage(path, chance)
            done.append(damage.__name__)
    return layout.__name__, done


# ----------------------------------------------------------------------------------------- the test


def prepare(source: Path, root: Path, options: list[str]) -> tuple[int, str]:
    """Run the command here; its exit code, and what it complained of. What is no mistake comes through."""
    sys.argv = ["prepare", str(source), str(root), "--size", "16", "--workers", "2", *options]
    said, complained = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(complained):
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), complained.getvalue()
    return 0, complained.getvalue()


def check_end(root: Path, code: int, complained: str) -> None:
    """Either a store that is sound, or one sentence and no folder but one whose list says what to mend."""
    if code == 0:
        assert complained == ""
        done = store.require(root)
        for split, count in done.images.items():
            assert len(PackedDataset(done, split)) == count > 0
        return
    assert code == 1
    (sentence,) = complained.splitlines()
    assert sentence.startswith("error: ")
    assert sentence.isprintable()
    assert not root.exists() or ((root / "skipped.csv").is_file() and "skipped.csv" in sentence)


@pytest.mark.slow
def test_a_hundred_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    places = [tmp_path / name for name in ("home", "temporary")]
    for place in places:
        place.mkdir()
    monkeypatch.setenv("HOME", str(places[0]))
    monkeypatch.setattr(tempfile, "tempdir", str(places[1]))
    monkeypatch.setattr(sys, "argv", [])
    layouts, damages, ends = Counter[str](), Counter[str](), Counter[int]()
    for seed in range(COUNT):
        chance, parent = random.Random(seed), tmp_path / str(seed)
        layout, damage = make(parent / "source", chance)
        options = chance.choice([[], ["--max-skipped", "0.5"], ["--max-skipped", "0.5"]])
        options += ["--hold-out", "0.3"] if layout == "classes" and chance.random() < 0.5 else []
        with untouched(*places, parent, but=[parent / "store"]):
            try:
                code, complained = prepare(parent / "source", parent / "store", options)
                check_end(parent / "store", code, complained)
            except Exception as error:
                error.add_note(f"seed {seed}: {layout}, {damage}, {options}")
                raise
        layouts[layout] += 1
        damages.update(damage)
        ends[code] += 1
    assert sum(ends.values()) == COUNT
    assert min(ends[0], ends[1]) >= 25, ends
    assert min(layouts[layout.__name__] for layout in LAYOUTS) >= 6, layouts
    assert min(damages[damage.__name__] for damage in DAMAGE) >= 8, damages
