"""Names of runs: the folder, the group in W&B, the keys in which two configurations differ; and published weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from omegaconf import MISSING

from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.files import expand

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
    "data.on_device",
    "trainer.enable_progress_bar",
)

WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors", ".onnx")
WEIGHTS_WORDS = (
    "wandb:ENTITY/PROJECT/NAME:ALIAS, or published weights (torchvision, caffe:FILE, FILE.pth, FILE.safetensors, "
    "FILE.onnx, an exported folder)"
)
"""The published weights that commands take in place of a run, in words"""

MOST_BYTES = 200
"""Most bytes in the name of a job's folder; file systems allow 255"""


def job_folder_name(overrides: Iterable[str], seed: int) -> str:
    """Return the name of a job's folder: its overrides in alphabetical order, without bookkeeping, and its seed.

    The seed is always there, so that a sweep with more seeds finds the runs that are done.

    >>> job_folder_name(["model.activation=tanh", "data.root=/data", "sweep=figure1"], 2)
    'model.activation=tanh,seed=2'
    """
    named = {override.split("=")[0].lstrip("+~"): override.lstrip("+~") for override in overrides}  # the last counts
    named["seed"] = f"seed={seed}"
    return safe_file_name(",".join(sorted(named[key] for key in named if not is_bookkeeping(key))))


def safe_file_name(text: str) -> str:
    """Return a text as the name of a folder, with `_` for characters that file systems and shells do not take.

    A checksum of the whole text ends the name if the text is cut to 200 bytes. It also does if a character is replaced,
    except for brackets, quotes and spaces. So such texts stay different.
    """
    name = re.sub(r"[^\w.,=+-]+", "_", text)
    ambiguous = re.search(r"[^\w.,=+\-\[\]{}:'\" ]", text) is not None
    if len(name.encode()) > MOST_BYTES or ambiguous:
        name = name.encode()[: MOST_BYTES - 9].decode(errors="ignore") + f"-{_checksum(text)}"
    return name


def _checksum(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()[:8]


def run_group(name: str, scale: str) -> str:
    """Return the folder under runs/ that a run shares with its sweep. It is also the run's group in W&B.

    >>> run_group("lrn", "paper"), run_group("lrn", "small")
    ('lrn', 'lrn_small')
    """
    return name if scale == "paper" else f"{name}_{scale}"


WANDB_NAME, WANDB_TAG = 128, 64
"""Most characters that W&B takes in the name of a project, group, run or artifact, and in a tag"""


def cut(text: str, most: int = WANDB_NAME) -> str:
    """Return a text cut to a number of characters. If it is cut, it ends in a checksum, so that two stay different.

    >>> len(cut(200 * "a")), cut("short")
    (128, 'short')
    """
    return text if len(text) <= most else f"{text[: most - 9]}-{_checksum(text)}"


def artifact_name(group: str, folder: str) -> str:
    """Return the name of the W&B artifact with a run's checkpoint, in characters that W&B takes.

    >>> artifact_name("lrn_small", "model.lrn=_conv1_,seed=2")
    'lrn_small-model.lrn_conv1_seed_2'
    """
    return cut(re.sub(r"[^A-Za-z0-9.-]+", "_", f"{group}-{folder}"))


def parse_overrides(overrides: Iterable[str]) -> dict[str, str]:
    """Return overrides as {key: value}. The last of equal keys counts.

    >>> parse_overrides(["model.lrn=[conv1]", "+trainer.devices=2"])
    {'model.lrn': '[conv1]', 'trainer.devices': '2'}
    """
    parts = (override.lstrip("+~").partition("=") for override in overrides)
    return {key: value for key, _, value in parts}


def is_bookkeeping(key: str) -> bool:
    """Return whether a key is bookkeeping: it says where and how a run is recorded, not what is trained."""
    return any(key == b or key.startswith((b + ".", b + "/")) for b in BOOKKEEPING)


def config_differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return dotted keys whose values differ between two configurations, without bookkeeping.

    If one of them is older than a key, and so does not have it, the key counts as its default.
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


def names_weights(word: str) -> bool:
    """Return whether a word names published weights, as model/weights.py lists them, rather than a run."""
    path = expand(word)
    if word == "torchvision" or word.startswith("caffe:") or path.suffix in WEIGHTS_SUFFIXES:
        return True
    return (path / "preprocessing.json").is_file()
