"""Every command of the README is run, scaled down, and every file it names is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_pl import ROOT
from tests.helpers.commands import environment
from tests.helpers.images import draw_images, encode, write_parquet
from tests.helpers.processes import Process

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line]
SMALL = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "train_eval_images=20"]
SMALL += ["trainer.limit_test_batches=1", "logger=csv"]
# One job of each sweep is enough here: what sweeps do with many is tested elsewhere.
ONE = {
    "model.activation=relu,tanh": ["model.activation=relu"],
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/cifar10 and data/photographs in a folder, where the commands run one after the other, as a reader would."""
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
    """The command with this Python, and small where it trains."""
    words = shlex.split(command)
    assert words[0] == "python", command
    words[0] = sys.executable
    if "alexnet_pl.train" in words and not {"--help", "--cfg"} & set(words):
        words = [word.replace("seed=1,2,3", "seed=1") for word in words] + SMALL
        words += [more for word in words for more in ONE.get(word, [])]
    return words


def run(command: list[str], folder: Path) -> str:
    env = environment(folder)
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_readme_has_commands():
    assert {"make figure1", "make test"} <= set(COMMANDS)
    assert len(COMMANDS) > 10


@pytest.mark.slow
def test_every_command_runs_in_order(folder: Path):
    real = {"alexnet_pl.train", "alexnet_pl.report", "alexnet_pl.prepare"}
    for command in COMMANDS:
        if command.startswith(("make ", "python bench/")):
            continue  # see below, and test_bench.py
        if command.startswith("eval "):
            assert "complete" in run(["bash", "-c", f"{command}; complete -p alexnet-train"], folder)
            continue
        _, flag, module, *args = words = scaled(command)
        assert flag == "-m"
        if (
            module in real
        ):  # one of each is what its reader starts, all others are forked: see tests/helpers/processes.py
            real.remove(module)
            assert run(words, folder).strip(), command
        else:
            forked = Process(folder, module, *args)
            out, err = forked.communicate(timeout=200)
            assert forked.returncode == 0, err
            assert out.strip(), command
    assert not real
    assert (folder / "runs/figure1/figure1.png").stat().st_size > 10_000
    assert (folder / "runs/figure1_cifar10/report.html").stat().st_size > 1_000_000


def test_make_runs_what_is_tested_here():
    """make itself would set up a second environment: its recipes are compared with what these tests run."""
    lines = {}
    for target in ("figure1", "test", "test-all"):
        make = ["make", "-n", "--assume-old=.venv/.ok", f"PYTHON={sys.executable}", target]
        lines[target] = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ".venv/bin/python -m alexnet_pl.train sweep=figure1\n" in lines["figure1"]
    assert ".venv/bin/python -m alexnet_pl.report runs/figure1\n" in lines["figure1"]
    assert ".venv/bin/python -m pytest" in lines["test"]
    assert lines["test-all"].startswith(lines["test"])


def test_the_tree_is_the_tree():
    (tree,) = re.findall(r"```text\nalexnet_pl/\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL)
    named = {line.split()[0] for line in tree.splitlines() if line.startswith("  ")}
    there = {p.name for p in (ROOT / "alexnet_pl").glob("*.py")} - {"__init__.py"}
    there |= {f"{p.name}/" for p in (ROOT / "alexnet_pl").iterdir() if (p / "__init__.py").is_file()}
    assert named == there
    folders = {line.split()[0].rstrip("/") for line in tree.splitlines() if line and not line.startswith(" ")}
    assert all((ROOT / name).is_dir() for name in folders)


def test_links_and_images_lead_somewhere():
    for document in ("README.md", "docs/results.md", "docs/architecture.md"):
        for target in re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text()):
            assert (ROOT / document).parent.joinpath(target).is_file(), f"{document}: {target}"


def test_the_shown_mistake_is_what_is_said(folder: Path):
    (block,) = re.findall(r"```text\n\$ alexnet-train (.*?)\n(.*?)```", README, re.DOTALL)
    command = [sys.executable, "-m", "alexnet_pl.train", *block[0].split()]
    result = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, timeout=60)
    assert result.stderr == block[1]
