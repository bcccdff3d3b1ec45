"""What a run is called: its folder, its group in W&B, and in what two configurations differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from omegaconf import MISSING

from alexnet_pl.config.schema import Config, as_dict

# Overrides that say where and how a run is recorded, not what is trained: they do not name the folder, and may
# differ when a run is continued.
BOOKKEEPING = (
    "sweep",
    "scale",
    "name",
    "logger",
    "report",
    "hydra",
    "data.name",
    "data.root",
    "data.download",
    "data.workers",
    "trainer.enable_progress_bar",
)


def job_folder_name(overrides: Iterable[str]) -> str:
    """The name of a job's folder: its overrides in alphabetical order, without bookkeeping.

    >>> folder_name(["seed=2", "model.activation=tanh", "data.root=/data", "sweep=figure1"])
    'model.activation=tanh,seed=2'
    """
    plain = [o.lstrip("+~") for o in overrides]
    named = {o.split("=")[0]: o for o in plain}  # of a key given twice, the last counts
    kept = sorted(override for key, override in named.items() if not is_bookkeeping(key))
    return safe_file_name(",".join(kept)) or "defaults"


def safe_file_name(text: str) -> str:
    """A text as the name of a folder: `_` for what file systems mind, a checksum for the rest of a long one."""
    name = re.sub(r"[^\w.,=+-]+", "_", text)
    if len(name) > 150:  # file systems end at 255 bytes
        name = f"{name[:140]}-{hashlib.sha1(name.encode()).hexdigest()[:8]}"
    return name


def run_group(config: dict[str, Any]) -> str:
    """The folder under runs/ that a run shares with its sweep, which is also its group in W&B.

    >>> group({"name": "lrn", "scale": "paper"}), group({"name": "lrn", "scale": "small"})
    ('lrn', 'lrn_small')
    """
    scale = config.get("scale", "paper")  # once there was one only
    return str(config["name"]) + f"_{scale}" * (scale != "paper")


def parse_overrides(overrides: Iterable[str]) -> dict[str, str]:
    """Overrides as {key: value}; of a key given twice, the last counts.

    >>> given(["model.lrn=[conv1]", "+trainer.devices=2"])
    {'model.lrn': '[conv1]', 'trainer.devices': '2'}
    """
    parts = (override.lstrip("+~").partition("=") for override in overrides)
    return {key: value for key, _, value in parts}


def is_bookkeeping(key: str) -> bool:
    """Whether a key says where and how a run is recorded, not what is trained."""
    return any(key == b or key.startswith((b + ".", b + "/")) for b in BOOKKEEPING)


def config_differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ between two configurations, bookkeeping left out.

    A key that one of them does not have, as it is from before there was such a key, counts as its default.
    """
    a, b = (_defaults() | flatten_config(config) for config in (a, b))
    return {k: (a.get(k), b.get(k)) for k in sorted(a | b) if a.get(k) != b.get(k) and not is_bookkeeping(k)}


@cache
def _defaults() -> dict[str, Any]:
    return {key: value for key, value in flatten_config(as_dict(Config())).items() if value != MISSING}


def flatten_config(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim": {"lr": 1}} -> {"optim.lr": 1}."""
    out: dict[str, Any] = {}
    for key, value in node.items():
        out |= flatten_config(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + str(key): value}
    return out
