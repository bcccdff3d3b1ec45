"""Commands as processes that have no start: forked from a server that has all imports done.

Each is a process as `python -m MODULE` is one: with an id, a session, a folder, an environment, output and an exit code
of its own, and signals reach it. Those that it starts for a run or for the jobs of a sweep are forks of it. What is
left out is a new interpreter, and the five seconds of importing torch, Lightning and Hydra into it; test_train.py,
jobs/test_launch.py and test_install.py start real ones. Jobs of a sweep that a test runs in its own process come from
the same server.
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
from pathlib import Path

import torch

from alexnet_pl.jobs import process
from tests.helpers.commands import environment

PRELOAD = [
    "torch", "torch._dynamo", "torch.distributed.tensor", "pytorch_lightning", "alexnet_pl.train",
    "alexnet_pl.training.fit", "alexnet_pl.report.cli", "alexnet_pl.prepare.prepare", "pyarrow.parquet",
    "plotly.graph_objects", "plotly.subplots", "wandb", "matplotlib.figure", "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg", "tests.helpers.ranks", "tests.helpers.warm",
]  # fmt: skip
process.PRELOADED = PRELOAD


def context() -> ForkServerContext:
    """Return the context of the one server that a worker of the tests has."""
    forkserver = mp.get_context("forkserver")
    forkserver.set_forkserver_preload(PRELOAD)
    return forkserver


class Process:
    """`python -m MODULE ARGS` in a folder, in the background. Or `python SCRIPT ARGS`, by its path."""

    def __init__(self, folder: Path, module: str | Path, *args: str, **variables: str) -> None:
        self.args = (module, *args)
        self._output = tempfile.TemporaryDirectory()
        self._streams = [Path(self._output.name) / name for name in ("out", "err")]
        words = [str(module), *args] if isinstance(module, Path) else ["-m", module, *args]
        env = environment(folder) | variables
        self._process = context().Process(target=_run, args=(words, folder, env, self._streams))
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


def wait_until(condition: Callable[[], object], seconds: float = 60, what: str = "it") -> None:
    """Wait until the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} seconds"
        time.sleep(0.01)


def _run(words: list[str], folder: Path, env: dict[str, str], streams: list[Path]) -> None:
    """Do what exec and a new interpreter would; multiprocessing does what is due at the end."""
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.setsid()
    os.chdir(folder)
    for signum in process.STOP_SIGNALS:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, process.STOP_SIGNALS)  # blocked where the package started the server
    os.environ.clear()
    os.environ.update(env)
    process.Process.method = "fork"
    # A pool of threads anew, before there is a second thread that could make one, too: two abort (torch 2.15).
    torch.set_num_threads(1)
    if words[0] == "-m":
        _, module, *sys.argv[1:] = words
        if not hasattr(sys.modules.get(module), "__path__"):
            sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))  # as the interpreter does for a script
        runpy.run_path(words[0], run_name="__main__")
