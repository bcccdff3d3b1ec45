"""Start processes warm, as forks of one that has imported torch and Lightning (the standard library's fork server).

These imports take longer than a small run. The first start also starts the server, which imports them, starts no thread
and does not touch CUDA. Each process is a fork of it in a session of its own, so that signals reach it from here only.
The server receives none. malloc and OpenMP read some variables when an interpreter starts, so a fork has the server's
values. A process that needs other values is a new interpreter instead.
"""

from __future__ import annotations

import importlib
import multiprocessing as mp
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.reduction import DupFd
from typing import Any, TextIO

from alexnet_pl import console, cpu

PRELOADED = ["alexnet_pl.training.fit", "alexnet_pl.jobs.sweep", "torch._dynamo", "wandb"]
"""Modules that the server imports: those that a job needs, and the command's, which multiprocessing imports again in
each process. torch's optimisers import _dynamo when the first one is made."""
SIGNAL_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = [getattr(signal, name) for name in SIGNAL_NAMES if hasattr(signal, name)]
"""Signals that ask a run to save and end. Slurm sends SIGUSR1 or SIGUSR2 before it preempts a job or its time is up."""


class Process:
    """A process that calls the `main` of a module, as `python -m MODULE ARGUMENTS` does.

    Args:
        words: the module and its arguments.
        env: all of its environment variables.
        held: a file that it keeps open.
    """

    method = "forkserver" if sys.platform == "linux" else "spawn"  # a fork with torch loaded is unsafe on macOS
    served: dict[str, str | None] | None = None
    """environment variables that the server's interpreter read at its start, once there is a server"""

    def __init__(self, words: Sequence[str], env: dict[str, str], held: TextIO | None = None) -> None:
        read_at_start = {name: env.get(name) for name in cpu.READ_AT_START}
        Process.served = Process.served or read_at_start
        context: Any = mp.get_context(self.method if read_at_start == Process.served else "spawn")
        if self.method == "forkserver":
            context.set_forkserver_preload(PRELOADED)
        self._process = context.Process(target=_begin, args=(words, env, os.getcwd(), held and _Held(held)))
        # The server has no say in the threads of its forks. OpenBLAS would start some as it is imported.
        own = {name: value for name, value in env.items() if name != "OMP_NUM_THREADS"} | {"OPENBLAS_NUM_THREADS": "1"}
        with _environment(own), _without_signals():
            self._process.start()
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, or minus the signal that killed the process; None while it runs."""
        code: int | None = self._process.exitcode
        if code == 255 and self.method == "forkserver":  # or the server was killed, and cannot tell
            with suppress(ProcessLookupError):
                os.kill(self.pid, 0)
                return None
        return code

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # the server knows already
                os.kill(self.pid, signum)


class _Held:
    """An open file on its way into a process."""

    def __init__(self, file: TextIO) -> None:
        self.descriptor = file.fileno()

    def __reduce__(self) -> tuple[Any, ...]:
        return _keep, (DupFd(self.descriptor),)


def _keep(duplicate: Any) -> int:
    return int(duplicate.detach())  # open until the process ends


@contextmanager
def _environment(env: dict[str, str]) -> Iterator[None]:
    """Set exactly these environment variables inside, for an interpreter to read at its start."""
    before = dict(os.environ)
    _replace_environment(env)
    try:
        yield
    finally:
        _replace_environment(before)


@contextmanager
def _without_signals() -> Iterator[None]:
    """Make processes that start inside ignore signals to the whole group, such as Ctrl-C, until they allow them."""
    resource_tracker.ensure_running()  # which else would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _replace_environment(env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)


def _begin(words: Sequence[str], env: dict[str, str], folder: str, held: object) -> None:
    """Do in a fork what a new interpreter would do at its start; then do the work."""
    os.setsid()
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    _replace_environment(env)
    os.chdir(folder)
    console.open_streams(goes_on=True)
    sys.argv = list(words)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        import torch  # is there already in a fork

        torch.set_num_threads(cpu.wanted_threads(env) or torch.get_num_threads())
        importlib.import_module(words[0]).main()
    except KeyboardInterrupt:  # before a run listens to signals, there is nothing to save
        sys.exit(128 + signal.SIGINT)
