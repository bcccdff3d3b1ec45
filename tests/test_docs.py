"""The pages can be read: short sentences, a README of a few screens, links and pictures that lead somewhere."""

from __future__ import annotations

import re
import tomllib
from statistics import mean

import pytest

from alexnet_pl import ROOT
from tests.helpers.pages import CONTRIBUTING, PAGES, README, TABLE_OF_PAGES, TEXTS, anchors, headings, links, sentences

MEAN, LONGEST = 18, 30
"""Words of a sentence"""
LINKED = re.compile(r"\[README\]\(\.\./README\.md\).*papers\.nips\.cc.*code\.google\.com", re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page: str):
    lengths = {sentence: len(sentence.split()) for sentence in sentences(TEXTS[page])}
    assert mean(lengths.values()) <= MEAN
    assert [sentence for sentence, words in lengths.items() if words > LONGEST] == []


def test_the_counter_counts():
    """By hand: seven sentences, of which code, tables, headings and pictures are none."""
    text = """# Three words here

Say `a b` once. A. Krizhevsky wrote [the paper](https://x.y/z.w). It is (see below) here, at 1.5
points: right? So.

![No. Not this.](picture.png)

| neither. | this |
|---|---|

- an item
- another. One

```text
Nor. This.
```
"""
    assert [len(sentence.split()) for sentence in sentences(text)] == [4, 5, 9, 1, 2, 1, 1]


def test_the_readme_is_a_few_screens():
    text = TEXTS[README]
    assert len(text.splitlines()) <= 150
    assert len(headings(text)) >= 12
    assert len([link for link in links(text) if link.startswith("https://")]) >= 6
    assert len(links(text)) >= 10


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page: str):
    lost = []
    for target in [link for link in links(TEXTS[page]) if not link.startswith("https://")]:
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        if not path.is_file() or (anchor and anchor not in anchors(path.read_text())):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("page", TABLE_OF_PAGES)
def test_a_page_leads_on(page: str):
    """To the README, to the page before it and the page after it, to the paper and the code of 2012."""
    top = TEXTS[page].split("\n\n")[1]
    assert LINKED.match(top)
    here = TABLE_OF_PAGES.index(page)
    around = [*TABLE_OF_PAGES[max(here - 1, 0) : here], *TABLE_OF_PAGES[here + 1 : here + 2]]
    assert [f"docs/{link}" for link in links(top) if re.fullmatch(r"\w+\.md", link)] == around


@pytest.mark.parametrize("page", TABLE_OF_PAGES)
def test_a_page_opens_with_its_use_and_a_command(page: str):
    _, _, use, command, *_ = TEXTS[page].split("\n\n")
    assert re.match(r"(With th|Th)is page", use)
    assert command.startswith("```bash\npython -m alexnet_pl")


def test_every_page_is_in_the_readmes_table():
    assert sorted(TABLE_OF_PAGES) == sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
    assert CONTRIBUTING in links(TEXTS[README])


def test_the_badges_say_what_the_package_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python, licence = ((ROOT / "docs/badges" / f"{name}.svg").read_text() for name in ("python", "licence"))
    first, last = re.findall(r"3\.(\d+)", project["requires-python"])
    assert " | ".join(f"3.{minor}" for minor in range(int(first), int(last))) in python
    assert f"licence: {project['license']}" in licence
    assert (ROOT / "LICENSE").read_text().startswith(f"{project['license']} License")
