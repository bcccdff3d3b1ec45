"""The sentences of texts, docstrings and YAML files' headers, for tests that hold how long they are."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

QUOTED = re.compile(r"`[^`]*`|\"[^\"]*?([.!?]?)\"")
"""Code and quotations, which count as one word each; a quotation may end a sentence"""
SECTION = re.compile(r"^(?:Args|Attributes|Raises|Returns|Yields):\n((?: {4}.*(?:\n|$))+)", re.MULTILINE)
CODE = re.compile(r"^ {4}.*$|^.*\S {2,}\S.*$", re.MULTILINE)
"""Commands, formulas and tables: they stand indented, or have several spaces in a row"""
ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) ", re.MULTILINE)
END = re.compile(r"(?<!\b[A-Z]\.)(?<=[.!?])[)*\"]*\s+")
"""Between two sentences, but not after an initial"""


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, without commands, formulas and tables.

    An item of a list ends a sentence, as a paragraph does. Each entry below `Args:` or `Raises:` is an item.
    """
    return split(CODE.sub("", SECTION.sub(_items, QUOTED.sub(r"quoted\1", text))))


def split(text: str) -> list[str]:
    """Return the sentences of a text that has only paragraphs and lists."""
    parts = [part for paragraph in re.split(r"\n\s*\n", ITEM.sub("\n\n", text)) for part in END.split(paragraph)]
    return [" ".join(part.split()) for part in parts if re.search(r"\w", part)]


def docstrings(file: Path) -> Iterator[str]:
    """Yield each docstring of a Python file, also those below fields and constants."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield inspect.cleandoc(node.value.value)


def yaml_header(file: Path) -> str:
    """Return the comments at the head of a YAML file."""
    comments = re.match(r"(#.*\n)*", file.read_text())
    return re.sub(r"^# ?(@package.*)?", "", comments[0] if comments else "", flags=re.MULTILINE)


def _items(section: re.Match[str]) -> str:
    """Return the entries of a section as items of a list."""
    entries = re.sub(r"^ {4}(?! )", "\n- ", section[1], flags=re.MULTILINE)
    return re.sub(r"^ {4,}", "", entries, flags=re.MULTILINE) + "\n"
