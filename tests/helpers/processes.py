"""Commands as processes that have no start: forked from a server that has all imports done.

Each is a process as `python -m MODULE` is one: with an id, a session, a folder, an environment, output and an exit code
of its own, and signals reach it. So are the processes that it starts for a run or for the jobs of a sweep. What is left
out is a new interpreter, and the five seconds of importing torch, Lightning and Hydra into it; tests/test_train.py,
test_launch.py and test_install.py start real ones.
"""

from __future__ import annotations

import atexit
import multiprocessing as mp
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NoReturn

import torch
from hydra.core.global_hydra import GlobalHydra

from alexnet_pl.jobs import launch
from tests.conftest import environment

PRELOAD = [
    "torch", "torch._dynamo", "torch.distributed.tensor", "pytorch_lightning", "alexnet_pl.train",
    "alexnet_pl.training.module", "alexnet_pl.training.checkpoints", "alexnet_pl.report.cli", "alexnet_pl.prepare.cli",
    "pyarrow.parquet", "plotly.graph_objects", "plotly.subplots", "wandb", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "tests.helpers.ranks", "tests.helpers.warm",
]  # fmt: skip


def context() -> ForkServerContext:
    """Of the one server that a worker of the tests has."""
    forkserver = mp.get_context("forkserver")
    forkserver.set_forkserver_preload(PRELOAD)
    return forkserver


class Process:
    """`python -m MODULE ARGS` in a folder, in the background; used as a Popen. Or `python SCRIPT ARGS`, by its path."""

    def __init__(self, folder: Path, module: str | Path, *args: str, **variables: str) -> None:
        self.args = (module, *args)
        self._output = tempfile.TemporaryDirectory()
        self._streams = [Path(self._output.name) / name for name in ("out", "err")]
        words = [str(module), *args] if isinstance(module, Path) else ["-m", module, *args]
        env = environment(folder) | variables
        self._process = context().Process(target=_first, args=(words, folder, env, self._streams))
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

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

    def send_signal(self, signum: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Fork(subprocess.Popen[Any]):
    """A Popen that forks this process where a run's process was asked for; it has all else from its base class."""

    def _execute_child(self, args: Any, *more: Any) -> None:
        if args[:3] != [sys.executable, "-m", "alexnet_pl.train"]:
            super()._execute_child(args, *more)  # type: ignore[misc]
            return
        env = more[5]
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, launch.STOP_SIGNALS)
        self.pid = os.fork()
        if not self.pid:
            _run(args[1:], env)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._child_created = True


def _first(words: list[str], folder: Path, env: dict[str, str], streams: list[Path]) -> NoReturn:
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    subprocess.Popen = Fork  # type: ignore[misc]
    _run(words, env)


def _threads_anew() -> None:
    """Make torch's pool of threads anew after a fork, before there is a second thread that could do so, too.

    Two at once abort the process ("Invalid thread pool!", torch 2.15).
    """
    torch.set_num_threads(1)


def _run(words: list[str], env: dict[str, str]) -> NoReturn:
    """What exec, a new interpreter and its end would do."""
    os.setsid()
    for signum in launch.STOP_SIGNALS:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, launch.STOP_SIGNALS)
    os.environ.clear()
    os.environ.update(env)
    GlobalHydra.instance().clear()  # that of the sweep whose job this is
    _threads_anew()
    code: Any = None
    try:
        if words[0] == "-m":
            _, module, *sys.argv[1:] = words
            if not hasattr(sys.modules.get(module), "__path__"):
                sys.modules.pop(module, None)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).parent))  # as the interpreter does for a script
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
