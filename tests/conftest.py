"""What all tests share: quick processes, caches of their own, and alexnet-train as a fixture."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.commands import Command

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side; torch reads it when it is imported

CACHES = {
    "torch": "TORCHINDUCTOR_CACHE_DIR", "triton": "TRITON_CACHE_DIR", "matplotlib": "MPLCONFIGDIR",
    "others": "XDG_CACHE_HOME",
}  # fmt: skip
"""Environment variables with the folders where libraries keep what they compiled or found"""
LONGEST = [
    "types",
    "launch",
    "train",
    "kills",
    "shard",
    "sweeps",
    "readme",
    "contributing",
    "checks",
    "evaluate",
    "loggers",
    "axes",
    "loader",
    "agent",
]
LONGEST += ["refusals", "bench", "contents", "interruption", "trained"]
"""Files that take longest, the longest first: a worker has a whole file, and one at the end would leave others idle"""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the caches of libraries in pytest's own, .pytest_cache, and nothing in the user's folders.

    Hear Ctrl-C also where a script has started the tests in the background, whose processes ignore it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if cache := getattr(config, "cache", None):  # there is none with -p no:cacheprovider
        for name, variable in CACHES.items():
            os.environ[variable] = str(cache.mkdir(name))
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime's, which leaves files


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session", autouse=True)
def quick() -> None:
    """Make tests quick in each process that runs some; pytest's own with -n runs none, and starts without torch."""
    from tests.helpers import processes, speed  # noqa: F401


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`train("optim.lr=1", ...)`: alexnet-train in tmp_path, without the seconds that a process takes to start."""
    from tests.helpers.commands import train_command

    return train_command(tmp_path, monkeypatch)


@pytest.fixture
def describe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`describe("model=alexnet", ...)`: alexnet-describe in tmp_path, in this process."""
    from alexnet_pl.describe import main
    from tests.helpers.commands import train_command

    return train_command(tmp_path, monkeypatch, main)


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """As `train`, in a process of its own."""
    from tests.helpers.commands import start

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        running = start(tmp_path, *args)
        out, err = running.communicate(timeout=200)
        return subprocess.CompletedProcess(args, running.returncode, out, err)

    return call
