"""How a run ends before its time: what it says, what it leaves, and that the same command goes on."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from alexnet_pl.config.schema import Trainer, as_dict
from alexnet_pl.data import datasets
from alexnet_pl.errors import Disconnected, Interrupted, NotFinite, UserError
from alexnet_pl.runs.run import Run
from alexnet_pl.training import fit as training
from alexnet_pl.training.module import ImageClassifier
from tests.helpers import ranks
from tests.helpers.runs import NET, assert_same_training, fit, last_checkpoint, run_config

CUT = ["optim=released_170", "trainer.max_epochs=2", "trainer.max_time=00:00:00:01"]


@pytest.mark.slow
def test_max_time_cuts_a_run_off_and_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run(tmp_path / "cut")
    monkeypatch.setattr(training, "seconds_at_a_time", lambda trainer: 0)
    for steps in (1, 2):
        with pytest.raises(Interrupted, match=r"trainer\.max_time is over; .*: the same command continues"):
            fit(run.folder, CUT, monkeypatch)
        assert not run.done
        assert last_checkpoint(run)["global_step"] == steps, "the time begins anew"
    monkeypatch.setattr(training, "seconds_at_a_time", lambda trainer: 1e6)
    fit(run.folder, CUT, monkeypatch)
    assert run.done
    assert_same_training(run, fit(tmp_path / "whole", CUT, monkeypatch))


@pytest.mark.slow
def test_max_time_does_not_cut_off_what_is_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "seconds_at_a_time", lambda trainer: 0)
    run = fit(tmp_path, [*CUT, "trainer.max_epochs=1", "trainer.limit_train_batches=1", "test_views=1"], monkeypatch)
    assert "test/error" in run.done["metrics"]


@pytest.mark.parametrize(
    ("trainer", "seconds"),
    [
        (Trainer(max_epochs=2), math.inf),
        (Trainer(max_epochs=2, max_time="01:00:00:05"), 24 * 3600 + 5),
        (Trainer(max_steps=2, max_time="00:01:00:00"), 3600),
        (Trainer(max_epochs=-1, max_time="00:01:00:00"), math.inf),
    ],
)
def test_max_time_alone_is_how_long_a_run_is(trainer: Trainer, seconds: float):
    """Then Lightning ends it, and it is done."""
    assert training.seconds_at_a_time(trainer) == seconds


@pytest.mark.slow
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As nohup has it with SIGHUP."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        run = fit(tmp_path, ["trainer.max_epochs=1", "trainer.limit_train_batches=3"], monkeypatch, stop_in=2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert run.done


@pytest.mark.parametrize(
    ("error", "earlier", "reason"),
    [
        (KeyboardInterrupt(), "", "stopped by SIGINT"),
        (Disconnected("closed"), "", str(Disconnected("closed"))),
        (Disconnected("closed"), "the loss became nan", "the loss became nan"),
        (NotFinite("the loss became nan"), str(Disconnected("closed")), "the loss became nan"),
        (NotFinite("the loss became nan"), "no space left", "no space left"),
    ],
)
def test_a_run_says_why_it_ended(
    error: BaseException, earlier: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of several processes the first that knows."""

    def fails(cfg: object, run: Run) -> None:
        raise error

    monkeypatch.setattr(training, "fit", fails)
    run, cfg = Run(tmp_path), run_config()
    run.start(as_dict(cfg), [])
    if earlier:
        run.fail(earlier)
    with pytest.raises(UserError):
        training.work(cfg, run)
    assert run.failure == reason


@pytest.mark.parametrize(("trainer", "error"), [("ddp", Disconnected), ("cpu", RuntimeError)])
def test_a_process_that_is_not_reached_is_told_in_the_words_of_gloo(
    trainer: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A wrong interface as well as a process that ended; a run of one process has none to reach."""

    def lost(cfg: object) -> None:
        raise RuntimeError("[/gloo/transport/tcp/device.cc:84] ifa != nullptr. Unable to find address for: nope")

    monkeypatch.setattr(training, "ImageDataModule", lost)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nope")
    with pytest.raises(error, match="Unable to find address for: nope") as told:
        training.fit(run_config(f"trainer={trainer}", "trainer.accelerator=cpu", "logger=csv"), Run(tmp_path))
    if error is Disconnected:
        assert "could not be reached: ifa != nullptr. Unable" in str(told.value)
        assert "GLOO_SOCKET_IFNAME=nope in the environment" in str(told.value)


@pytest.mark.parametrize(("word", "deterministic"), [("null", True), ("false", True), ("true", False)])
def test_cudnn_computes_the_same_bits_unless_that_is_given_up_and_fp32_in_fp32(
    word: str, deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("deterministic", "allow_tf32", "benchmark"):
        monkeypatch.setattr(torch.backends.cudnn, name, not deterministic)
    seen = []

    def note(cfg: object, run: object) -> None:
        seen.append((torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32))
        raise Disconnected("that is all")

    monkeypatch.setattr(training.checkpoints, "find_start", note)
    with pytest.raises(Disconnected):
        training.fit(run_config(f"trainer.benchmark={word}"), Run(tmp_path))
    assert seen == [(deterministic, False)]


def calls_of_a_run(folder: Path, trainer: str) -> dict[int, list[str]]:
    """By the number of the step, the collectives of torch.distributed that a process calls before its end."""
    calls: dict[int, list[str]] = {}
    step = 0

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def call_and_note(*args: Any, **kwargs: Any) -> Any:
            calls.setdefault(step, []).append(name)
            return call(*args, **kwargs)

        return call_and_note

    def counted(self: ImageClassifier, batch: Any, batch_idx: int) -> Any:
        nonlocal step
        step = batch_idx
        return training_step(self, batch, batch_idx)

    training_step = ImageClassifier.training_step
    over = ["train_error_window=10000", "trainer.max_epochs=1", f"trainer={trainer}", "trainer.accelerator=cpu"]
    cfg, run = run_config(*NET, *over), Run(folder)
    if os.environ["RANK"] == "0":
        run.start(as_dict(cfg), [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "SHAPES_SPLITS", {"train": (1000, 1), "val": (100, 2)})
        patch.setattr(ImageClassifier, "training_step", counted)
        for name in COLLECTIVES:
            patch.setattr(dist, name, noted(name, getattr(dist, name)))
        training.fit(cfg, run)
    run.release()
    return calls


COLLECTIVES = (
    "all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "all_to_all_single", "barrier",
    "broadcast", "broadcast_object_list", "gather", "reduce", "reduce_scatter_tensor", "scatter",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "layers"), [("ddp", []), ("towers", ["all_gather_into_tensor"] * 5 + ["reduce_scatter_tensor"] * 4)]
)
def test_a_step_of_two_processes_exchanges_only_what_is_ours(trainer: str, layers: list[str], tmp_path: Path):
    """Activations, and whether to stop; DDP's own sums do not come through Python."""
    for calls in ranks.run(2, calls_of_a_run, tmp_path, trainer):
        inner = [sorted(calls[step]) for step in range(1, 7)]
        assert inner == [sorted([*layers, "all_reduce"])] * 6


@pytest.mark.slow
def test_ctrl_c_for_the_second_time_is_told_as_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lightning makes an exit of it."""
    cfg = run_config("logger=csv", "trainer.max_epochs=1", "model.width=0.25")
    run = Run(tmp_path)
    run.start(as_dict(cfg), [])
    monkeypatch.setattr(training.ImageClassifier, "training_step", lambda *args: [press(), press()])

    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped by SIGINT"):
        training.work(cfg, run)
    assert run.failure == "stopped by SIGINT"
    run.release()
