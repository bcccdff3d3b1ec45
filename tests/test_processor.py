"""What a process settles about memory and threads before torch is loaded."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from alexnet_pl import processor

FAULTS = """
import resource, sys
from alexnet_pl import processor
if sys.argv[1] == "kept":
    processor.keep_memory()
for _ in range(21):
    bytearray(64 << 20)
    if not _:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these settings")
def test_freed_memory_is_used_again_without_a_page_fault():
    faults = {}
    for how in ("kept", "usual"):
        env = {key: value for key, value in os.environ.items() if "MALLOC" not in key and key != "GLIBC_TUNABLES"}
        command = [sys.executable, "-c", FAULTS, how]
        faults[how] = int(subprocess.run(command, env=env, capture_output=True, check=True, timeout=60).stdout)
    assert faults["usual"] >= 20 * 32  # of 2 MB at most
    assert faults["kept"] < 0.1 * faults["usual"]


@pytest.mark.parametrize(
    ("precision", "policy"),
    [(None, "passive"), ("32-true", "passive"), ("bf16-mixed", None), ("bf16-true", None), ("auto", None)],
)
def test_threads_sleep_only_where_convolutions_let_them(
    precision: str | None, policy: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    processor.choose_waiting(precision)
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    processor.choose_waiting(precision)
    assert os.environ["OMP_WAIT_POLICY"] == "active"
