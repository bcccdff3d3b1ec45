"""Refuse mistakes in the trainer group. Lightning would find them only when the run has its folder, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from alexnet_pl.config.schema import Config, Trainer
from alexnet_pl.config.suggestions import suggest
from alexnet_pl.data.length import training_images

LEAST = {
    "max_epochs": -1, "max_steps": -1, "check_val_every_n_epoch": 1, "num_sanity_val_steps": -1,
    "accumulate_grad_batches": 1, "gradient_clip_val": 0,
}  # fmt: skip
"""The least value of each key; -1 means no end, or all"""
PROFILERS = ("simple", "advanced", "pytorch")


def trainer_rules(c: Config) -> Iterator[str]:
    """Yield a sentence for each rule that is broken."""
    t = c.trainer
    for key, least in LEAST.items():
        value = getattr(t, key)
        if value is not None and value < least:
            yield f"trainer.{key}={value} must be at least {least}"
        if value == 0 and least < 0 and key.startswith("max"):
            yield f"trainer.{key}=0 would not train: use trainer.{key} above 0"
    if all(limit is None for limit in (t.max_epochs, t.max_steps, t.max_time, t.more.get("fast_dev_run"))):
        yield "training would never end: set trainer.max_epochs, trainer.max_steps or trainer.max_time"
    if t.max_time is not None and not re.fullmatch(r"(?=.*[1-9])\d{1,6}:\d\d:\d\d:\d\d", t.max_time):
        yield f"trainer.max_time={t.max_time} must be DD:HH:MM:SS, such as 00:12:00:00 for half a day"
    if t.profiler is not None and t.profiler not in PROFILERS:
        yield f"trainer.profiler={t.profiler} is not a choice: {suggest(t.profiler, list(PROFILERS))}"
    if not (t.deterministic in (None, "warn") or isinstance(t.deterministic, bool)):
        yield f"trainer.deterministic={t.deterministic} is not a choice: choose from true, false, warn"
    yield from _limit_rules(c)
    yield from _device_rules(t)


def _limit_rules(c: Config) -> Iterator[str]:
    t = c.trainer
    for key in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "val_check_interval"):
        value = getattr(t, key)
        if value is None:
            continue
        if not _is_count(value) and not (isinstance(value, float) and 0 <= value <= 1):
            yield f"trainer.{key}={value} must be a number of batches, or a share such as 0.5"
        elif value == 0 and key in ("limit_train_batches", "val_check_interval"):
            yield f"trainer.{key}=0 would not {'train' if 'train' in key else 'validate'}: use trainer.{key} above 0"


def interval_rules(c: Config) -> Iterator[str]:
    """Yield a sentence if validation comes after more batches than an epoch has. The other rules must hold already."""
    t, images = c.trainer, training_images(c.data)
    if not images or not _is_count(t.val_check_interval):
        return
    batches = -(-images // c.data.batch_size)
    if t.limit_train_batches is not None:
        limit = t.limit_train_batches
        batches = min(batches, limit if _is_count(limit) else int(batches * limit))
    if t.val_check_interval > batches:
        yield (
            f"trainer.val_check_interval={t.val_check_interval} is more than the {batches} batches of an epoch: "
            "use trainer.check_val_every_n_epoch to validate every so many epochs"
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _device_rules(t: Trainer) -> Iterator[str]:
    """Yield the mistakes in a list of devices; `layouts.layout_rules` checks a number."""
    listed = t.devices.split(",") if isinstance(t.devices, str) and "," in t.devices else t.devices
    if isinstance(listed, list) and listed:
        numbers = [str(device).strip() for device in listed]
        if not all(map(str.isdecimal, numbers)) or len(set(map(int, filter(str.isdecimal, numbers)))) < len(numbers):
            yield f"trainer.devices={t.devices} must be a number of devices, or list different GPUs: [0,1]"
        elif t.accelerator in ("cpu", "mps"):
            yield f"trainer.devices={t.devices} lists GPUs, but trainer.accelerator={t.accelerator}: give a number"
