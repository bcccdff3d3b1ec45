"""metrics.csv: rows are appended while a run trains, and read back as numbers."""

from __future__ import annotations

import csv
from pathlib import Path

from alexnet_pl.files import write


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the rows that are whole, as numbers; none where there is no file."""
    if not path.is_file():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [{k: float(v) for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(whole.splitlines())]


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add a row; a column seen for the first time widens the file."""
    old: list[str] = []
    if path.is_file():
        with path.open() as file:
            old = file.readline().strip().split(",")
    columns = old + [key for key in row if key not in old]
    if columns != old:
        write_rows(path, [*read_rows(path), row], columns)
        return
    with path.open("a") as file:
        file.write(_line(row, columns))


def write_rows(path: Path, rows: list[dict[str, float]], columns: list[str] | None = None) -> None:
    """Replace the whole file."""
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    write(path, ",".join(columns) + "\n" + "".join(_line(row, columns) for row in rows))


def _line(row: dict[str, float], columns: list[str]) -> str:
    """Whole numbers without a point, so that rewriting a file changes no byte of it."""
    cells = [row.get(column, "") for column in columns]
    return ",".join(str(int(c) if isinstance(c, float) and c.is_integer() else c) for c in cells) + "\n"
