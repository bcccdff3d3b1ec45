"""What a command may leave behind that was given something mad: a sentence where it refuses, and no file elsewhere."""

from __future__ import annotations

import hashlib
import os
import resource
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

CONTENTS = {
    "empty": b"",
    "cut": b'{"a": ',
    "zero bytes": b"\0" * 20,
    "Latin-1": b'{"a": "\xe9"}',
    "list": b"[1, 2]",
    "number": b"5",
    "null": b"null",
    "text": b"words, and more words\n",
    "NaN": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "half a character": b'{"a": "\\ud800"}',
    "deep": b"[" * 3_000,
    "digits": b'{"a": ' + b"1" * 5000 + b"}",
}
"""Of files that hold something else than a JSON object, YAML with keys, a table or a checkpoint"""


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


STRANGE: dict[str, Callable[[Path], object]] = {
    **{name: partial(Path.write_bytes, data=data) for name, data in CONTENTS.items()},
    "folder": Path.mkdir,
    "pipe": _pipe,
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "huge": _huge,
}
"""What may stand where a file of ours is looked for: {kind: what puts it there}"""
DONE, REFUSED = "done", "refused"
MOST_BYTES = 1 << 20
"""Of larger files the size and the time count, not the contents"""


def picture(*folders: Path, but: Iterable[Path] = ()) -> dict[Path, str]:
    """Return what lies in folders: {path: its kind, rights and contents}; of links where they lead to.

    Args:
        but: files and folders to leave out, with all that is in them.
    """
    left_out, seen = set(but), dict[Path, str]()
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path in left_out:
                continue
            seen[path] = _describe(path)
            if path.is_dir() and not path.is_symlink():
                seen |= picture(path, but=left_out)
    return seen


def _describe(path: Path) -> str:
    found = path.lstat()
    kind = stat.filemode(found.st_mode)
    if path.is_symlink():
        return f"{kind} {path.readlink()}"
    if not path.is_file():
        return kind
    try:
        contents = hashlib.sha1(path.read_bytes()).hexdigest() if found.st_size <= MOST_BYTES else found.st_mtime_ns
    except PermissionError:
        contents = found.st_mtime_ns
    return f"{kind} {found.st_size} {contents}"


def changes(before: dict[Path, str], after: dict[Path, str]) -> list[str]:
    """Return a line for each path that came, went or changed between two pictures."""
    return [
        f"{path}: {before.get(path, 'not there')} -> {after.get(path, 'gone')}"
        for path in sorted(before | after)
        if before.get(path) != after.get(path)
    ]


@contextmanager
def untouched(*folders: Path, but: Iterable[Path] = ()) -> Iterator[None]:
    """Assert that what happens inside changes nothing in folders, as the home, the temporary and the parent folder."""
    before = picture(*folders, but=but)
    yield
    assert changes(before, picture(*folders, but=but)) == []


def how_it_ended(result: subprocess.CompletedProcess[str]) -> str:
    """Return `done` or `refused`, of a command of `tests.helpers.commands`; a refusal says why, without a traceback.

    Any other exception than a user's error or a stop has come out of the command itself by then.
    """
    assert "Traceback" not in result.stderr + result.stdout, result.stderr
    if result.returncode == 0:
        return DONE
    said = [line for line in result.stderr.splitlines() if line.strip()]
    assert said, f"exit code {result.returncode}, and not a word"
    assert any("error: " in line for line in said), result.stderr
    return REFUSED


@contextmanager
def full_disk(at: int) -> Iterator[None]:
    """Have every file end at so many bytes, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
