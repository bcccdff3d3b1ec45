"""Files are written whole or not at all: beside their place, then renamed. A folder in use can be locked."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

try:
    import fcntl
except ImportError:  # Windows: two processes in one folder are not told apart
    fcntl = None  # type: ignore[assignment]

from alexnet_pl.errors import ConfigError

_HERE = Path(__file__).resolve().parent
ROOT = _HERE if (_HERE / "conf").is_dir() else _HERE.parent
"""The folder that holds conf/ and sweeps/: inside the package in a wheel, beside it in a checkout."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet computes"""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path to write to. At the end it takes the place of `path`; on an error, as a full disk, nothing stays."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Write a whole text file."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def csv_cell(text: str) -> str:
    """Return a foreign text as a cell of a CSV file: with a ' before what a spreadsheet would take for a formula.

    Bytes of a name that are no UTF-8 are escaped, so that the table can be written.
    """
    cell = text.encode("utf-8", "backslashreplace").decode()
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def from_csv_cell(cell: str) -> str:
    """Return the text of a cell that `csv_cell` made."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty where there is no file.

    Raises:
        ConfigError: the file is something else.
    """
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not JSON ({error}): remove it, or the folder that it is in") from error


def sweep_up(folder: Path) -> None:
    """Remove what writers that were killed have left beside the files of a folder; no other may be writing there."""
    for part in folder.glob("*.tmp"):
        part.unlink()


def lock(folder: Path) -> TextIO | None:
    """Keep other processes out of a folder until the returned file is closed, or this process ends.

    Raises:
        BlockingIOError: another process has the lock.
        ConfigError: `.lock` there is a link: nothing is opened that lies somewhere else.
    """
    if fcntl is None:
        return None
    path = folder / ".lock"
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ConfigError(f"{path} is a link, and must be a file: remove it") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file
