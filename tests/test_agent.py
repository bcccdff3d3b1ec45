"""W&B's own sweeps: a shipped sweep, cut down to two small runs, by the real `wandb sweep` and `wandb agent`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alexnet_pl import ROOT
from alexnet_pl.config.schema import Logger, as_dict
from alexnet_pl.runs.run import Run, find_runs
from tests.helpers.commands import environment
from tests.helpers.runs import run_config
from tests.helpers.wandb_server import SWEEP, Server

pytestmark = pytest.mark.slow

SWEEPS = sorted((ROOT / "sweeps" / "wandb").glob("*.yaml"))
TINY = ["scale=smoke", "trainer.max_epochs=1", "data=shapes"]


def plain(file: Path) -> list[str]:
    """The overrides that every run of a sweep gets."""
    return [word for word in yaml.safe_load(file.read_text())["command"] if "=" in word and not word.startswith("${")]


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_point_is_a_configuration(file: Path):
    """At both ends of each parameter's range."""
    parameters = yaml.safe_load(file.read_text())["parameters"]
    assert yaml.safe_load(file.read_text())["project"] == Logger().project, "the one that its runs log to"
    fixed = [word for word in plain(file) if not word.startswith(("hydra.", "logger.", "name="))]
    for end in (0, -1):
        point = [
            f"{k}={p['values'][end] if 'values' in p else (p['min'], p['max'])[end]}" for k, p in parameters.items()
        ]
        cfg = run_config(*fixed, *point)
        assert cfg.stop_at_train_error is None
        assert cfg.optim.lr > 0
    assert f"name={file.stem}_${{envvar:WANDB_SWEEP_ID}}" in plain(file)


def test_an_agent_trains_the_runs_of_its_sweep(tmp_path: Path):
    sweep = yaml.safe_load((ROOT / "sweeps" / "wandb" / "lr_grid.yaml").read_text())
    sweep["parameters"] = {"model.activation": {"values": ["relu"]}, "optim.lr": {"values": [0.001, 0.002]}}
    sweep["command"] += TINY
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(sweep))
    programs = Path(sys.executable).parent
    with Server() as server:
        env = environment(tmp_path) | server.environment
        env["PATH"] = f"{programs}:{os.environ['PATH']}"  # as where the environment is active
        for command in (("sweep", "small.yaml"), ("agent", f"local/alexnet_pl/{SWEEP}")):
            result = subprocess.run(
                [programs / "wandb", *command],
                cwd=tmp_path,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=200,
            )
            assert result.returncode == 0, result.stderr
    found = find_runs(tmp_path / "runs" / f"lr_grid_{SWEEP}_smoke")
    assert {run.status for run in found} == {"done"}
    assert {run.identity["id"]: run.config["optim"]["lr"] for run in found} == {"point0": 0.001, "point1": 0.002}
    assert set(server.runs) == {"point0", "point1"}, "no run beside those of the sweep"
    for run in found:
        received = server.runs[run.identity["id"]]
        assert received.fields["sweep"] == SWEEP
        assert received.fields["project"] == "alexnet_pl"
        assert received.fields["groupName"] == f"lr_grid_{SWEEP}_smoke"
        assert received.exit_code == 0
        assert len(received.history) == len(run.metrics) > 1
        assert received.summary["val/error"] == run.done["metrics"]["val/error"]
    assert server.unknown == set()


def test_a_run_takes_the_id_of_an_agent_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """WANDB_RUN_ID alone is some other run's; a run that the agent continues becomes the agent's."""

    config = as_dict(run_config())

    def start() -> str:
        run = Run(tmp_path)
        run.start(config, [])
        assert run.lock
        run.lock.close()
        return str(run.identity["id"])

    monkeypatch.setenv("WANDB_RUN_ID", "given")
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    first = start()
    assert first != "given"
    assert start() == first
    monkeypatch.setenv("WANDB_SWEEP_ID", SWEEP)
    assert start() == "given"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert start() == "given"
