"""What the tests of the prepare command share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_pl.data import store
from tests.helpers.prepare_command import Commands
from tests.helpers.sources import PART, draw_source, write_folders


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FILES_PER_SHARD", PART)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "source", draw_source())


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.process.stdin.close()
    assert commands.process.wait(20) == 0


@pytest.fixture
def commands(started: Commands) -> Iterator[Commands]:
    yield started
    if started.running:  # the test failed
        os.kill(started.running, signal.SIGKILL)
        started.end()
