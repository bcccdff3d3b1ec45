"""Packing sources here, and looking into the packed datasets."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from alexnet_pl.data import decode, store
from alexnet_pl.errors import ConfigError, UserError
from alexnet_pl.prepare.options import Options
from alexnet_pl.prepare.packing import Packing
from alexnet_pl.prepare.prepare import prepare
from tests.helpers.sources import SIZE

SMALL = Options(size=SIZE, workers=2)


def pack(source: Path, root: Path, dry_run: bool = False, **options) -> str:
    """Pack in this process; return what the command says."""
    said = io.StringIO()
    console = Console(file=said, highlight=False, markup=False, soft_wrap=True)
    prepare(source, root, replace(SMALL, **options), console, dry_run)
    return said.getvalue()


def refusal(source: Path, root: Path, kind: type[UserError] = ConfigError, **options) -> str:
    """Return the one sentence with which packing ends."""
    with pytest.raises(kind) as error:
        pack(source, root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every file and folder in a folder, hidden ones too."""
    paths = sorted(folder.rglob("*")) if folder.exists() else []
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def times(folder: Path) -> dict[str, int]:
    """Return when each file and folder in a folder, and it itself, was last written."""
    return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def cells(done: store.Store, split: str) -> list[bytes]:
    """Return the images of a split, from the places that its index names."""
    parts = [(done.root / part.file).read_bytes() for part in done.parts[split]]
    return [parts[row["part"]][row["offset"] :][: row["bytes"]] for row in done.index(split).to_pylist()]


def squares(done: store.Store, split: str) -> np.ndarray:
    """Return its images as training sees them."""
    plan = done.plan
    return np.stack(
        [decode.decode_stored(bytearray(cell), plan.size, plan.form).numpy() for cell in cells(done, split)]
    )


def stop_before_the_end(monkeypatch: pytest.MonkeyPatch, source: Path, root: Path, **options) -> None:
    """Pack all parts, and nothing more."""

    def stop(self: Packing, advance: object) -> None:
        raise UserError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(Packing, "finish", stop)
        assert refusal(source, root, UserError, **options) == "stopped"


def check_statistics(done: store.Store) -> None:
    """Compare the mean image and the colours with NumPy in float64 over the images as they are stored."""
    images = squares(done, "train").astype(np.float64)
    np.testing.assert_allclose(done.mean(), images.mean(0), rtol=1e-12)
    assert done.mean().dtype == np.float64
    pixels = images.reshape(-1, 3)
    centred = pixels - pixels.mean(0)
    covariance = centred.T @ centred / len(pixels)
    vectors, std = np.array(done.colors["vectors"]), np.array(done.colors["std"])
    np.testing.assert_allclose(std, np.sqrt(np.linalg.eigvalsh(covariance)[::-1]), rtol=1e-9)
    np.testing.assert_allclose(vectors.T @ np.diag(std**2) @ vectors, covariance, rtol=1e-9)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-12)
    assert (np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], 1) > 0).all()


def flip(path: Path, at: float = 0.5) -> None:
    """Change a byte at this share of a file."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 0x40
    path.write_bytes(data)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
