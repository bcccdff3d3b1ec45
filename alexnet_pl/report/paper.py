"""Read paper.yaml: the paper's claims in numbers, the sweeps that test them, and the results of the authors' runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_pl.errors import ConfigError

FILE = Path(__file__).with_name("paper.yaml")
VIEWS = "views"
"""Key beside the settings of an arm: 10 for errors averaged over ten views of each image, 1 for those of the centre"""


@dataclass
class Difference:
    """A difference: how much higher one arm's errors are than another's."""

    of: dict[str, Any]
    """settings of the runs that have the error, {model.lrn: []}, and perhaps `views`"""
    against: dict[str, Any]
    """settings of the runs that it is compared with"""
    top1: float | None = None
    """percentage points of top-1 error"""
    top5: float | None = None
    """percentage points of top-5 error"""


@dataclass
class Value:
    """The published errors of one arm."""

    arm: dict[str, Any]
    """settings of the runs, as above; {} stands for all runs of the sweep"""
    views: int | None = None
    """10 or 1"""
    top1: float | None = None
    """top-1 error in percent"""
    top5: float | None = None
    """top-5 error in percent"""


@dataclass
class Claim:
    """A sentence of the paper with numbers in it."""

    id: str
    topic: str
    """subject, in a word or two"""
    section: str
    """place in the paper, "3.3"; or `Table 2`"""
    says: str
    """the sentence, with the numbers"""
    sweep: str = ""
    """the file in sweeps/ that tests it"""
    command: str = ""
    """the command that tests it; without a sweep, the command that shows it"""
    runs: str = ""
    """the authors' own runs behind the numbers, if they are known"""
    differences: list[Difference] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    numbers: str = ""
    """numbers of the claim that are not final errors"""


@cache
def claims(file: Path = FILE) -> tuple[Claim, ...]:
    """Return the claims, in the order of the paper.

    Raises:
        ConfigError: an entry has an unknown key, a wrong type, or numbers that cannot be.
    """
    read: list[Claim] = []
    entries = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(entries, list)
    for i, entry in enumerate(entries, 1):
        place = f"{file.name}: {entry.get('id', f'entry {i}') if isinstance(entry, dict) else f'entry {i}'}"
        try:
            claim = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Claim), entry))
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            raise ConfigError(f"{place}: {str(error).splitlines()[0]}") from error
        assert isinstance(claim, Claim)
        for sentence in _rules(claim):
            raise ConfigError(f"{place}: {sentence}")
        read.append(claim)
    for name, n in Counter(claim.id for claim in read).items():
        if n > 1:
            raise ConfigError(f"{file.name}: {name} is the id of {n} claims")
    return tuple(read)


def _rules(claim: Claim) -> Iterator[str]:
    """Yield a sentence for each rule that is broken."""
    if not re.fullmatch(r"[a-z0-9_]+", claim.id):
        yield "an id is of small letters, digits and underscores"
    if claim.sweep and f"sweep={claim.sweep}" not in claim.command.split():
        yield f"the command does not have sweep={claim.sweep}"
    for difference in claim.differences:
        for arm in (difference.of, difference.against):
            if arm.get(VIEWS, 10) not in (1, 10):
                yield "views must be 1 or 10"
        if difference.of == difference.against:
            yield "a difference is between two arms, or two views of one"
        if difference.top1 is None and difference.top5 is None:
            yield "a difference has neither top1 nor top5"
    for value in claim.values:
        if value.views not in (None, 1, 10):
            yield "the views of a value must be 1 or 10"
        errors = [error for error in (value.top5, value.top1) if error is not None]
        if not errors or errors != sorted(errors) or not 0 <= errors[0] <= errors[-1] <= 100:
            yield "the errors of a value are in percent, the top-5 error at most the top-1 error"
