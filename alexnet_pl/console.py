"""Shared by all commands: their start, a console, a progress meter, and one sentence for whatever ends them early."""

from __future__ import annotations

import atexit
import errno
import io
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alexnet_pl.errors import Interrupted, UserError

LOG_WIDTH = 160
"""Columns of a table if the output is not a terminal"""
EVERY = 10.0
"""Seconds between two lines of a log, at least"""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
RANK_VARIABLES = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE", "SLURM_PROCID",
    "JSM_NAMESPACE_RANK",
)  # fmt: skip
"""Environment variables that make libraries take a process for one of several; some are read on import"""
CACHE_VARIABLES = ("XDG_CACHE_HOME", "MPLCONFIGDIR")
"""Environment variables that name the folders where libraries keep files, instead of the home folder"""


def start_command(trains: bool = False) -> None:
    """Clean up what shells, jobs and containers may have left in this process. Each command's `main` begins with it.

    Args:
        trains: whether the command goes on without its terminal, and may be one of several processes.
    """
    open_streams(goes_on=trains)
    os.environ.pop("MPLBACKEND", None)  # a notebook's: a command opens no window, and Lightning imports matplotlib
    if not trains:
        for name in RANK_VARIABLES:
            os.environ.pop(name, None)
    try:
        os.getcwd()
    except FileNotFoundError:
        exit_with(UserError("the current folder was deleted: change to another one"))
    try:
        home = Path.home()
    except RuntimeError:  # a container's user whom the system does not know
        home = Path("/")
        os.environ["HOME"] = str(home)
    if not os.access(home, os.W_OK):  # W&B and matplotlib say much, or end, where they cannot keep anything
        with exit_on_error("a folder for temporary files"):
            caches = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, caches, ignore_errors=True)
        os.environ.update({name: os.environ.get(name, caches) for name in CACHE_VARIABLES})


def open_streams(goes_on: bool) -> None:
    """Open standard streams that are closed, and replace the output streams.

    The new ones escape characters that the encoding lacks, and do not fail when nobody reads them.

    Args:
        goes_on: whether the process goes on without a reader; if not, it ends quietly at its next line.
    """
    if sys.stdin is None:  # the next file to be opened would take its place
        sys.stdin = os.fdopen(_null_device())
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            descriptor, encoding = _null_device(), "utf-8"
        elif stream is getattr(sys, f"__{name}__"):
            descriptor, encoding = stream.fileno(), stream.encoding
        else:  # a notebook's
            continue
        out = io.BufferedWriter(_Output(descriptor, goes_on))
        setattr(sys, name, io.TextIOWrapper(out, encoding, errors="backslashreplace", line_buffering=True))


def _null_device() -> int:
    descriptor = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(descriptor, True)
    return descriptor


class _Output(io.FileIO):
    """An output whose reader may be gone, as in `train | head`. It drops what is written, or ends the process."""

    def __init__(self, descriptor: int, goes_on: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.goes_on, self.gone = goes_on, False

    def write(self, data: Any, /) -> int:
        try:
            return len(data) if self.gone else super().write(data)
        except OSError as error:
            self.gone = True  # what is buffered comes again at the end
            if self.goes_on:
                return len(data)
            if error.errno in (errno.EPIPE, errno.EIO):  # no reader, no terminal
                sys.exit(128 + signal.SIGPIPE)
            raise OSError(error.errno, error.strerror, "standard output") from error


def make_console(stderr: bool = False) -> Console:
    """Return a console that prints text as it is, without markup, and does not break long lines.

    If the output is no terminal, it has no bars and no colours, whatever the environment says; so in a notebook.
    """
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width, force = (None, None) if terminal else (LOG_WIDTH, False)
    return Console(
        stderr=stderr, width=width, force_terminal=force, force_jupyter=False, highlight=False, markup=False,
        emoji=False, soft_wrap=True,
    )  # fmt: skip


class Meter:
    """Show a count up to a total: a bar on a terminal, a line now and then in a log. Any thread may advance it.

    Args:
        total: the count at the end.
        transient: whether to remove the bar at the end.
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
        """Add to the count. The speed is measured from the first call on."""
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

    The code is that of a `UserError` (1; 75 for a folder in use), or 1 for an OSError. For a stop it is 128 + the
    signal.
    Any other exception is a bug and passes through.

    Args:
        writing: the file or folder to name if an OSError names none, as for a full disk.
        kept: what a stop leaves on disk, so that the same command continues.
    """
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
    """Raise KeyboardInterrupt(signal) for each of STOP_SIGNALS. Python lets only the main thread set handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handling(STOP_SIGNALS, _interrupt):
        yield


@contextmanager
def handling(signals: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    """Handle signals inside, except those that are ignored, as nohup ignores SIGHUP. Yield the earlier handlers."""
    heard = [signum for signum in signals if signal.getsignal(signum) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, handler) for signum in heard}
    try:
        yield before
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier or signal.SIG_DFL)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signum)  # no Exception: what copes with damaged files must let it through
