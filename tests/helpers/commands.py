"""The command line as its users call it: alexnet-train in this process, or in one of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import pytest

from alexnet_pl import train
from alexnet_pl.runs.run import Run


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a user without a W&B account."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return kept | {"HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


class Command(Protocol):
    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]: ...


def train_command(folder: Path, monkeypatch: pytest.MonkeyPatch, main: Callable[[], None] = train.main) -> Command:
    """Return alexnet-train, or another command, in a folder, in this process.

    Only the jobs of a sweep are processes here; what they print is not in the result.
    """

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        out, err, code = io.StringIO(), io.StringIO(), None
        begun: list[Run] = []
        claim = Run.start

        def start(run: Run, config: dict[str, Any], overrides: list[str]) -> None:
            begun.append(run)
            claim(run, config, overrides)

        with monkeypatch.context() as patch, mock.patch.dict(os.environ, environment(folder), clear=True):
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["alexnet-train", *args])
            patch.setattr(Run, "start", start)
            with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
                # Python's own choice of warnings, and its way to tell them, instead of pytest's
                for unseen in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                    warnings.simplefilter("ignore", unseen)
                patch.setattr(warnings, "showwarning", lambda *said: err.write(warnings.formatwarning(*said[:4])))
                try:
                    main()
                except SystemExit as end:
                    code = end.code
        for run in begun:
            if run.lock:
                run.lock.close()  # as the end of its process would
        if isinstance(code, str):
            print(code, file=err)
            code = 1
        return subprocess.CompletedProcess(args, code or 0, out.getvalue(), err.getvalue())

    return call


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    """Start alexnet-train in a folder, as a process in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "alexnet_pl.train", *args],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
