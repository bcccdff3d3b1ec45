"""Each recipe of CONTRIBUTING.md is applied to a copy of the package, as it stands there, and its commands run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_pl import ROOT
from tests.helpers.commands import environment
from tests.helpers.images import draw_images, encode
from tests.helpers.pages import CONTRIBUTING, TEXTS

RECIPES = dict(re.findall(r"^## (An? .*?)\n(.*?)(?=^## |\Z)", TEXTS[CONTRIBUTING], re.DOTALL | re.MULTILINE))
STEP = re.compile(
    r"^(Create|At the end of|In) `(\S+)`(?:, (after|before|instead of) the line `(.+?)`)?(?:, (?:add|write))?:\n\n"
    r"```(?:py|yaml)\n(.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
SHOWN = {
    "A net like another": "slim: one tower",
    "A net with a table of its own": "62,357,608",
    "An activation": "gelu is not monotone",
    "A layout of files": "found: images with tables, 2 classes, 6 train, 4 val",
    "A layout over devices": "sends 398.4 MB",
    "A claim": "Training takes a momentum of 0.9",
}
"""What the commands of a recipe print"""
ONE_AFTER_ANOTHER = """
import runpy, shlex, sys
for command in sys.argv[1].splitlines():
    python, flag, module, *args = shlex.split(command)
    assert (python, flag) == ("python", "-m"), command
    print("$", command, flush=True)
    sys.argv = [module, *args]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
"""
"""A process that runs commands as a shell does, and imports torch once"""


def apply(recipe: str, folder: Path) -> None:
    """Do what the steps of a recipe say, in a copy of the package."""
    steps = STEP.findall(recipe)
    assert len(steps) == len(re.findall(r"^```(?:py|yaml)$", recipe, re.MULTILINE)), "a block without a file"
    for verb, name, place, line, block in steps:
        file = folder / name
        if verb == "Create":
            assert not file.exists(), name
            file.write_text(block)
            continue
        text = file.read_text()
        if verb == "At the end of":
            file.write_text(text + block)
            continue
        (found,) = [whole for whole in text.splitlines(keepends=True) if whole.strip() == line]
        new = {"after": found + block, "before": f"{block}\n\n{found}", "instead of": block}[place]
        file.write_text(text.replace(found, new))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and its tests, with two tables of images in data/tables."""
    for name in ("alexnet_pl", "conf", "sweeps", "hydra_plugins", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", CONTRIBUTING):
        shutil.copy(ROOT / name, tmp_path / name)
    tables = tmp_path / "data" / "tables"
    tables.mkdir(parents=True)
    for split, number in (("train", 6), ("val", 4)):
        names = [f"{split}{i}.png" for i in range(number)]
        for name, image in zip(names, draw_images(number)[0], strict=True):
            (tables / name).write_bytes(encode(image, "PNG"))
        (tables / f"{split}.csv").write_text("".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names)))
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(520)
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works(name: str, copy: Path):
    apply(RECIPES[name], copy)
    env = environment(copy) | {"PYTHONPATH": str(copy)}
    (block,) = re.findall(r"^```bash\n(.*?)^```$", RECIPES[name], re.DOTALL | re.MULTILINE)
    result = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER, block], cwd=copy, env=env, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert SHOWN[name] in result.stdout


def test_every_recipe_is_tried():
    assert set(SHOWN) == set(RECIPES)


def test_the_files_of_a_layout_over_devices_are_all_that_name_one():
    """Those that a reader meets who follows the name owt through the package."""
    named = set(re.findall(r"^\| `(alexnet_pl/\S+\.py)` ", RECIPES["A layout over devices"], re.MULTILINE))
    there = {str(p.relative_to(ROOT)) for p in (ROOT / "alexnet_pl").rglob("*.py") if '"owt"' in p.read_text()}
    assert named == there
