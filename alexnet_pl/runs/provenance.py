"""The code that made a run, and the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from alexnet_pl.cpu import name
from alexnet_pl.files import ROOT

PACKAGES = ("alexnet-pl", "torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "wandb")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what a run computes."""
    return {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def machine() -> dict[str, Any]:
    return {"system": platform.platform(), "CPU": name(), "cpus": os.cpu_count()}


def git_state() -> dict[str, Any]:
    """Return commit and dirty flag of the checkout that the package runs from; empty for an installed wheel."""

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    if not (ROOT / ".git").exists():
        return {}
    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):  # no git on this machine, or no commit yet
        return {}
