"""The pages that a reader meets, in Markdown: their code blocks, sentences, links and anchors."""

from __future__ import annotations

import re

from alexnet_pl import ROOT
from tests.helpers.prose import split

README, CONTRIBUTING = "README.md", "CONTRIBUTING.md"
TABLE_OF_PAGES = re.findall(r"^\| \[(docs/\w+\.md)\]", (ROOT / README).read_text(), re.MULTILINE)
PAGES = [README, *TABLE_OF_PAGES, CONTRIBUTING]
"""In the order in which a reader meets them"""
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXTS[page], re.DOTALL | re.MULTILINE)


def headings(text: str) -> list[str]:
    """Return the headings of a page, as they stand."""
    return re.findall(r"^#+ (.*)$", CODE.sub("", text), re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(text)}


def links(text: str) -> list[str]:
    """Return what the links and pictures of a page point to."""
    return re.findall(r"\]\(([^)]+)\)", CODE.sub("", text))


def sentences(text: str) -> list[str]:
    """Return the sentences of a page: all but its code blocks, tables, headings and pictures.

    A link counts as its words, and inline code as the words in it. A list item ends a sentence, as a paragraph does.
    """
    text = CODE.sub("", text)
    text = re.sub(r"^(#|\|).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"!\[.*?\]\(.*?\)", "", text, flags=re.DOTALL)
    text = re.sub(r"\[(.*?)\]\([^)]*\)", r"\1", text, flags=re.DOTALL)
    return split(text)
