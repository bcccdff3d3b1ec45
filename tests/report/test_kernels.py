"""Figure 3: how colourful kernels are, against kernels made by hand; the figure tower by tower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from alexnet_pl import export
from alexnet_pl.errors import ConfigError
from alexnet_pl.report.kernels import colourfulness, describe_tower, doubt, sheet, specialisation, verdict
from alexnet_pl.report.outputs import write_kernels
from alexnet_pl.report.plots import draw_kernels
from alexnet_pl.runs.run import Run
from tests.helpers.nets import untrained_model
from tests.helpers.reports import make_run, settings

RNG = np.random.default_rng(5)
GREY = RNG.normal(size=(6, 1, 11, 11)).repeat(3, axis=1)
OPPONENT = GREY * np.array([1.0, -1.0, 0.0])[:, None, None]  # red against green, nothing for grey


def test_colourfulness_of_kernels_made_by_hand():
    np.testing.assert_allclose(colourfulness(GREY), 0, atol=1e-12)
    np.testing.assert_allclose(colourfulness(OPPONENT), 1)
    np.testing.assert_allclose(colourfulness(-7 * (GREY + OPPONENT)), 2 / 5)  # energies 3 and 2, across each other
    red = np.zeros((1, 3, 5, 5))
    red[:, 0] = 1
    np.testing.assert_allclose(colourfulness(red), 2 / 3)
    assert colourfulness(RNG.normal(size=(50, 3, 11, 11))).mean() == pytest.approx(2 / 3, abs=0.01)
    assert np.isnan(colourfulness(np.zeros((1, 3, 5, 5)))).all()


def test_towers_that_specialise():
    some = [RNG.uniform(low, high, size=(12, 1, 1, 1)) for low, high in ((0, 0.4), (0.6, 1))]
    towers = [(1 - a) * GREY[:1] + a * OPPONENT[:1] for a in some]
    found = specialisation(towers)
    first, second = (colourfulness(tower) for tower in towers)
    assert found["tower1"] == pytest.approx(first.mean())
    assert found["tower2_spread"] == pytest.approx(second.std(ddof=1))
    assert found["standard_errors"] == pytest.approx(stats.ttest_ind(second, first, equal_var=False).statistic)
    assert "the towers specialise, and tower 2 took the colours" in verdict(found)
    assert "tower 1 took" in verdict(specialisation(towers[::-1]))
    noise = RNG.normal(size=(2, 20, 3, 5, 5))
    assert "chance may do that" in verdict(specialisation(list(noise)))
    assert verdict(specialisation(list(noise[:1]))) == "no verdict: it takes two towers"
    dead = np.concatenate([towers[0], np.zeros((3, 3, 11, 11))])
    assert specialisation([dead])["tower1"] == pytest.approx(first.mean())


def test_each_kernel_has_its_own_scale_around_grey():
    pixels = sheet(np.stack([GREY[0], 100 * OPPONENT[1], np.zeros((3, 11, 11))]))
    assert pixels.shape == (11, 35, 3)
    for kernel, left in ((GREY[0], 0), (OPPONENT[1], 12)):
        shown = 2 * pixels[:, left : left + 11] - 1
        np.testing.assert_allclose(shown, kernel.transpose(1, 2, 0) / np.abs(kernel).max(), atol=1e-12)
    assert (pixels[:, 24:] == 0.5).all()
    assert (pixels[:, 11] == 1).all()


def test_the_figure(tmp_path: Path):
    net = untrained_model("alexnet")
    weights = net.net.get_parameter("conv1.weight").data
    weights[4:] = weights[4:].mean(1, keepdim=True)  # the second tower sees grey only
    found = draw_kernels(net, tmp_path / "kernels.png")
    assert found["tower2"] == pytest.approx(0, abs=1e-6)
    assert found["tower1"] == pytest.approx(2 / 3, abs=0.05)
    drawn = np.asarray(Image.open(tmp_path / "kernels.png").convert("RGB")).astype(int)
    colour = (drawn.max(2) - drawn.min(2) > 30).any(1)
    assert colour[: len(colour) // 2].any()
    assert not colour[len(colour) // 2 :].any()
    draw_kernels(net, tmp_path / "kernels.svg")
    assert "tower 2" in (tmp_path / "kernels.svg").read_text()
    with pytest.raises(ConfigError, match="is not the net of a run"):
        draw_kernels(net)
    (tmp_path / "run").mkdir()
    draw_kernels(replace(net, run=Run(tmp_path / "run")))
    assert (tmp_path / "run" / "kernels.png").is_file()


def test_one_tower_is_one_block(tmp_path: Path):
    found = draw_kernels(untrained_model("convnet"), tmp_path / "kernels.png")
    assert set(found) == {"tower1", "tower1_spread", "tower1_kernels"}


def test_published_weights_have_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    export.export(untrained_model("alexnet"), tmp_path / "net", "torch")
    monkeypatch.chdir(tmp_path)
    (path,) = write_kernels(Path("net"))
    assert path == Path("runs/published/net/kernels.png")
    assert Image.open(path).width > 100
    assert "net: tower 1: colourfulness 0." in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ doubts

SEEN = {"epoch": 1, "images_seen": 1000}
LEARNED = [SEEN | {"val/error": 0.5}]
DOUBTS: list[tuple[dict[str, Any], list[str], list[dict[str, float]], str]] = [
    ({"scale": "smoke"}, [], LEARNED, "it was trained with scale=smoke"),
    ({"trainer__limit_train_batches": 1}, [], LEARNED, "it was trained with trainer.limit_train_batches=1"),
    ({"trainer__max_steps": 8}, ["trainer.max_steps=8"], LEARNED, "it was trained with trainer.max_steps=8"),
    ({}, [], [SEEN | {"val/error": 0.88}], "its error is 88.0 %, that of guessing 90.0 %"),
    ({}, [], [SEEN | {"train/epoch_error": 0.85}], "its error is 85.0 %, that of guessing 90.0 %"),
    ({}, [], [], "no metrics say how well it has learned"),
    ({}, [], LEARNED, ""),
]


@pytest.mark.parametrize(("other", "overrides", "metrics", "said"), DOUBTS)
def test_a_net_that_was_hardly_trained_has_no_verdict(
    tmp_path: Path, other: dict[str, Any], overrides: list[str], metrics: list[dict[str, float]], said: str
) -> None:
    run = make_run(tmp_path / "run", settings(**other), metrics, overrides=overrides)
    net = replace(untrained_model("convnet"), run=run)
    assert doubt(net) == said
    found = specialisation([GREY.repeat(2, axis=0), OPPONENT.repeat(2, axis=0) + RNG.normal(size=(12, 3, 11, 11)) / 99])
    assert ("the towers specialise" in verdict(found, said)) is (not said)
    assert ("no verdict on this net" in verdict(found, said)) is bool(said)


def test_three_kernels_have_no_verdict() -> None:
    """Towers of three kernels after 8 updates, whose means chance has put five standard errors apart."""
    found = specialisation([GREY[:3] + 0.1 * OPPONENT[:3], OPPONENT[3:6]])
    assert abs(found["standard_errors"]) > 5
    assert verdict(found) == "no verdict: a tower has 3 kernels that are not zero, and it takes 10"
    dead = np.concatenate([GREY, np.zeros((50, 3, 11, 11))])
    assert "a tower has 6 kernels" in verdict(specialisation([dead, RNG.normal(size=(56, 3, 11, 11))]))


def test_a_tower_is_told_with_what_its_spread_is() -> None:
    assert describe_tower(specialisation([GREY]), 1) == "colourfulness 0.00 ± 0.00 (mean ± sd over 6 kernels)"
    assert describe_tower(specialisation([OPPONENT[:1]]), 1) == "colourfulness 1.00 (of one kernel)"
    assert describe_tower(specialisation([0 * GREY]), 1) == "all kernels are zero"
