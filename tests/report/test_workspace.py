"""The workspace of a sweep: what W&B's own library sends to a stand-in for its server, and what it is from a file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from alexnet_pl.config.schema import as_dict
from alexnet_pl.report import cli, workspace
from alexnet_pl.report.compare import collect
from alexnet_pl.runs.metrics import write_rows
from alexnet_pl.runs.naming import job_folder_name
from alexnet_pl.runs.run import Run
from tests.helpers.commands import environment
from tests.helpers.runs import run_config
from tests.helpers.wandb_server import Server

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb-workspaces, about its own code


def made(folder: Path, *overrides: str, top5: bool = False) -> None:
    """A run that is done, without training: a folder as a run leaves it."""
    cfg = run_config(f"name={folder.name}", *overrides)
    run = Run(folder / job_folder_name(overrides, cfg.seed))
    run.start(as_dict(cfg), list(overrides))
    rows = [
        {"step": 8, "images_seen": 1000, "epoch": 1, "train/error": 0.5},
        {"step": 8, "images_seen": 1000, "epoch": 1, "val/error": 0.4} | ({"val/top5_error": 0.1} if top5 else {}),
    ]
    write_rows(run.folder / "metrics.csv", rows)
    run.finish({"val/error": 0.4}, 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ReLU and tanh, two seeds each, each net with a rate of its own."""
    out = tmp_path_factory.mktemp("workspace") / "figure1"
    for net in ("relu", "tanh"):
        for seed in (1, 2):
            made(out, "experiment=figure1", f"model.activation={net}", f"seed={seed}")
    return out


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    import wandb

    with Server() as server, mock.patch.dict(os.environ, environment(tmp_path) | server.environment, clear=True):
        wandb.teardown()  # it remembers the environment in which it was used first
        yield server
        wandb.teardown()


def command(*args: str | Path) -> int | str | None:
    """Exit code of the command in this process."""
    with mock.patch.object(sys, "argv", ["alexnet-report", *map(str, args)]):
        try:
            cli.main()
        except SystemExit as end:
            return end.code
    return 0


def panels(spec: dict[str, Any]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """The kinds and settings of the panels of each section."""
    sections = spec["section"]["panelBankConfig"]["sections"]
    return {s["name"]: [(panel["viewType"], panel["config"]) for panel in s["panels"]] for s in sections}


def dry(folder: Path) -> dict[str, Any]:
    workspace.publish(collect(folder), "ada/alexnet_pl", send=False)
    return dict(json.loads((folder / "wandb_workspace.json").read_text()))


def test_it_is_saved_once_and_then_updated(folder: Path, server: Server, capsys: pytest.CaptureFixture[str]):
    assert command(folder, "--wandb", "ada/alexnet_pl") == 0
    address = capsys.readouterr().out.splitlines()[-1]
    ((name, view),) = server.views.items()
    assert address == f"http://127.0.0.1:{server.server_address[1]}/ada/alexnet_pl?nw={name[3:-2]}"
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("ada", "alexnet_pl", "figure1")
    spec = json.loads(view["spec"])
    (shown,) = spec["section"]["runSets"]
    kept = [(f["key"]["section"], f["key"]["name"], f["op"], f["value"]) for f in shown["filters"]["filters"]]
    assert kept == [("run", "group", "=", "figure1")]
    assert shown["grouping"] == [{"section": "config", "name": "model.value.activation"}]
    curves = [config for kind, config in panels(spec)["Curves"] if kind == "Run History Line Plot"]
    assert [curve["metrics"] for curve in curves] == [["train/error", "target/error"], ["val/error"]]
    assert "25 %" in curves[0]["chartTitle"]
    for curve in curves:
        assert (curve["xAxis"], curve["groupBy"]) == ("epoch", "model.value.activation")
        assert (curve["groupAgg"], curve["groupArea"]) == ("mean", "minmax")
    (bars, bar), (across, axes) = panels(spec)["Results"]
    assert (bars, across) == ("Bar Chart", "Parallel Coordinates Plot")
    assert (bar["metrics"], bar["groupBy"]) == (["val/error"], "model.value.activation")
    accessors = [column["accessor"] for column in axes["columns"]]
    assert accessors == ["config:model.value.activation", "config:optim.value.lr", "summary:val/error"]
    assert [media["mediaKeys"] for _, media in panels(spec)["Images"]] == [["kernels"], ["predictions"]]
    assert panels(spec)["Differences"] == [("Run Comparer", {"diffOnly": "split"})]

    own = dict(spec["section"]["panelBankConfig"]["sections"][0], name="mine")  # added in the browser meanwhile
    spec["section"]["panelBankConfig"]["sections"].append(own)
    view["spec"] = json.dumps(spec)
    assert command(folder, "--wandb", "ada/alexnet_pl") == 0
    assert capsys.readouterr().out.splitlines()[-1] == address
    assert list(server.views) == [name]
    assert server.views[name]["id"] == f"view-{name}"
    updated = json.loads(server.views[name]["spec"])
    assert list(panels(updated)) == ["Curves", "Results", "Images", "Differences", "mine"]

    server.views.clear()  # deleted in the browser
    assert command(folder, "--wandb", "ada/alexnet_pl") == 0
    assert len(server.views) == 1
    assert capsys.readouterr().out.splitlines()[-1] != address
    assert server.unknown == set()


def test_a_dry_run_asks_no_one(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with mock.patch.dict(os.environ, environment(tmp_path), clear=True):
        assert command(folder, "--wandb", "ada/alexnet_pl", "--wandb-dry-run") == 0
    path = Path(capsys.readouterr().out.splitlines()[-1])
    assert path == folder / "wandb_workspace.json"
    assert list(panels(json.loads(path.read_text())["spec"])) == ["Curves", "Results", "Images", "Differences"]


def test_where_one_key_does_not_tell_lines_apart_the_table_of_runs_is_grouped(tmp_path: Path):
    out = tmp_path / "both"
    for size in (32, 64):
        for lrn in ("[]", "[conv1]"):
            made(out, f"data.batch_size={size}", f"model.lrn={lrn}", top5=True)
    spec = dry(out)["spec"]
    grouping = [key["name"] for key in spec["section"]["runSets"][0]["grouping"]]
    assert grouping == ["data.value.batch_size", "model.value.lrn"]
    curves = [config for _, config in panels(spec)["Curves"]]
    assert [curve["metrics"] for curve in curves] == [["train/error"], ["val/error"], ["val/top5_error"]]
    for curve in curves:  # as the table is
        assert curve["aggregate"] is True
        assert "groupBy" not in curve
    assert spec["section"]["settings"]["useRunsTableGroupingInPanels"] is True


def test_panels_of_the_report_are_told_apart(tmp_path: Path):
    out = tmp_path / "panels"
    for experiment in ("figure1", "figure1_unit"):
        for net in ("relu", "tanh"):
            made(out, f"experiment={experiment}", f"model.activation={net}")
    grouping = dry(out)["spec"]["section"]["runSets"][0]["grouping"]
    assert [key["name"] for key in grouping] == ["report.value.panel", "model.value.activation"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["alexnet_pl"], "error: --wandb alexnet_pl is not ENTITY/PROJECT"),
        (["a/b/c"], "error: --wandb a/b/c is not ENTITY/PROJECT"),
        (["ada/alexnet_pl"], "error: --wandb needs a W&B key and none was found: run `wandb login`"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], says: str
):
    with mock.patch.dict(os.environ, environment(tmp_path), clear=True):
        assert command(folder, "--wandb", *args) == 1
    assert capsys.readouterr().err.startswith(says)
