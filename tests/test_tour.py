"""docs/tour.ipynb: its cells run from top to bottom, and print and draw what is stored beside them.

A cell with the tag `varies` shows trained nets: its last digits depend on the machine, and its own asserts hold it.
"""

from __future__ import annotations

import ast
import io
import json
import re
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

from alexnet_pl import ROOT

NOTEBOOK = ROOT / "docs/tour.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def stored_text(cell: dict[str, Any]) -> str:
    """Return what a cell printed when it was run for the file."""
    return "".join("".join(out["text"]) for out in cell["outputs"] if out["output_type"] == "stream")


def stored_figures(cell: dict[str, Any]) -> int:
    return sum(out["output_type"] == "display_data" for out in cell["outputs"])


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def test_the_file_is_small_and_was_run_from_top_to_bottom():
    assert NOTEBOOK.stat().st_size < 400_000
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [out for cell in CODE for out in cell["outputs"]]
    assert {out["output_type"] for out in outputs} == {"stream", "display_data"}
    assert {out["name"] for out in outputs if out["output_type"] == "stream"} == {"stdout"}


def test_it_imports_the_package_and_pyplot_only():
    for node in ast.walk(ast.parse("\n".join(map(source, CODE)))):
        if isinstance(node, ast.Import):
            assert [name.name for name in node.names] == ["matplotlib.pyplot"]
        if isinstance(node, ast.ImportFrom):
            assert node.module
            assert node.module.partition(".")[0] == "alexnet_pl"


def test_each_part_names_its_section_and_asks_the_class():
    text = "\n\n".join(source(cell) for cell in CELLS if cell["cell_type"] == "markdown")
    _, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    assert len(parts) == 7
    for part in parts:
        heading, *_, last = part.strip().splitlines()
        assert re.search(r"\(sections? \d", heading)
        assert "**For the class.**" in part
        assert last.endswith(("?", "?)")) or "?" in part.rpartition("**For the class.**")[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_cells_run_and_show_what_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pyplot, "show", lambda: None)
    pyplot.switch_backend("agg")
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(1)  # nets this small gain nothing by two, and lose much where other tests run beside
    space: dict[str, Any] = {"__name__": "tour"}
    with matplotlib.rc_context():
        for number, cell in enumerate(CODE, 1):
            printed = io.StringIO()
            with redirect_stdout(printed):
                exec(compile(source(cell), f"tour.ipynb, code cell {number}", "exec"), space)
            drawn = len(pyplot.get_fignums())
            pyplot.close("all")
            assert drawn == stored_figures(cell), number
            if "varies" in cell["metadata"].get("tags", []):
                continue
            now, stored = printed.getvalue(), stored_text(cell)
            assert NUMBER.sub("#", now) == NUMBER.sub("#", stored), number
            assert numbers(now) == pytest.approx(numbers(stored), rel=0.01, abs=1e-6), number
    assert {path.name for path in tmp_path.iterdir()} == {"tour"}
