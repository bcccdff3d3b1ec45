"""How far a long work is, and what time is left: a bar on a terminal, lines in a log."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 10.0
"""Seconds between two lines of a log, at least"""


class Meter:
    """Counts up to a total, from any thread."""

    def __init__(self, what: str, total: int, console: Console) -> None:
        self.what, self.total, self.console = what, total, console
        self.done, self.lock = 0, threading.Lock()
        self.said: tuple[float, int] | None = None  # when the last line was printed, and how many were done then
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, TextColumn("left"), console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task(what, total=total)

    def __enter__(self) -> Meter:
        self.bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.stop()

    def advance(self, count: int) -> None:
        """So many more are through; the first time, so many were through before, which says nothing of the speed."""
        with self.lock:
            self.done += count
            self.bar.advance(self.task, count)
            now = time.perf_counter()
            then, before = self.said = self.said or (now, self.done)
            if self.bar.disable and now - then > EVERY:
                self.said = now, self.done
                left = timedelta(seconds=round((now - then) * (self.total - self.done) / (self.done - before)))
                self.console.print(f"  {self.what}: {self.done:,} of {self.total:,}, {left} left")
