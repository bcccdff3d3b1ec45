"""Docstrings and the headers of YAML files can be read: short sentences."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from alexnet_pl import ROOT
from tests.helpers.prose import docstrings, sentences, yaml_header

MEAN, LONGEST = 18, 30
"""Words of a sentence"""
CODE = [file for folder in ("alexnet_pl", "hydra_plugins") for file in sorted((ROOT / folder).rglob("*.py"))]
DOCSTRINGS = [text for file in CODE for text in docstrings(file)]
HEADERS = [yaml_header(file) for folder in ("conf", "sweeps") for file in sorted((ROOT / folder).rglob("*.yaml"))]


@pytest.mark.parametrize(("texts", "least"), [(DOCSTRINGS, 1000), (HEADERS, 60)], ids=["docstrings", "headers"])
def test_sentences_are_short(texts: list[str], least: int):
    lengths = {sentence: len(sentence.split()) for text in texts for sentence in sentences(text)}
    assert len(texts) >= least, "they are found"
    assert mean(lengths.values()) <= MEAN
    assert [sentence for sentence, words in lengths.items() if words > LONGEST] == []


def test_the_counter_counts(tmp_path: Path):
    """By hand: nine sentences, without the command and the table."""
    file = tmp_path / "code.py"
    file.write_text('''
def f():
    """Return one thing. Say `a. b` once, as A. Krizhevsky said: "No. Never."

    It is
    in 1.5 lines (see below).

        python -m nothing. At all.
    key    A meaning. In a table.

    * an item
    * another. One

    Args:
        name: what it is called, which takes
            two lines
        size: how large
    Raises:
        ValueError: no name.
    """

FIELD = 1
"""below a field"""
''')
    below, first = sorted(docstrings(file), key=len)
    assert [len(sentence.split()) for sentence in sentences(first)] == [3, 8, 7, 2, 1, 1, 9, 3, 3]
    assert sentences(below) == ["below a field"]


def test_a_header_is_found(tmp_path: Path):
    file = tmp_path / "choice.yaml"
    file.write_text("# @package _global_\n# What it is.\n#\n# Command: it\nkey: 1  # Not this.\n# Nor this.\n")
    assert yaml_header(file).split("\n") == ["", "What it is.", "", "Command: it", ""]
