"""The trial before a long run on a processor: what it chooses, that it leaves no trace, and that a choice lasts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from alexnet_pl import data, module, runs, trial
from alexnet_pl.config import Config
from tests.conftest import TINY, Command, composed

LONG = ("trainer.max_epochs=100", "data.batch_size=20", "trainer.limit_train_batches=16", "subset=0", "trainer=cpu")


def parts(*overrides: str) -> tuple[Config, module.Classifier, data.Pictures]:
    cfg = composed(*LONG, *overrides)
    return cfg, module.Classifier(cfg, cfg.data.image_size), data.Pictures(cfg)


def run_in(folder: Path) -> runs.Run:
    folder.mkdir(parents=True)
    return runs.Run(folder)


def pretend(monkeypatch: pytest.MonkeyPatch, fastest: dict[str, float]) -> list[str]:
    """Speeds by the names of the ways, 100 for all others; what was asked for."""
    asked: list[str] = []

    def speed(classifier: module.Classifier, way: trial.Way, *batch: torch.Tensor) -> float:
        asked.append(str(way))
        return fastest.get(str(way), 100.0)

    monkeypatch.setattr(trial, "_speed", speed)
    return asked


def test_it_measures_and_leaves_no_trace(tmp_path: Path):
    cfg, classifier, pictures = parts("trainer.precision=auto", "data.flips=true")
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    random = torch.get_rng_state()
    said: list[str] = []
    run = run_in(tmp_path / "a")
    precision = trial.choose(cfg, run, classifier, pictures, said.append)
    kept = json.loads((run.folder / "speed.json").read_text())
    assert kept["way"]["precision"] == precision
    assert set(kept["images_per_second"]) == {
        f"{layout}, {precision}, 1 thread"
        for layout in ("channels-last", "NCHW")
        for precision in ("32-true", "bf16-mixed")
    }
    assert all(speed > 0 for speed in kept["images_per_second"].values())
    (line,) = said
    assert "trial=false" in line
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in classifier.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(p.grad is None for p in classifier.parameters())


def test_the_fastest_is_taken_and_the_net_is_laid_out_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cfg, classifier, pictures = parts("trainer.precision=auto")
    pretend(monkeypatch, {"NCHW, bf16-mixed, 1 thread": 250.0, "channels-last, bf16-mixed, 1 thread": 200.0})
    assert trial.choose(cfg, run_in(tmp_path / "a"), classifier, pictures, print) == "bf16-mixed"
    assert classifier.net.conv2.weight.is_contiguous()
    assert classifier.layout is torch.contiguous_format


def test_precision_is_tried_only_where_asked_for_and_threads_unless_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    cfg, classifier, pictures = parts()
    asked = pretend(monkeypatch, {"channels-last, 32-true, 2 threads": 150.0})
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert trial.choose(cfg, run_in(tmp_path / "a"), classifier, pictures, print) == "32-true"
    assert asked == [f"{way}" for way in (
        "channels-last, 32-true, 4 threads", "NCHW, 32-true, 4 threads", "channels-last, 32-true, 2 threads",
    )]  # fmt: skip
    assert threads == [2]


def test_what_is_little_faster_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cfg, classifier, pictures = parts()
    pretend(monkeypatch, {"NCHW, 32-true, 1 thread": 109.0})
    trial.choose(cfg, run_in(tmp_path / "a"), classifier, pictures, print)
    assert classifier.layout is torch.channels_last


def test_a_choice_lasts_for_the_run_and_those_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where another way would be faster by now; a net of another size is tried by itself."""
    first = run_in(tmp_path / "a")
    for run, overrides, faster, chosen in (
        (first, (), "bf16-mixed", "bf16-mixed"),
        (first, (), "32-true", "bf16-mixed"),
        (run_in(tmp_path / "b"), ("model.activation=tanh",), "32-true", "bf16-mixed"),
        (run_in(tmp_path / "c"), ("data.batch_size=10",), "32-true", "32-true"),
    ):
        cfg, classifier, pictures = parts("trainer.precision=auto", *overrides)
        pretend(monkeypatch, {f"channels-last, {faster}, 1 thread": 200.0})
        assert trial.choose(cfg, run, classifier, pictures, print) == chosen
    assert (tmp_path / "b" / "speed.json").is_file()


@pytest.mark.parametrize(
    "overrides", [["trial=false"], ["trainer.max_epochs=2"], ["trainer=ddp", "trainer.accelerator=cpu"]]
)
def test_no_trial(overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where it is not wanted, for a short run, and on several devices."""
    cfg, classifier, pictures = parts("trainer.precision=auto", *overrides)
    asked = pretend(monkeypatch, {})
    run = run_in(tmp_path / "a")
    assert trial.choose(cfg, run, classifier, pictures, print) == "32-true"
    assert not asked
    assert not (run.folder / "speed.json").exists()


@pytest.mark.parametrize(
    "overrides",
    [["trainer=ddp", "trainer.accelerator=cpu"], ["trainer=single"], ["model.channels_last=false"], ["trial=false"]],
)
def test_a_choice_is_for_runs_that_compute_as_its_own_did(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Not on several devices, on a GPU, where another layout is asked for, or without a trial."""
    cfg, classifier, pictures = parts("trainer.precision=auto")
    pretend(monkeypatch, {"channels-last, bf16-mixed, 1 thread": 200.0})
    assert trial.choose(cfg, run_in(tmp_path / "a"), classifier, pictures, print) == "bf16-mixed"
    cfg, classifier, pictures = parts("trainer.precision=auto", *overrides)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    pretend(monkeypatch, {})
    assert trial.choose(cfg, run_in(tmp_path / "b"), classifier, pictures, print) == "32-true"


def test_a_continued_run_keeps_its_way_but_not_the_threads_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cfg, classifier, pictures = parts("trainer.precision=auto")
    pretend(monkeypatch, {"NCHW, bf16-mixed, 1 thread": 200.0})
    run = run_in(tmp_path / "a")
    trial.choose(cfg, run, classifier, pictures, print)
    run.last.parent.mkdir(exist_ok=True)
    run.last.touch()
    monkeypatch.setattr(trial.provenance, "processors", lambda: 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    asked = pretend(monkeypatch, {})
    cfg, classifier, pictures = parts("trainer.precision=auto")
    assert trial.choose(cfg, run, classifier, pictures, print) == "bf16-mixed"
    assert classifier.layout is torch.contiguous_format
    assert threads == [4]
    assert not asked


def test_a_run_trains_by_what_was_chosen(train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The whole command; the trial is told in its log, and what it chose is what Lightning trains in."""
    asked = pretend(monkeypatch, {"channels-last, bf16-mixed, 1 thread": 200.0})
    trained_in: list[str] = []
    monkeypatch.setattr(trial, "_long", lambda cfg, pictures: pictures.setup("fit") is None)
    begin = module.Classifier.on_train_start

    def note(classifier: module.Classifier) -> None:
        trained_in.append(str(classifier.trainer.precision))
        begin(classifier)

    monkeypatch.setattr(module.Classifier, "on_train_start", note)
    result = train(*TINY, "trainer.precision=auto", "name=tried")
    assert result.returncode == 0, result.stderr
    (run,) = runs.find(tmp_path / "runs" / "tried")
    assert "Goes on with channels-last, bf16-mixed, 1 thread" in (run.folder / "train.log").read_text()
    assert trained_in == ["bf16-mixed"]
    assert len(asked) == 4
