"""Write files whole or not at all: beside their place, then renamed. Lock a folder in use.

A full disk, an editor or a stranger may have changed a file. So a reader returns what it expects, or says "damaged".
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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
LARGEST = 1 << 24
"""Most bytes of a file that is read as a whole, if no other limit is given"""
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)
"""Error codes of file systems without locks, as on some clusters"""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet takes for a formula"""
NO_FILE = {errno.ELOOP: "link", errno.EISDIR: "folder", errno.ENXIO: "socket", None: "pipe or device"}
"""What a path is, by the error of opening it as a file. None stands for Python's own error that it cannot rewind."""


# ------------------------------------------------------------------------------------------------ writing


@contextmanager
def naming(path: Path, part: Path | None = None) -> Iterator[None]:
    """Make an OSError inside name a file. That of a full disk names none, or the temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno is None and type(error) is OSError:  # NumPy's and Pillow's word for a full disk
            raise OSError(errno.EIO, str(error), str(path)) from error
        if error.errno is not None and error.filename in (None, str(part)):
            error.filename = str(path)
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path to write to. At the end it takes the place of `path`. On an error nothing of it stays."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path, part):
            yield part
            part.replace(path)
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            part.unlink()


def write(path: Path, text: str) -> None:
    """Write a whole text file."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def csv_cell(text: str) -> str:
    """Return a text from outside as a cell of a CSV file, with a ' before what a spreadsheet takes for a formula.

    Bytes that are no UTF-8 are escaped, so that the table can be written.
    """
    cell = text.encode("utf-8", "backslashreplace").decode()
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def from_csv_cell(cell: str) -> str:
    """Return the text of a cell that `csv_cell` made."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def is_part(path: Path) -> bool:
    """Return whether `atomic_path` left a file because its writer was killed. Other files may end with .tmp too."""
    return re.search(r"\.\d+\.tmp$", path.name) is not None and path.is_file()


def sweep_up(folder: Path) -> None:
    """Remove the temporary files that killed writers left in a folder. No other process may be writing there."""
    for part in filter(is_part, folder.iterdir()):
        part.unlink()


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise ConfigError if a file to write is one that is read, or is named twice."""
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise ConfigError(f"{path} is read or written already by this command: give the output another name")
        taken.add(path.resolve())


# ------------------------------------------------------------------------------------------------ reading


def damaged(path: Path, reason: object, advice: str = "") -> ConfigError:
    """Return the error about a damaged file. Without `advice` it says to remove the file."""
    return ConfigError(f"{path} is damaged: {reason}; {advice or 'remove it, or the folder that it is in'}")


def expand(path: str | Path) -> Path:
    """Return a path with ~ replaced by the home folder. It stays as it is if there is none; pathlib would raise."""
    return Path(os.path.expanduser(path))


def require_file(path: Path, advice: str = "") -> int:
    """Return the size of a file in bytes.

    Raises:
        ConfigError: it is a folder, a pipe, a device, or a link that leads nowhere.
        FileNotFoundError: there is nothing of that name.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise damaged(path, f"it is a link to {path.readlink()}, which is not there", advice) from None
        raise
    if not stat.S_ISREG(found.st_mode):
        raise damaged(path, f"it is a {'folder' if stat.S_ISDIR(found.st_mode) else 'device'} and no file", advice)
    return found.st_size


def read_text(path: Path, advice: str = "", largest: int = LARGEST) -> str:
    """Return a text file's contents.

    Args:
        advice: what to do about a file that is damaged.
        largest: most bytes that it may have.
    Raises:
        ConfigError: it is no file, or larger than that, or no text.
        FileNotFoundError: there is nothing of that name.
    """
    if (size := require_file(path, advice)) > largest:
        raise damaged(path, f"it has {size:,} bytes, and at most {largest:,} are read", advice)
    data = path.read_bytes()
    if b"\0" in data:
        raise damaged(path, "it holds zero bytes, as a crash of the machine leaves them", advice)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is no UTF-8 text ({error.reason} at byte {error.start:,})", advice) from error


def read_json(
    path: Path, shape: dict[str, Any] | None = None, advice: str = "", needs: str | None = None
) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is no file.

    Args:
        shape: the shape of its entries, as for `misfit`; an entry may be missing.
        advice: what to do about a file that is damaged.
        needs: an entry that must be there.
    Raises:
        ConfigError: the file is something else.
    """
    try:
        text = read_text(path, advice)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        plain = json.loads(text, parse_float=_finite, parse_constant=_finite)
        json.dumps(plain, ensure_ascii=False).encode()  # which halves of characters refuse
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON ({error})" if text.strip() else "it is empty", advice) from error
    if wrong := misfit(plain, shape or {}):
        raise damaged(path, wrong, advice)
    if needs and needs not in plain:
        raise damaged(path, f"it has no {needs}", advice)
    return dict(plain)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def misfit(value: Any, shape: Any, place: str = "") -> str:
    """Return in words where a value is not of a shape; empty if it is.

    Args:
        shape: a type; a list of one shape, for lists of it; or a dict of shapes, for dicts with such entries. An entry
            may be missing.
    """
    kind: Any = shape if isinstance(shape, type) else type(shape)
    if not isinstance(value, kind):
        what = f"a {type(value).__name__}" if value is not None else "nothing"
        return f"{place or 'its contents'} should be a {kind.__name__} and is {what}"
    parts: list[tuple[Any, Any, Any]] = []  # entry, shape, name
    if isinstance(shape, dict):
        parts = [(value[key], part, key) for key, part in shape.items() if key in value]
    elif isinstance(shape, list):
        parts = [(entry, shape[0], number) for number, entry in enumerate(value)]
    found = (misfit(entry, part, f"{place}.{name}".lstrip(".")) for entry, part, name in parts)
    return next(filter(None, found), "")


# ------------------------------------------------------------------------------------------------ locks


def lock(folder: Path, wait: bool = False) -> TextIO | None:
    """Keep other processes out of a folder until the returned file is closed, or this process ends.

    Args:
        wait: whether to wait until another process lets go of it.
    Returns:
        The file; None if the file system has no locks.
    Raises:
        BlockingIOError: another process has the lock.
        ConfigError: `.lock` there is a link to a file somewhere else.
    """
    if fcntl is None:
        return None
    path = folder / ".lock"
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+")
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        what = NO_FILE[error.errno]
        raise ConfigError(f"{path} is a {what}, and must be a file: remove it") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        file.close()
        if error.errno in NO_LOCKS:
            return None
        raise
    return file
