"""How a process uses the processor, settled before torch is loaded: who keeps freed memory, and how threads wait."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h"""


def keep_memory() -> None:
    """Let memory that tensors gave back stay with the process, where the C library is glibc.

    By default it takes each large block from the system and returns it, and every page of a fresh block costs a fault:
    of a float batch more than its arithmetic (see docs/architecture.md). Kept, the pages are there already.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def choose_waiting(precision: str | int | None) -> None:
    """Let torch's threads sleep while they wait, but for bfloat16; what the user set stays.

    Threads that spin starve those of another program; seen with two runs on two cores: 1,000 pictures a second each
    instead of 2,200. In bfloat16 the threads also wait inside a convolution, where they always spin, and if sleepers
    wake on one core they do so in vain: 130 instead of 2,000.

    Args:
        precision: as trainer.precision; auto may become bfloat16.
    """
    if str(precision).removesuffix("-true") in ("None", "32", "64"):
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
