"""Every command of README.md and docs/ runs, scaled down; those of CONTRIBUTING.md in test_contributing.py."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_pl import ROOT
from tests.helpers.commands import Command, environment
from tests.helpers.images import draw_images, encode, write_parquet
from tests.helpers.pages import README, TABLE_OF_PAGES, TEXTS, blocks
from tests.helpers.processes import Process

SMALL = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "train_eval_images=20"]
SMALL += ["trainer.limit_test_batches=1", "logger=csv"]
# One job of each sweep is enough here: what sweeps do with many is tested elsewhere.
ONE = {
    "model.activation=relu,tanh": ["model.activation=relu"],
    "model.lrn=[conv1,conv2],[]": ["model.lrn=[conv1,conv2]"],
    "seed=1,2,3": ["seed=1"],
    "sweep=figure1": ["experiment=figure1", "model.activation=relu"],
    "sweep=figure1_lr": ["experiment=figure1", "model.activation=relu", "optim.lr=0.001"],
    "experiment=alexnet": [
        "data.batch_size=4",
        "model.widths={conv1: 16, conv2: 16, conv3: 16, conv5: 16, fc6: 64, fc7: 64}",
    ],
    "trainer=towers": ["trainer.accelerator=cpu"],
    "trainer=ddp": ["trainer.accelerator=cpu"],
}


def commands(page: str) -> list[str]:
    """Return the commands of a page's bash blocks; a backslash at the end of a line goes on with the next."""
    return [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines() if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/cifar10 and data/photographs, where the commands run one after the other."""
    out = tmp_path_factory.mktemp("readme")
    for split, n in (("train", 300), ("test", 40)):
        images, labels = draw_images(n)
        write_parquet(out / "data" / "cifar10" / f"{split}-0.parquet", [encode(i, "PNG") for i in images], list(labels))
    for label in ("cats", "dogs"):
        photographs = out / "data" / "photographs" / label
        photographs.mkdir(parents=True)
        for number, image in enumerate(draw_images(8)[0]):
            (photographs / f"{number}.png").write_bytes(encode(image, "PNG"))
    return out


def scaled(command: str) -> list[str]:
    """Return the command with this Python, and small where it trains or measures."""
    words = shlex.split(command, comments=True)
    assert words[0] == "python", command
    words[0] = sys.executable
    if {"alexnet_pl.train", "alexnet_pl.estimate"} & set(words) and not {"--help", "--cfg"} & set(words):
        words = [word.replace("seed=1,2,3", "seed=1") for word in words] + SMALL
        words += [more for word in words for more in ONE.get(word, [])]
    return words


def run(command: list[str], folder: Path) -> str:
    env = environment(folder)
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_page(page: str, folder: Path, real: frozenset[str] = frozenset()) -> None:
    """Run a page's commands in order, as its reader would.

    Args:
        real: modules of which the first command starts as its reader starts it. All others are forked: see
            tests/helpers/processes.py.
    """
    left = set(real)
    for command in commands(page):
        if command.startswith(("make ", "python bench/")):
            continue  # see below, and test_bench.py
        if command.startswith("eval "):
            assert "complete" in run(["bash", "-c", f"{command}; complete -p alexnet-train"], folder)
            continue
        _, flag, module, *args = words = scaled(command)
        assert flag == "-m"
        if module in left:
            left.remove(module)
            assert run(words, folder).strip(), command
        else:
            forked = Process(folder, module, *args)
            out, err = forked.communicate(timeout=200)
            assert forked.returncode == 0, f"{page}: {command}\n{err}"
            assert out.strip(), command
        if module == "alexnet_pl.report" and len(args) == 1 and args[0] != "--claims":
            drawn = folder / args[0]
            assert (drawn / f"{drawn.name}.png").stat().st_size > 10_000
            assert (drawn / "report.html").stat().st_size > 1_000_000
    assert not left


@pytest.fixture(scope="module")
def after_the_readme(folder: Path) -> Path:
    """The folder after the README's commands: the other pages use its runs and its packed dataset."""
    run_page(README, folder, frozenset({"alexnet_pl.train", "alexnet_pl.report", "alexnet_pl.prepare"}))
    return folder


def test_the_readme_has_commands():
    assert {"make figure1", "make test"} <= set(commands(README))
    assert len(commands(README)) > 10


@pytest.mark.slow
def test_the_readmes_commands_run(after_the_readme: Path):
    assert (after_the_readme / "figure4.png").stat().st_size > 10_000
    assert (after_the_readme / "runs/claims.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", TABLE_OF_PAGES)
def test_the_commands_of_a_page_run_after_the_readmes(after_the_readme: Path, page: str):
    run_page(page, after_the_readme)
    for block in blocks(page, "python"):
        assert run([sys.executable, "-c", block], after_the_readme).strip()


def test_make_runs_what_is_tested_here():
    """make itself would set up a second environment: its recipes are compared with what these tests run."""
    lines = {}
    for target in ("figure1", "test", "test-all"):
        make = ["make", "-n", "--no-print-directory", "--assume-old=.venv/.ok", f"PYTHON={sys.executable}", target]
        lines[target] = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ".venv/bin/python -m alexnet_pl.train sweep=figure1\n" in lines["figure1"]
    assert ".venv/bin/python -m alexnet_pl.report runs/figure1\n" in lines["figure1"]
    assert ".venv/bin/python -m pytest" in lines["test"]
    *lint, test = lines["test"].splitlines()
    *checks, test_all = lines["test-all"].splitlines()
    assert checks == lint
    assert test_all == test.replace("not slow and ", "").replace(" and not browser", "") != test


def test_the_tree_is_the_tree():
    (tree,) = re.findall(r"```text\nalexnet_pl/\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL)
    named = {line.split()[0] for line in tree.splitlines() if line.startswith("  ")}
    there = {p.name for p in (ROOT / "alexnet_pl").glob("*.py")} - {"__init__.py"}
    there |= {f"{p.name}/" for p in (ROOT / "alexnet_pl").iterdir() if (p / "__init__.py").is_file()}
    assert named == there
    folders = {line.split()[0].rstrip("/") for line in tree.splitlines() if line and not line.startswith(" ")}
    assert all((ROOT / name).is_dir() for name in folders)


def test_the_readmes_results_are_those_of_the_results():
    """Each number of ours in the README's first table stands in docs/results.md, below the same table there."""
    (table,) = re.findall(r"^\| claim .*?\n\n", TEXTS[README], re.DOTALL | re.MULTILINE)
    assert TEXTS["docs/results.md"].count(table) == 1
    results = set(re.findall(r"\d+(?:\.\d+)?", TEXTS["docs/results.md"].replace(table, "")))
    ours = [row.split("|")[3] for row in table.splitlines()[2:] if row]
    numbers = [number for cell in ours for number in re.findall(r"\d+(?:\.\d+)?", cell)]
    assert len(numbers) > 10
    assert set(numbers) <= results


def test_the_shown_experiment_is_one(train: Command, tmp_path: Path):
    (block,) = blocks("docs/training.md", "yaml")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(block)
    result = train(f"--config-dir={tmp_path}", "experiment=mine", "--cfg", "job")
    assert result.returncode == 0, result.stderr
    assert "lr: 0.01\n" in result.stdout


def test_the_shown_mistakes_are_what_is_printed(folder: Path):
    (block,) = re.findall(r"```text\n\$ alexnet-train (.*?)\n(.*?)```", TEXTS["docs/training.md"], re.DOTALL)
    command = [sys.executable, "-m", "alexnet_pl.train", *block[0].split()]
    result = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, timeout=60)
    assert result.stderr == block[1]
