"""Suggest what a mistyped word was meant to be: a key, a choice, a layer, a checkpoint."""

from __future__ import annotations

import difflib


def suggest(word: str, choices: list[str]) -> str:
    """Return `did you mean ...?` with the closest of the choices, or all of them if none is close."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "choose from " + ", ".join(choices)
