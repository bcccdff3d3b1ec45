"""Commands as processes that have no start: forked from a server that has all imports done.

Each is a process as `python -m MODULE` is one: with an id, a session, a folder, an environment, output and an exit code
of its own, and signals reach it. So are the processes that it starts for a run or for the jobs of a sweep: there
`launch.start` is replaced by `Fork`. What is left out is a new interpreter, and the five seconds of importing torch,
Lightning and Hydra into it; test_train.py, jobs/test_launch.py and test_install.py start real ones. What uses joblib
has to: its workers end with a real interpreter only.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra

from alexnet_pl.jobs import launch
from tests.helpers.commands import environment

PRELOAD = [
    "torch", "torch._dynamo", "torch.distributed.tensor", "pytorch_lightning", "alexnet_pl.train",
    "alexnet_pl.training.fit", "alexnet_pl.report.cli", "alexnet_pl.prepare.prepare", "pyarrow.parquet",
    "plotly.graph_objects", "plotly.subplots", "wandb", "matplotlib.figure", "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg", "tests.helpers.ranks", "tests.helpers.warm",
]  # fmt: skip


def context() -> ForkServerContext:
    """Return the context of the one server that a worker of the tests has."""
    forkserver = mp.get_context("forkserver")
    forkserver.set_forkserver_preload(PRELOAD)
    return forkserver


class Forked:
    """A started process of multiprocessing, with the members of a Popen that the package and the tests use."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Process(Forked):
    """`python -m MODULE ARGS` in a folder, in the background. Or `python SCRIPT ARGS`, by its path."""

    def __init__(self, folder: Path, module: str | Path, *args: str, **variables: str) -> None:
        self.args = (module, *args)
        self._output = tempfile.TemporaryDirectory()
        self._streams = [Path(self._output.name) / name for name in ("out", "err")]
        words = [str(module), *args] if isinstance(module, Path) else ["-m", module, *args]
        env = environment(folder) | variables
        super().__init__(context().Process(target=_first, args=(words, folder, env, self._streams)))

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (stream.read_text() for stream in self._streams)
        return out, err


class Fork(Forked):
    """`launch.start` by a fork of this process. The child has all its open files, so those of `pass_fds` too."""

    def __init__(self, command: list[str], env: dict[str, str], pass_fds: tuple[int, ...] = ()) -> None:
        assert command[:2] == [sys.executable, "-m"], command
        before = signal.pthread_sigmask(signal.SIG_BLOCK, launch.STOP_SIGNALS)
        super().__init__(mp.get_context("fork").Process(target=_run, args=(command[1:], env)))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_until(condition: Callable[[], object], seconds: float = 60, what: str = "it") -> None:
    """Wait until the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} seconds"
        time.sleep(0.01)


def _first(words: list[str], folder: Path, env: dict[str, str], streams: list[Path]) -> None:
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    launch.start = Fork  # type: ignore[assignment, misc]
    _run(words, env)


def _threads_anew() -> None:
    """Make torch's pool of threads anew after a fork, before there is a second thread that could do so, too.

    Two at once abort the process ("Invalid thread pool!", torch 2.15).
    """
    torch.set_num_threads(1)


def _run(words: list[str], env: dict[str, str]) -> None:
    """Do what exec and a new interpreter would; multiprocessing does what is due at the end."""
    os.setsid()
    for signum in launch.STOP_SIGNALS:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, launch.STOP_SIGNALS)
    os.environ.clear()
    os.environ.update(env)
    GlobalHydra.instance().clear()  # that of the sweep whose job this is
    _threads_anew()
    if words[0] == "-m":
        _, module, *sys.argv[1:] = words
        if not hasattr(sys.modules.get(module), "__path__"):
            sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))  # as the interpreter does for a script
        runpy.run_path(words[0], run_name="__main__")
