"""The text of `alexnet-train --help`: commands to begin with, the choices of each group, every key with its meaning."""

from __future__ import annotations

from alexnet_pl.config.keys import key_docs, key_types, type_words
from alexnet_pl.files import ROOT

TEXT = """\
Train AlexNet and its kin: one run, or a sweep of runs.

One run:          alexnet-train model.activation=tanh trainer.max_epochs=20
A sweep:          alexnet-train -m model.activation=relu,tanh seed=1,2,3
A named sweep:    alexnet-train sweep=figure1      (the same command again continues where it stopped)
Several at once:  alexnet-train sweep=figure1 hydra.sweeper.n_jobs=4
What would run:   alexnet-train experiment=figure1 --cfg job --resolve
The net:          alexnet-describe model=alexnet
How long:         alexnet-estimate experiment=alexnet
Completion:       eval "$(alexnet-train -sc install=bash)"

Choices, GROUP=CHOICE:

{groups}

Keys, KEY=VALUE:

{keys}

Hydra's own options: alexnet-train --hydra-help
"""


def help_text() -> str:
    """Return the whole text; nothing is composed for it."""
    return TEXT.format(groups=_groups(), keys=_keys())


def _groups() -> str:
    """Return a line for each group with its choices."""
    files = [*(ROOT / "conf").glob("*/*.yaml"), *(ROOT / "sweeps").glob("*.yaml")]
    groups: dict[str, list[str]] = {}
    for file in sorted(files):
        groups.setdefault("sweep" if file.parent.name == "sweeps" else file.parent.name, []).append(file.stem)
    return "\n".join(f"{group:11} {', '.join(names)}" for group, names in groups.items())


def _keys() -> str:
    """Return two lines for each key: its name with choices or type, and its meaning."""
    kinds = key_types()
    return "\n".join(f"{key}  ({type_words(kinds[key])})\n    {text}" for key, text in key_docs().items())
