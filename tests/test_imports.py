"""Who may import what: imports go down the list, and the heavy or foreign libraries stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_pl import ROOT

ORDER = [
    "errors",
    "processor",
    "lean",
    "files",
    "choices",
    "store",
    "paper",
    "config",
    "table",
    "layouts",
    "keys",
    "provenance",
    "launch",
    "gpus",
    "runs",
    "checks",
    "describe",
    "shapes",
    "cifar10",
    "statistics",
    "pictures",
    "sources.base",
    "sources.folders",
    "sources.tars",
    "sources.tiny",
    "sources.shards",
    "sources.ilsvrc",
    "sources",
    "prepare.meter",
    "prepare.packing",
    "prepare.trial",
    "prepare",
    "augment",
    "loader",
    "data",
    "lrn",
    "model",
    "parallel",
    "optim",
    "strategies",
    "module",
    "logger",
    "watchdog",
    "progress",
    "checkpoints",
    "trial",
    "trained",
    "evaluate.settings",
    "evaluate.answers",
    "evaluate.ensemble",
    "evaluate.records",
    "evaluate.picture",
    "evaluate",
    "predict.gallery",
    "predict.guesses",
    "predict.neighbours",
    "predict.figure",
    "predict",
    "export",
    "estimate",
    "sweep",
    "train",
    "sync",
    "report.curves",
    "report.compare",
    "report.ablation",
    "report.tables",
    "report.picture",
    "report.plot",
    "report.page",
    "report.markdown",
    "report.numbers",
    "report.claims",
    "report.workspace",
    "report.kernels",
    "report",
]
ROOMS = {
    "hydra": {"train", "sweep"},
    "wandb": {"logger"},
    "wandb_workspaces": {"report.workspace"},
    "matplotlib": {"evaluate.picture", "report.picture", "report.kernels", "predict.figure"},
    "plotly": {"report.plot"},
    "pyarrow": {"cifar10", "store", "sources.shards", "prepare.packing", "evaluate.records"},
    "onnxruntime": {"export"},
    "onnxscript": {"export"},
    "scipy": {"sources.ilsvrc", "report.ablation"},
    "pytorch_lightning": {"data", "module", "logger", "watchdog", "progress", "checkpoints", "strategies", "train"},
    "omegaconf": {"paper", "config", "checks", "runs", "trained", "sweep", "train"},
}


PACKAGE = ROOT / "alexnet_pl"


def module_name(file: Path) -> str:
    """alexnet_pl/report/page.py -> report.page; a folder's __init__.py is the folder."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_name(file): file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE or file.stem != "__init__"}


def imports(name: str) -> set[str]:
    """Every module a file imports, at its top or inside a function; of this package, the file's name."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "alexnet_pl":
            found |= {f"alexnet_pl.{alias.name}" for alias in node.names if alias.name.islower()}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module if node.module.startswith("alexnet_pl.") else node.module.split(".")[0])
    return found


def test_every_file_has_its_place():
    assert {name for name in FILES if not name.endswith("__main__")} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_go_down_the_list(name: str):
    ours = {module.removeprefix("alexnet_pl.") for module in imports(name) if module.startswith("alexnet_pl.")}
    assert ours <= set(ORDER[: ORDER.index(name)])


@pytest.mark.parametrize(("library", "rooms"), ROOMS.items())
def test_libraries_stay_in_their_rooms(library: str, rooms: set[str]):
    assert {name for name in ORDER if library in imports(name)} == rooms


def test_help_and_completion_do_not_wait_for_torch():
    """What the commands import before the work starts."""
    code = (
        "import sys, alexnet_pl.evaluate, alexnet_pl.report, alexnet_pl.sync, alexnet_pl.train; "
        "sys.exit(bool({'torch', 'pytorch_lightning', 'wandb', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
