"""The claims' page: what needs no run, what was only tried, and how many claims are tested in all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alexnet_pl.errors import ConfigError
from alexnet_pl.report import paper
from alexnet_pl.report.claims import ClaimStatus, survey, total, write_claims
from alexnet_pl.runs.run import Run
from tests.helpers.reports import make_run, rows, settings


def by_id(root: Path) -> dict[str, ClaimStatus]:
    return {one.claim.id: one for one in survey(root)}


def sweep_run(folder: Path, *overrides: str, done: bool = True, **other: Any) -> Run:
    plain = settings(report__compare=[], report__target=None, report__panel="", **other)
    return make_run(folder / "run", plain, rows(3, 2), done, ["sweep=color", *overrides])


def test_what_needs_no_run_is_not_called_not_run(tmp_path: Path) -> None:
    claims = by_id(tmp_path)
    for name in ("data", "input", "size", "figure2", "init", "time", "figure3", "figure4"):
        assert claims[name].state == "needs no sweep: the command shows it"
        assert claims[name].claim.command
    assert {one.state for one in claims.values() if one.claim.sweep} == {"not run"}


def test_what_the_paper_says_in_numbers_is_there(tmp_path: Path) -> None:
    claims = by_id(tmp_path)
    (figure1,) = claims["figure1"].paper_numbers
    assert "5 to 6 epochs with ReLU and 35 to 36 with tanh" in figure1
    without = {name for name, one in claims.items() if not one.paper_numbers}
    assert without == {"activation", "augmentation", "figure3", "figure4", "seeds"}, "these have no number in the paper"


CUTS = {
    "scale=smoke": {"scale": "smoke", "trainer__limit_train_batches": 4},
    "trainer.limit_train_batches=1": {"trainer__limit_train_batches": 1},
    "trainer.limit_train_batches=0.5": {"trainer__limit_train_batches": 0.5},
    "trainer.max_steps=8": {"trainer__max_steps": 8},
    "trainer.max_time=00:00:01:00": {"trainer__max_time": "00:00:01:00"},
    "trainer.max_epochs=1": {"trainer__max_epochs": 1},
}


@pytest.mark.parametrize("cut", CUTS)
def test_what_was_only_tried_is_not_done(tmp_path: Path, cut: str) -> None:
    sweep_run(tmp_path / "color", cut, **CUTS[cut])
    claims = survey(tmp_path)
    (status,) = [one for one in claims if one.folders]
    assert status.state.startswith(f"only tried with {cut}, 1 of 1 jobs")
    assert not status.tested
    assert "0 are done, 1 begun or only tried" in total(claims)


@pytest.mark.parametrize("whole", ["trainer.limit_train_batches=1.0", "trainer.max_steps=-1", "trainer.max_time=null"])
def test_what_cuts_nothing_is_done(tmp_path: Path, whole: str) -> None:
    sweep_run(tmp_path / "color", whole, scale="small")
    claims = by_id(tmp_path)
    assert claims["color"].state.startswith("done on shapes (10 classes), scale=small")
    assert claims["color"].tested


def test_a_total_is_given_in_each_format(tmp_path: Path) -> None:
    sweep_run(tmp_path / "whole")
    sweep_run(tmp_path / "tried", "scale=smoke", scale="smoke")
    claims, paths = write_claims(tmp_path)
    swept = sum(bool(claim.sweep) for claim in paper.claims())
    said = (
        f"{len(claims)} claims, of which {len(claims) - swept} need no sweep. Of the sweeps of the other {swept}, "
        f"1 is done, 0 begun or only tried, and {swept - 1} not run."
    )
    for path in paths:
        assert said in path.read_text()


def test_a_file_holds_no_claims(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(ConfigError, match=r"runs is a file: give a folder"):
        write_claims(tmp_path / "runs")
