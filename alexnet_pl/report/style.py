"""Colours and dashes of the report's figures, the same on paper and page."""

from __future__ import annotations

from alexnet_pl.report.compare import Panel
from alexnet_pl.report.curves import Line

# Okabe and Ito's colours, which colour-blind readers can tell apart; the paper's line styles.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#A07800", "#000000", "#882255")
DASHES = ("solid", "dash", "dot", "dashdot")
STYLES = {"relu": ("solid", "#0072B2"), "tanh": ("dash", "#D55E00"), "sigmoid": ("dot", "#007A5A")}
GREY, DARK_GREY = "#555555", "#444444"
"""Colours of the target's line and of notes, and of small print"""


def line_style(panel: Panel, line: Line) -> tuple[str, str]:
    """Return the dash, in plotly's words, and the colour of a line; no two of sixteen are alike."""
    i = panel.lines.index(line)
    return STYLES.get(line.name, (DASHES[i // 4 % len(DASHES)], COLOURS[i % len(COLOURS)]))
