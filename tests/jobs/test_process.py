"""Processes that start warm: what they get, what they keep, and that the server they come from is fit to be forked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_pl import cpu
from alexnet_pl.files import lock
from alexnet_pl.jobs.process import Process
from tests.helpers.processes import wait_until

SERVER = """
import importlib, os, torch
from alexnet_pl.jobs.process import PRELOADED
asked = []
for name in ("_cuda_init", "_cuda_getDeviceCount"):
    if real := getattr(torch._C, name, None):
        setattr(torch._C, name, lambda name=name, real=real: (asked.append(name), real())[1])
for module in PRELOADED:
    importlib.import_module(module)
print(len(os.listdir("/proc/self/task")), asked, torch.cuda.is_initialized(), torch.cuda._is_in_bad_fork())
"""
"""What the server does before its first fork, and what would keep its forks from CUDA"""


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the server of the tests for one whose interpreter has started with this environment."""
    monkeypatch.setattr(Process, "served", {name: os.environ.get(name) for name in cpu.READ_AT_START})


def run(code: str, *arguments: object, **variables: str) -> int | None:
    """Run code in a process; its exit code."""
    words = ["tests.helpers.script", code, *map(str, arguments)]
    process = Process(words, dict(os.environ) | variables)
    wait_until(lambda: process.returncode is not None)
    return process.returncode


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process is a new interpreter")
def test_the_server_starts_no_thread_and_leaves_cuda_alone():
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", SERVER], env=env, capture_output=True, text=True, check=True)
    assert out.stdout == "1 [] False False\n"


def test_a_process_has_the_environment_the_folder_and_the_threads_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    code = "import torch; open('seen', 'w').write(f\"{os.environ['COLOUR']} {torch.get_num_threads()} {sys.argv[2:]}\")"
    assert run(code, "a b", COLOUR="red", OMP_NUM_THREADS="3") == 0
    assert (tmp_path / "seen").read_text() == "red 3 ['a b']"
    assert "COLOUR" not in os.environ
    assert run("import torch; sys.exit(torch.get_num_threads())", OMP_NUM_THREADS="2,1") == 2


@pytest.mark.parametrize("threads", ["abc", "0", "-1", ""])
def test_a_number_of_threads_that_is_none_is_left_to_torch(threads: str):
    assert run("import torch; sys.exit(torch.get_num_threads() < 1)", OMP_NUM_THREADS=threads) == 0


def test_it_leads_a_session_and_tells_how_it_ended(tmp_path: Path):
    assert run("sys.exit(0 if os.getsid(0) == os.getpid() else 1)") == 0
    assert run("sys.exit(75)") == 75
    assert run("os.kill(os.getpid(), signal.SIGKILL)") == -9
    assert run("raise KeyboardInterrupt") == 130
    assert run("sys.exit(255)") == 255


def test_a_signal_to_one_that_has_ended_is_none(tmp_path: Path):
    for _ in range(20):
        process = Process(["tests.helpers.script", "pass"], dict(os.environ))
        while process.returncode is None:
            process.send_signal(0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process is a new interpreter")
def test_it_is_a_fork_of_the_server_unless_it_needs_another_interpreter(tmp_path: Path):
    """What malloc and OpenMP read at their start cannot be changed in a fork."""
    code = "open(sys.argv[2], 'w').write(f\"{os.getppid()} {os.environ.get('OMP_WAIT_POLICY')}\")"
    for name, variables in (("fork", {}), ("interpreter", {"OMP_WAIT_POLICY": "active"})):
        assert run(code, tmp_path / name, **variables) == 0
    (server, _), (parent, policy) = ((tmp_path / name).read_text().split() for name in ("fork", "interpreter"))
    assert int(server) != os.getpid()
    assert (int(parent), policy) == (os.getpid(), "active")


def test_it_holds_a_lock_as_long_as_it_lives(tmp_path: Path):
    held = lock(tmp_path)
    assert held
    waits = "open('ready', 'w')\nwhile not os.path.exists('end'): time.sleep(0.01)"
    process = Process(["tests.helpers.script", f"os.chdir(r'{tmp_path}')\n{waits}"], dict(os.environ), held)
    wait_until((tmp_path / "ready").exists)
    held.close()
    with pytest.raises(BlockingIOError):
        lock(tmp_path)
    (tmp_path / "end").touch()
    wait_until(lambda: process.returncode == 0)
    again = lock(tmp_path)
    assert again
    again.close()
