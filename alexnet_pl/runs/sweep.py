"""sweep.json in the folder of a sweep: the jobs that it asked for, started or not."""

from __future__ import annotations

import json
import os
from pathlib import Path

from alexnet_pl.files import damaged, lock, misfit, read_json, write


def record_sweep(folder: Path, jobs: dict[str, list[str]]) -> None:
    """Write sweep.json: {job folder's name: its overrides}. Jobs of earlier calls of the same sweep stay listed.

    Raises:
        ConfigError: the existing one is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = lock(folder, wait=True)  # the same sweep, started twice, adds to one list
    try:
        write(folder / "sweep.json", json.dumps(read_sweep(folder) | jobs, indent=1))
    finally:
        if held:
            held.close()


def read_sweep(folder: Path) -> dict[str, list[str]]:
    """Return the jobs that sweeps asked for in a folder, by the names of their folders; empty if there are none.

    Raises:
        ConfigError: sweep.json is damaged.
    """
    path, advice = folder / "sweep.json", "remove it: the same sweep writes it again"
    jobs = read_json(path, advice=advice)
    for name, overrides in jobs.items():
        if name in ("", ".", "..") or {"/", "\0", os.sep} & set(name):
            raise damaged(path, f"{name!r} is no name of a folder", advice)
        if wrong := misfit(overrides, [str], name):
            raise damaged(path, wrong, advice)
    return jobs
