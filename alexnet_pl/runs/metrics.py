"""metrics.csv: append rows while a run trains, and read them back as numbers."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from alexnet_pl.files import damaged, naming, read_text, write

PLACE = ("epoch", "images_seen")
"""Columns that give the position of a row in the training"""
MOST_BYTES = 1 << 28
LARGEST = 1e100
"""Largest number that can have been measured; the square of a larger one is infinite"""


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the complete rows, as numbers; none if there is no file.

    Raises:
        ConfigError: the file is damaged.
    """
    advice = "remove the line, or the run's folder"
    try:
        whole, end, _ = read_text(path, advice, MOST_BYTES).rpartition("\n")
    except (FileNotFoundError, NotADirectoryError):
        return []
    if not end:
        raise damaged(path, "it has no whole line", advice)
    rows = []
    try:
        reader = csv.DictReader(whole.splitlines(), strict=True)
        if absent := [key for key in PLACE if key not in (reader.fieldnames or ())]:
            raise ValueError(f"it has no column {absent[0]}")
        for row in reader:
            rows.append({key: float(cell) for key, cell in row.items() if cell not in ("", None)})
            if strange := [key for key in PLACE if not 0 <= rows[-1].get(key, math.nan) < LARGEST]:
                raise ValueError(f"{strange[0]} is missing, or no number that a run comes to")
            if strange := [key for key, number in rows[-1].items() if LARGEST < abs(number) < math.inf]:
                raise ValueError(f"{strange[0]} is {rows[-1][strange[0]]:g}")
    except (ValueError, TypeError, csv.Error) as error:  # a TypeError: there are more cells than columns
        reason = "more cells than columns" if isinstance(error, TypeError) else error
        raise damaged(path, f"line {reader.line_num}: {reason}", advice) from error
    return rows


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add a row. A new column widens the file."""
    old: list[str] = []
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            old = file.readline().strip().split(",")
    columns = old + [key for key in row if key not in old]
    if columns != old:
        write_rows(path, [*read_rows(path), row], columns)
        return
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(_line(row, columns))


def write_rows(path: Path, rows: list[dict[str, float]], columns: list[str] | None = None) -> None:
    """Replace the whole file."""
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    write(path, ",".join(columns) + "\n" + "".join(_line(row, columns) for row in rows))


def _line(row: dict[str, float], columns: list[str]) -> str:
    """Return a number as text, whole ones without a point, so that rewriting a file changes no byte of it."""
    cells = [row.get(column, "") for column in columns]
    return ",".join(str(int(c) if isinstance(c, float) and c.is_integer() else c) for c in cells) + "\n"
