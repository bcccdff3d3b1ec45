"""Sizes that a file merely claims: each has a ceiling, and one sentence tells it before any memory is taken."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from alexnet_pl.data import cifar10
from alexnet_pl.data.sources import base, find, shards
from alexnet_pl.data.sources.base import Unreadable
from alexnet_pl.errors import ConfigError
from tests.helpers.images import encode, smooth_image, write_parquet

ZIP, TRAIN, VAL = "tiny-imagenet-200.zip", "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
HUGE = 2**43
"""8 TB"""
IMAGE = encode(smooth_image(32, 32), "PNG")


def tiny(
    root: Path, claim: Callable[[zipfile.ZipInfo], object], of: str = "wnids.txt", content: bytes = b"a\nb"
) -> None:
    """Tiny ImageNet's zip file, in which a member claims something."""
    texts = {"wnids.txt": b"a\nb", "val/val_annotations.txt": b"v.JPEG\ta", "val/images/v.JPEG": IMAGE}
    images = {f"train/{name}/images/{name}_{n}.JPEG": IMAGE for name in "ab" for n in range(2)}
    with zipfile.ZipFile(root / ZIP, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in (texts | images | {of: content}).items():
            out.writestr(name, data)
        claim(out.getinfo(of))


def member(name: str, content: bytes = b"", claims: int | None = None, kind=tarfile.REGTYPE, **pax: str) -> bytes:
    """A member of a tar, of the size that it claims."""
    info = tarfile.TarInfo(name)
    info.size = len(content) if claims is None else claims
    info.type, info.pax_headers = kind, pax
    return info.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT) + content.ljust(
        -(-len(content) // 512) * 512, b"\0"
    )


END = bytes(1024)
SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x.JPEG"}
SPARSE |= {"GNU.sparse.realsize": str(HUGE)}
MEMBERS = {
    "a sparse member": member("x.JPEG", b"1\n0\n0\n".ljust(512, b"\0"), **SPARSE),
    "more than there is": member("x.JPEG", claims=HUGE),
    "a size in a pax header": member("x.JPEG", size=str(2**70)),
    "a pax header": member("x", claims=HUGE, kind=tarfile.XHDTYPE) + member("x.JPEG"),
    "a long name": member("x", claims=HUGE, kind=tarfile.GNUTYPE_LONGNAME) + member("x.JPEG"),
    "less than nothing": member("x.JPEG", claims=-512),
}


@pytest.mark.parametrize("claim", MEMBERS.values(), ids=MEMBERS)
@pytest.mark.parametrize("inner", [True, False], ids=["in an inner tar", "in the outer"])
def test_a_tar_claims(claim: bytes, inner: bool, tmp_path: Path):
    within = claim + END if inner else member("y.JPEG", b"y") + END
    (tmp_path / TRAIN).write_bytes(member("n1.tar", within) + (END if inner else claim + END))
    with pytest.raises(ConfigError, match=f"{TRAIN} is damaged or cut short"):
        find(tmp_path)


def forge(**values: int) -> Callable[[zipfile.ZipInfo], None]:
    return lambda info: [setattr(info, key, value) for key, value in values.items()] and None


ZIPS = {
    "2 GB of text": (forge(file_size=2**31), "wnids.txt cannot be read: 2,147,483,648 bytes, and an image file"),
    "encrypted": (forge(flag_bits=1), "wnids.txt cannot be read: encrypted"),
    "unknown compression": (forge(compress_type=99), "wnids.txt cannot be read: an unknown compression"),
    "a compression without a limit": (
        forge(compress_type=zipfile.ZIP_BZIP2),
        "wnids.txt cannot be read: an unknown compression",
    ),
}


@pytest.mark.parametrize(("claim", "said"), ZIPS.values(), ids=ZIPS)
def test_a_zip_claims(claim: Callable[[zipfile.ZipInfo], None], said: str, tmp_path: Path):
    tiny(tmp_path, claim)
    with pytest.raises(ConfigError) as error:
        find(tmp_path)
    assert said in str(error.value)


def test_an_image_in_a_zip_that_claims_2_gb_is_skipped(tmp_path: Path):
    tiny(tmp_path, forge(file_size=2**31), "train/a/images/a_1.JPEG")
    first, second, *_ = find(tmp_path).splits["train"].read(0, 4)
    assert first == IMAGE
    assert isinstance(second, Unreadable)
    assert "2,147,483,648 bytes" in str(second)


def test_a_zip_that_unpacks_to_more_than_it_claims_takes_no_memory(tmp_path: Path):
    tiny(tmp_path, forge(file_size=100), "wnids.txt", bytes(2**25))
    tracemalloc.start()
    with pytest.raises(ConfigError, match=r"wnids.txt is damaged or cut short \(Bad CRC-32"):
        find(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


BINARY, TEXT = (pa.struct([("bytes", kind()), ("path", pa.string())]) for kind in (pa.binary, pa.string))


def shard(root: Path, name: str = "train-00000-of-00001.parquet", labels=(0, 1), kind=None, cell=BINARY, info=None):
    """A shard of two images."""
    rows = [{"bytes": IMAGE if cell is BINARY else "text", "path": f"{n}.png"} for n in range(len(labels))]
    table = pa.table({"image": pa.array(rows, cell), "label": pa.array(labels, kind or pa.int64())})
    if info is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, root / name)


SHARDS = {
    "a billion classes": ({"labels": (0, 10**9)}, "has label 1000000000, and 2 training images: each class up to it"),
    "a label of 64 bits": ({"labels": (0, 2**64 - 1), "kind": pa.uint64()}, "is damaged or cut short"),
    "a hundred billion shards": (
        {"name": "train-00000-of-99999999999.parquet"},
        "lacks train-00000000001-of-99999999999.parquet, train-00000000002-of-99999999999.parquet, "
        "train-00000000003-of-99999999999.parquet and 99999999995 more of 99999999999 shards",
    ),
    "more shards than it says": ({"name": "train-00003-of-00002.parquet"}, "lacks train-00000-of-00002.parquet"),
    "bytes as text": ({"cell": TEXT}, "needed are image: struct<bytes: binary, path: string>"),
}


@pytest.mark.parametrize(("how", "said"), SHARDS.values(), ids=SHARDS)
def test_a_shard_claims(how: dict, said: str, tmp_path: Path):
    shard(tmp_path, **how)
    with pytest.raises(ConfigError) as error:
        find(tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "info", [5, [], {"info": 5}, {"info": {"features": [1]}}, {"info": {"features": {"label": 0}}}]
)
def test_odd_metadata_names_no_classes(info: object, tmp_path: Path):
    shard(tmp_path, info=info)
    assert find(tmp_path).classes == ["0", "1"]


@pytest.mark.parametrize(
    ("rows", "unpacked", "said"),
    [
        (10**12, 1, "claims 1,000,000,000,000 rows in 5,000 bytes"),
        (-1, 1, "claims -1 rows"),
        (64, 2**40, "of 64 images"),
    ],
)
def test_a_row_group_claims(rows: int, unpacked: int, said: str):
    group = SimpleNamespace(num_rows=rows, total_byte_size=unpacked)
    shard = SimpleNamespace(num_row_groups=1, metadata=SimpleNamespace(row_group=lambda number: group))
    with pytest.raises(ValueError, match=said):
        shards._row_counts(shard, 5000)


def test_a_devkit_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A gzip file that unpacks without an end, and a table of a billion synsets."""
    (tmp_path / "train").mkdir()
    for name in "ab":
        (tmp_path / "train" / name).mkdir()
        (tmp_path / "train" / name / "1.png").write_bytes(IMAGE)
    (tmp_path / VAL).write_bytes(member("v.JPEG", IMAGE) + END)
    kit = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    with monkeypatch.context() as patch:
        patch.setattr(base, "LARGEST", 10**6)
        kit.write_bytes(gzip.compress(bytes(2 * 10**6)))
        with pytest.raises(ConfigError, match=f"{kit.name} cannot be read: 1,000,001 bytes"):
            find(tmp_path)
    meta = io.BytesIO()
    savemat(
        meta, {"synsets": np.array([(1, "a", 0)] * 3, [(k, object) for k in ("ILSVRC2012_ID", "WNID", "num_children")])}
    )
    shape = meta.getvalue().index(struct.pack("<ii", 1, 3))
    claimed = meta.getvalue()[:shape] + struct.pack("<ii", 1, 10**9) + meta.getvalue()[shape + 8 :]
    folder = "ILSVRC2012_devkit_t12/data/"
    tar = member(f"{folder}meta.mat", claimed) + member(folder + "ILSVRC2012_validation_ground_truth.txt", b"1") + END
    kit.write_bytes(gzip.compress(tar))
    with pytest.raises(ConfigError, match=r"\(meta.mat claims 1,000,000,000 synsets\)"):
        find(tmp_path)


def test_a_large_file_is_not_read(tmp_path: Path):
    """Its 8 TB take no room on the disk."""
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(IMAGE)
    with (tmp_path / "a/2.png").open("wb") as file:
        file.truncate(2**40)
    found = list(find(tmp_path).splits["train"].read(0, 3))
    assert [isinstance(data, Unreadable) for data in found] == [False, True, False]


def bomb() -> bytes:
    """A PNG that claims 3,600 megapixels."""
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    at = IMAGE.index(b"IHDR") + 4
    return IMAGE[:at] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + IMAGE[at + len(head) + 4 :]


CIFAR10 = {
    "an image of 3,600 megapixels": (lambda file: write_parquet(file, [bomb()], [0]), "parquet:0: the image does not"),
    "a plain binary": (
        lambda file: pq.write_table(pa.table({"img": [IMAGE], "label": [0]}), file),
        "needed are image: struct<bytes: binary, path: string>",
    ),
    "labels of text": (
        lambda file: pq.write_table(pa.table({"img": [{"bytes": IMAGE, "path": ""}], "label": ["cat"]}), file),
        "label: an integer",
    ),
    "no label": (lambda file: write_parquet(file, [IMAGE], [None]), "row 0: no label"),
    "many shards": (lambda file: write_parquet(file.with_name("train-0-of-9999999999.parquet"), [IMAGE], [0]), "lacks"),
}


@pytest.mark.parametrize(("write", "said"), CIFAR10.values(), ids=CIFAR10)
def test_cifar10_claims(write: Callable[[Path], object], said: str, tmp_path: Path):
    write(tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(ConfigError) as error:
        cifar10.load(tmp_path, "train")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
