"""Checkpoints on disk: whole files, and one file where two are due at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_pl.runs.run import Run
from alexnet_pl.training import checkpoints
from alexnet_pl.training.checkpoints import AtomicCheckpointIO
from tests.helpers.runs import fit


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    run.start({"seed": 1}, [])
    yield run
    run.release()


def checkpoint(step: int, weight: float) -> dict[str, Any]:
    return {"loops": {"fit_loop": {"done": step}}, "weight": torch.full((3,), weight)}


def held(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["weight"][0])


def refuse(*paths: object) -> None:
    raise PermissionError("no links here")


@pytest.mark.parametrize("links", [True, False])
def test_two_of_one_moment_are_one_file_where_that_is_possible(
    links: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    io, best, last = AtomicCheckpointIO(run), tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    for path in (best, last):
        io.save_checkpoint(checkpoint(1, 1.0), path)
    assert best.samefile(last) is links
    io.save_checkpoint(checkpoint(2, 2.0), last)
    assert (held(best), held(last)) == (1, 2), "another moment is another file"
    io.save_checkpoint(checkpoint(3, 3.0), best)
    io.save_checkpoint(checkpoint(3, 3.0), last)
    assert (held(best), held(last)) == (3, 3)
    assert {path.name for path in tmp_path.glob("*.ckpt*")} == {"best.ckpt", "last.ckpt"}


def test_what_says_nothing_of_its_moment_is_written_anew(run: Run, tmp_path: Path):
    io = AtomicCheckpointIO(run)
    for name in ("a", "b"):
        io.save_checkpoint({"weight": torch.ones(1)}, tmp_path / name)
    assert not (tmp_path / "a").samefile(tmp_path / "b")


@pytest.mark.slow
def test_a_run_writes_its_best_and_last_checkpoint_once_and_the_last_knows_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = []
    write = checkpoints.checkpoint_file.write
    monkeypatch.setattr(checkpoints.checkpoint_file, "write", lambda *args: (written.append(args[1]), write(*args)))
    run = fit(tmp_path, ["trainer.max_epochs=1"], monkeypatch)
    assert len(written) == 1
    assert run.last.samefile(run.last.with_name("best.ckpt"))
    states = torch.load(run.last, weights_only=True)["callbacks"]
    (best,) = [state for state in states.values() if isinstance(state, dict) and state.get("monitor") == "val/error"]
    assert best["best_model_path"].endswith("best.ckpt")
