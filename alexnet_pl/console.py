"""What all commands share at a terminal: a console, a progress meter, and one sentence for whatever ends them early."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alexnet_pl.errors import Interrupted, UserError

LOG_WIDTH = 160
"""Columns of a table where the output is not a terminal"""
EVERY = 10.0
"""Seconds between two lines of a log, at least"""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def make_console(stderr: bool = False) -> Console:
    """Return a console that prints text as it is: names in brackets are no markup, and long lines are not broken."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal else LOG_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


class Meter:
    """Count up to a total, from any thread: a bar on a terminal, a line now and then in a log.

    Args:
        total: how many there are.
        transient: remove the bar at the end.
    """

    def __init__(self, title: str, total: int, console: Console, transient: bool = False) -> None:
        self.title, self.total, self.console = title, total, console
        self.done, self.lock = 0, threading.Lock()
        self.last_line: tuple[float, int] | None = None  # when it was printed, and how many were done then
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(
            *columns, TextColumn("left"), console=console, transient=transient, disable=not console.is_terminal
        )
        self.task = self.bar.add_task(title, total=total)

    def __enter__(self) -> Meter:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, count: int) -> None:
        """Add to what is done; the first call only says what was done before, and does not count as speed."""
        with self.lock:
            self.done += count
            self.bar.advance(self.task, count)
            now = time.perf_counter()
            then, before = self.last_line = self.last_line or (now, self.done)
            if self.bar.disable and now - then > EVERY:
                self.last_line = now, self.done
                left = timedelta(seconds=round((now - then) * (self.total - self.done) / (self.done - before)))
                self.console.print(f"  {self.title}: {self.done:,} of {self.total:,}, {left} left")


@contextmanager
def exit_on_error(writing: Path | str = "the output", kept: str = "") -> Iterator[None]:
    """Turn a mistake, a failed read or write, Ctrl-C and SIGTERM into one sentence on stderr and an exit code.

    The code is that of a `UserError` (1; 75 for a folder in use), 1 for an OSError, and 128 + the signal for a stop.
    Any other exception is a bug and passes through.

    Args:
        writing: the file or folder that is written; it is named where an OSError names no file, as for a full disk.
        kept: what a stop leaves on disk, from which the same command continues.
    """
    os.environ.pop("MPLBACKEND", None)  # a notebook's: a command opens no window, and Lightning imports matplotlib
    try:
        with _stops_as_interrupts():
            yield
    except KeyboardInterrupt as stop:
        exit_with(Interrupted(stop.args[0] if stop.args else signal.SIGINT, kept))
    except UserError as error:
        exit_with(error)
    except OSError as error:
        exit_with(UserError(f"{error.filename or writing}: {error.strerror or error}"))


def exit_with(error: UserError) -> NoReturn:
    """Print a mistake or a failure to stderr, a line for each sentence, and exit with its code."""
    for sentence in error.sentences:
        print(f"error: {sentence}", file=sys.stderr)
    sys.exit(error.exit_code)


@contextmanager
def _stops_as_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt(signal) for each of STOP_SIGNALS; handlers are Python's main thread's alone to set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, _interrupt) for signum in STOP_SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler or signal.SIG_DFL)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)  # no Exception: what copes with damaged files must let it through
