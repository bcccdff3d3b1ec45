"""What tests of several processes share."""

from __future__ import annotations

import pytest

from alexnet_pl.console import RANK_VARIABLES


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch):
    """No variables of torchrun, and none that stay behind."""
    for name in (*RANK_VARIABLES, "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch
