"""What is told where the processes of a run cannot reach each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist
from torch.distributed import DistBackendError

from alexnet_pl.parallel.strategies import INTERFACES, lost_connection


@pytest.fixture(autouse=True)
def no_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in INTERFACES:
        monkeypatch.delenv(name, raising=False)


def test_an_interface_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nope")
    with pytest.raises(RuntimeError) as error:
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    reason = lost_connection(error.value)
    assert reason.startswith("ifa != nullptr. Unable to find address for: nope")
    assert "GLOO_SOCKET_IFNAME=nope in the environment" in reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("[/pytorch/third_party/gloo/gloo/tcp/pair.cc:547] Connection closed by peer [::1]:9"),
            "Connection closed by peer [::1]:9",
        ),
        (
            DistBackendError("NCCL error in: NCCLUtils.cpp:94, invalid usage\nLast error:\nno socket interface found"),
            "no socket interface found",
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ""),
        (ValueError("gloo"), ""),
    ],
    ids=["gloo", "nccl", "another", "no error of torch"],
)
def test_the_reason_is_that_of_gloo_or_nccl(error: Exception, reason: str):
    assert lost_connection(error) == reason
