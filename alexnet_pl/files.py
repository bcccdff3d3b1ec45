"""Files are written whole or not at all: beside their place, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes its place at the end. On an error (a full disk, say) nothing stays."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Write a whole text file."""
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
