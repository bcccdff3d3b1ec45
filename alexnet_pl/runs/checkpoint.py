"""Write checkpoints of runs, and check one as a whole before using it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.errors import ConfigError
from alexnet_pl.files import damaged, misfit, require_file
from alexnet_pl.model.weight_files import load_torch
from alexnet_pl.runs.config import check_config
from alexnet_pl.runs.naming import config_differences

FIXED_KEYS = (
    "seed",
    "model.",
    "data.",
    "optim.",
    "trainer.precision",
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip",
    "trainer.more.gradient_clip_algorithm",
    "trainer.limit_train_batches",
)
"""Keys that a run must keep when it continues on other devices"""
NET = ("state_dict", "config", "input")
"""Entries of a checkpoint that its net needs"""
PROGRESS = ("state_dict", "config", "progress")
"""Entries that a continued run needs, besides Lightning's own"""
SHAPE = {
    "state_dict": {}, "config": {}, "input": {"mean": Tensor, "classes": [str]},
    "progress": {"images_seen": int, "window": [float], "epoch": [float], "results": {}},
}  # fmt: skip
"""The types of a checkpoint's entries"""
WEIGHTS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def write(contents: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values.

    Raises:
        OSError: it cannot be written, for example because the disk is full.
    """
    try:
        with path.open("wb") as file:
            torch.save(contents, file)
    except RuntimeError as error:  # in place of the file system's, when torch closes what it could not write
        raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def read(path: Path, needed: Iterable[str], advice: str) -> dict[str, Any]:
    """Return the entries of a checkpoint. Its weights stay on the disk until they are used.

    Args:
        needed: entries that it must have.
        advice: what to do about a damaged one.
    Raises:
        ConfigError: there is none, or it is damaged.
    """
    try:
        size = require_file(path, advice)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no checkpoint {path}: give a run folder, or a file in its checkpoints/") from error
    if not zipfile.is_zipfile(path):  # as torch writes them
        raise damaged(path, "it is cut short, or no checkpoint" if size else "it is empty", advice)
    try:
        found = load_torch(path, mmap=True)
    except ValueError as error:
        raise damaged(path, error, advice) from error
    if wrong := misfit(found, SHAPE) or _missing(found, needed) or _no_weights(found["state_dict"], size):
        raise damaged(path, wrong, advice)
    return found | {"config": check_config(found["config"], path, advice)}


def _missing(found: dict[str, Any], needed: Iterable[str]) -> str:
    keys = [*needed, *(f"input.{key}" for key in SHAPE["input"] if "input" in needed)]
    keys += [f"progress.{key}" for key in SHAPE["progress"] if "progress" in needed]
    absent = [key for key in keys if not _has(found, key)]
    return f"it has no {absent[0]}" if absent else ""


def _has(found: dict[str, Any], key: str) -> bool:
    first, _, second = key.partition(".")
    return first in found and (not second or second in found[first])


def _no_weights(state: dict[str, Any], size: int) -> str:
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.dtype not in WEIGHTS:
            return f"state_dict.{name} is no tensor of weights"
    if sum(value.nbytes for value in state.values()) > size:
        return "its weights claim to be larger than the file"
    return "" if state else "it has no weights"


def images_seen(path: Path) -> int:
    """Return how many images a run had trained on when a checkpoint was written.

    Raises:
        ConfigError: the file is not a checkpoint of a run.
    """
    return int(read(path, PROGRESS, "remove it to start the run again")["progress"]["images_seen"])


def check_origin(path: Path, cfg: Config) -> None:
    """Refuse to continue from a checkpoint that a run of this configuration could not have written, on any devices.

    Raises:
        ConfigError: the file is not a checkpoint of a run, or one of another net, other data or another rule.
    """
    changed = config_differences(read(path, PROGRESS, "give another ckpt_path")["config"], as_dict(cfg))
    precisions = {_weight_precision(value) for value in changed.get("trainer.precision", ())}
    if len(precisions) == 1:
        changed.pop("trainer.precision")
    for key in ("model.compile_lrn", "model.compile_net", "model.channels_last"):  # how it is computed, not what
        changed.pop(key, None)
    changed = {key: was for key, was in changed.items() if key.startswith(FIXED_KEYS)}
    if changed:
        differences = ", ".join(f"{key} is {old} there and {new} here" for key, (old, new) in changed.items())
        raise ConfigError(
            f"ckpt_path={path} is of another run ({differences}): a run can only change its devices and length"
        )


def _weight_precision(precision: str | None) -> str:
    """Return the precision of the weights under a trainer.precision; the mixed ones compute in another."""
    return precision if precision in ("64-true", "64", "bf16-true", "16-true") else "32-true"
