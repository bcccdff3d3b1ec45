"""What a process settles about memory and threads before torch is loaded."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_pl import cpu
from tests.helpers.commands import environment
from tests.helpers.runs import TINY

FAULTS = """
import resource
for _ in range(21):
    bytearray(64 << 20)
    if not _:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these settings")
def test_freed_memory_is_used_again_without_a_page_fault():
    usual = {key: value for key, value in os.environ.items() if "MALLOC" not in key and key != "GLIBC_TUNABLES"}
    faults = [
        int(subprocess.run([sys.executable, "-c", FAULTS], env=env, capture_output=True, check=True, timeout=60).stdout)
        for env in (usual, usual | cpu.process_environment("32-true"))
    ]
    assert faults[0] >= 20 * 32  # of 2 MB at most
    assert faults[1] < 0.1 * faults[0]


@pytest.mark.parametrize(
    ("precision", "policy"), [("32-true", "passive"), ("64-true", "passive"), ("bf16-mixed", None), ("bf16-true", None)]
)
def test_threads_sleep_only_where_convolutions_let_them(
    precision: str, policy: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert cpu.thread_environment(precision).get("OMP_WAIT_POLICY") == policy
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert cpu.thread_environment(precision) == {}


def test_a_process_that_trains_compiles_itself_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    assert cpu.process_environment("32-true")["TORCHINDUCTOR_COMPILE_THREADS"] == "1"
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "4")
    assert "TORCHINDUCTOR_COMPILE_THREADS" not in cpu.process_environment("32-true")


@pytest.mark.slow
@pytest.mark.skipif(platform.system() != "Linux", reason="libgomp shows its settings, other libraries may not")
def test_the_command_settles_it_before_torch_is_loaded(tmp_path: Path):
    """Also where it counts GPUs first, and asks torch for it."""
    env = environment(tmp_path) | {"OMP_DISPLAY_ENV": "verbose"}
    env.pop("OMP_WAIT_POLICY", None)
    command = [sys.executable, "-m", "alexnet_pl.train", *TINY, "trainer=auto", "trainer.max_epochs=1"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "GOMP_SPINCOUNT = '0'" in done.stderr
