"""Write figures that do not depend on a matplotlibrc, with letters that the fonts here have, in lines that fit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_pl.files import atomic_path

FONT = "DejaVu Sans"
"""A font that comes with matplotlib"""
LAST_RESORT = "Last Resort High-Efficiency"
"""matplotlib's font of boxes, one for each script, for letters that no font has"""


@contextmanager
def drawing(texts: Iterable[str], **settings: Any) -> Iterator[None]:
    """Draw inside with matplotlib's own settings, in fonts that have the letters of some texts.

    Args:
        texts: names of runs, classes and files in the figure. `drawable` replaces letters that no font has.
        settings: settings of matplotlib, with __ for the dot.
    """
    from matplotlib import font_manager, style

    own = font_manager.get_font(_font_file(FONT))
    missing = {letter for text in texts for letter in text if letter.isprintable() and not _has(own, letter)}
    families = [FONT]
    for font in font_manager.fontManager.ttflist:
        if not missing:
            break
        if font.name != LAST_RESORT:
            found = {letter for letter in missing if _has(font_manager.get_font(font.fname), letter)}
            missing -= found
            families += [font.name] if found and font.name not in families else []
    given = {key.replace("__", "."): value for key, value in settings.items()}
    plain = {"text.parse_math": False, "font.family": families}  # a $ in a name is a $
    with style.context(["default", plain | given]):
        yield


def drawable(text: str) -> str:
    r"""Return a text for the fonts of `drawing`: `\u732b` for a letter that they lack, `\n` for a line end."""
    from matplotlib import font_manager, rcParams

    fonts = [font_manager.get_font(_font_file(family)) for family in rcParams["font.family"]]
    shown = (c if c.isprintable() and any(_has(font, c) for font in fonts) else _escaped(c) for c in text)
    return "".join(shown)


def _font_file(family: str) -> str:
    from matplotlib import font_manager

    return str(font_manager.findfont(font_manager.FontProperties(family=[family])))


def _has(font: Any, letter: str) -> bool:
    return bool(font.get_char_index(ord(letter)))


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode()


def width(text: str, size: float) -> float:
    """Return the width of a drawable text in inches, at a font size in points."""
    from matplotlib import font_manager, rcParams

    font = font_manager.get_font([_font_file(family) for family in rcParams["font.family"]])
    font.set_size(size, 72)
    font.set_text(text)
    return float(font.get_width_height()[0]) / 64 / 72


def wrap(text: str, inches: float, size: float) -> str:
    """Return a drawable text, in lines of at most this width."""
    text = drawable(text)
    letters = max(1, len(text))
    while True:
        lines = textwrap.wrap(text, letters)
        widest = max((width(line, size) for line in lines), default=0.0)
        if widest <= inches or letters == 1:
            return "\n".join(lines)
        letters = max(1, int(letters * inches / widest))


def shorten(text: str, inches: float, size: float) -> str:
    """Return a drawable text, cut to at most this width."""
    text = drawable(text)
    while width(text, size) > inches:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def save(figure: Any, path: Path) -> None:
    """Write a figure in the format of the file's suffix. The same figure gives the same file."""
    kind = path.suffix[1:].lower() or "png"
    with atomic_path(path) as part:
        figure.savefig(part, format=kind, metadata={"Date": None} if kind == "svg" else None)
