"""The texts of `alexnet-train --help`, the keys that people set most, and of `--help-all`, which has every key."""

from __future__ import annotations

import textwrap
from enum import Enum
from functools import reduce
from typing import Any

import yaml

from alexnet_pl.config.keys import format_value, key_docs, key_types, type_words
from alexnet_pl.config.schema import as_dict, from_dict
from alexnet_pl.files import ROOT

COMMON = (
    "name", "seed", "ckpt_path", "pretrained", "test_views", "stop_at_train_error",
    "model.activation", "model.width", "model.lrn", "model.pooling", "model.dropout",
    "data.root", "data.batch_size", "data.random_flip", "data.color_noise",
    "optim.lr", "optim.momentum", "optim.weight_decay",
    "trainer.max_epochs", "trainer.devices", "trainer.precision", "logger.mode",
)  # fmt: skip
"""The keys that people set most"""
COLUMN, WIDTH = 29, 100
"""Columns where the text beside a default begins, and where its lines end"""

TEXT = """\
usage: alexnet-train [-m] [GROUP=CHOICE ...] [KEY=VALUE ...]

Train AlexNet and its relatives: one run, or a sweep of runs.
`python -m alexnet_pl.train` is the same command.

  alexnet-train sweep=figure1                          train a named sweep, or continue it
  alexnet-train sweep=figure1 hydra.sweeper.n_jobs=4   train four of its runs at a time
  alexnet-train model=alexnet data.batch_size=64       train one run
  alexnet-train -m model.activation=relu,tanh seed=1,2 train one run for each combination of values

GROUP=CHOICE: a group with its default choice on the left, all its choices on the right.

{groups}

KEY=VALUE: the keys that people set most, with their defaults. An experiment has its own.

{common}

  --help-all                           show all {count} keys with types, defaults and meanings
  --cfg job --resolve                  show the whole configuration of a command, and train nothing
  --hydra-help                         show Hydra's own options

To complete groups, choices and keys with TAB in bash: eval "$(alexnet-train -sc install=bash)"
TAB knows neither the values of keys nor all keys of trainer: --help-all lists them.
To see the net: alexnet-describe model=alexnet
To see the hours: alexnet-estimate experiment=alexnet
"""
ALL = """\
All keys of alexnet-train, as KEY=DEFAULT (TYPE). An experiment has defaults of its own: see
alexnet-train experiment=NAME --cfg job --resolve.

{keys}
"""


def help_text() -> str:
    """Return the text of --help: groups with their choices, and the keys that people set most."""
    values, kinds, docs = default_values(), key_types(), key_docs()
    common = []
    for key in COMMON:
        first, kind = " ".join(docs[key].split()).partition(". ")[0].rstrip("."), kinds[key]
        choices = f" ({type_words(kind)})" if isinstance(kind, type) and issubclass(kind, Enum) else ""
        common.append(_beside(f"{key}={format_value(values[key])}", first + choices))
    return TEXT.format(groups=_groups(), common="\n".join(common), count=len(kinds))


def all_keys_text() -> str:
    """Return the text of --help-all: every key with its default, its type and its meaning."""
    values, kinds = default_values(), key_types()
    blocks = []
    for key, text in key_docs().items():
        meaning = textwrap.fill(" ".join(text.split()), WIDTH, initial_indent="    ", subsequent_indent="    ")
        blocks.append(f"{key}={format_value(values[key])}  ({type_words(kinds[key])})\n{meaning}")
    return ALL.format(keys="\n".join(blocks))


def default_values() -> dict[str, Any]:
    """Return the plain value of every dotted key in a command without overrides.

    Hydra is not asked: composing would take most of the time of --help.
    """
    top, choices = _config_file()
    kinds = key_types()
    plain = {key: value for key, value in top.items() if key in kinds}
    for group, choice in choices.items():
        if any(key.startswith(f"{group}.") for key in kinds):  # the files of the other groups have keys of all groups
            plain[group] = yaml.safe_load((ROOT / "conf" / group / f"{choice}.yaml").read_text())
    cfg = as_dict(from_dict(plain))
    return {key: reduce(dict.__getitem__, key.split("."), cfg) for key in kinds}


def _config_file() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the keys of conf/config.yaml, and the default choices of groups."""
    top = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    entries = [entry for entry in top.pop("defaults") if isinstance(entry, dict)]
    return top, {group: choice for entry in entries for group, choice in entry.items() if " " not in group and choice}


def _groups() -> str:
    """Return a block for each group: its default choice, and all its choices."""
    choices, groups = _config_file()[1], dict[str, list[str]]()
    for file in sorted([*(ROOT / "conf").glob("*/*.yaml"), *(ROOT / "sweeps").glob("*.yaml")]):
        groups.setdefault("sweep" if file.parent.name == "sweeps" else file.parent.name, []).append(file.stem)
    lefts = {group: f"{group}={choices[group]}" if group in choices else group for group in groups}
    return "\n".join(_beside(lefts[group], ", ".join(names)) for group, names in groups.items())


def _beside(left: str, text: str) -> str:
    """Return an entry of two columns."""
    first, *rest = textwrap.wrap(text, WIDTH - COLUMN, break_on_hyphens=False)
    return "\n".join([f"  {left:{COLUMN - 2}}{first}", *(" " * COLUMN + line for line in rest)])
