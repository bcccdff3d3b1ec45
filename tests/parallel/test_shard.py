"""A net over several processes computes what it computes in one: losses, gradients, weights, checkpoints."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet_pl.config.schema import as_dict
from alexnet_pl.data import datamodule, datasets
from alexnet_pl.errors import ConfigError, Interrupted
from alexnet_pl.parallel import shard
from alexnet_pl.parallel.shard import AllGather
from alexnet_pl.runs.run import Run, find_checkpoint
from alexnet_pl.training.fit import fit as fit_run
from alexnet_pl.training.module import ImageClassifier
from tests.helpers import ranks
from tests.helpers.runs import last_checkpoint, run_config

NET = [
    "model=alexnet", "model.input_size=67", "train_eval_images=0", "logger=csv",
    "train_error_window=1", "model.num_classes=12",
    "model.widths={conv1: 8, conv2: 8, conv3: 12, conv4: 12, conv5: 8, fc6: 16, fc7: 16}", "data.pixel_scale=64",
    "model.init=fan_in", "optim=released_145", "trainer.precision=64-true", "data.resize=72", "data.crop_size=67",
    "data.random_flip=true", "data.color_noise=paper", "data.batch_size=8", "trainer.accelerator=cpu",
    "test_views=10",
]  # fmt: skip
slow = partial(pytest.param, marks=pytest.mark.slow)
SETS = {"train": (27, 1), "val": (13, 2)}  # batches of 8, 8, 8 and 3: of the last, one of four processes has none


def fit(
    folder: Path, overrides: list[str], patches: dict[str, Any] | None = None, stop_in: int | None = None
) -> dict[str, Any]:
    """Train as the command does; the losses, the whole gradients of the first step, and the metrics at the end.

    A signal reaches the last process in the batch of the number `stop_in`, counted from 1.
    """
    seen: dict[str, Any] = {"losses": [], "gradients": {}}
    step = ImageClassifier.training_step

    def noted(self: ImageClassifier, *args: Any) -> Tensor:
        loss = step(self, *args)
        if len(seen["losses"]) + 1 == stop_in and self.global_rank == self.trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        of_all = self.sum_over_replicas(loss.detach()) / (self.replica.count if self.layout.name == "ddp" else 1)
        seen["losses"].append(float(of_all))
        return loss

    def record(self: ImageClassifier, optimizer: Any) -> None:
        if self.global_step == 0:
            named = self.net.named_parameters()
            seen["gradients"] = {name: self.parts.gather_rows(p.grad, p, []).clone() for name, p in named}

    cfg = run_config(*NET, *overrides)
    run = Run(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "SHAPES_SPLITS", SETS)
        patch.setattr(datamodule, "EVAL_PIXELS", 5 * 67**2)  # in batches of 6, or of one image by ten views
        patch.setattr(ImageClassifier, "training_step", noted)
        patch.setattr(ImageClassifier, "on_before_optimizer_step", record)
        for name, value in (patches or {}).items():
            patch.setattr(shard, name, value)
        if os.environ.get("RANK", "0") == "0":
            run.start(as_dict(cfg), [])
        if stop_in:
            with pytest.raises(Interrupted, match="stopped by SIGUSR1; the checkpoint is written"):
                fit_run(cfg, run)
        else:
            fit_run(cfg, run)
    if run.lock:
        run.lock.close()
    seen["metrics"] = run.done.get("metrics")
    return seen


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference as a share of the largest number."""
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory):
    """The run on one device, by its overrides; made once."""
    made: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}

    def make(*overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
        if str(overrides) not in made:
            folder = tmp_path_factory.mktemp("alone")
            made[str(overrides)] = fit(folder, ["trainer=cpu", *overrides]), last_checkpoint(Run(folder))
        return made[str(overrides)]

    return make


STEPS = ["trainer.max_epochs=null", "trainer.max_steps=5"]


MASK, NONE, SPLIT = "model.dropout=mask", "model.dropout=none", "model.towers_meet=[]"


@pytest.mark.parametrize(
    ("trainer", "processes", "net"),
    [
        *((trainer, 2, MASK) for trainer in ("towers", "ddp", "owt")),
        pytest.param("towers", 2, SPLIT, marks=pytest.mark.slow),
        *(pytest.param(trainer, 2, NONE, marks=pytest.mark.slow) for trainer in ("towers", "ddp", "owt")),
        *(pytest.param(trainer, 4, MASK, marks=pytest.mark.slow) for trainer in ("towers_ddp", "ddp", "owt")),
    ],
)
def test_every_layout_trains_the_same_net(trainer: str, processes: int, net: str, alone: Any, tmp_path: Path):
    over = [*STEPS, net]
    one, checkpoint = alone(*over)
    many, *_ = ranks.run(processes, fit, tmp_path, [f"trainer={trainer}", f"trainer.devices={processes}", *over])
    assert len(one["losses"]) == 5
    assert many["losses"] == pytest.approx(one["losses"], rel=1e-12)
    assert many["gradients"].keys() == one["gradients"].keys()
    for name, gradient in one["gradients"].items():
        assert difference(many["gradients"][name], gradient) < 1e-12, name
    there = last_checkpoint(Run(tmp_path))
    assert there["state_dict"].keys() == checkpoint["state_dict"].keys()
    for name, weight in checkpoint["state_dict"].items():
        assert difference(there["state_dict"][name], weight) < 1e-12, name
    assert many["metrics"] == pytest.approx(one["metrics"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "processes"), [("towers", 2), ("towers_ddp", 4), ("ddp", 2), ("owt", 2)])
def test_clipped_and_accumulated_gradients_are_the_same(trainer: str, processes: int, alone: Any, tmp_path: Path):
    over = [
        "trainer.max_epochs=2",
        "trainer.gradient_clip_val=0.5",
        "trainer.accumulate_grad_batches=2",
        "optim.lr=0.1",
    ]
    _, checkpoint = alone(*over)
    _, free = alone("trainer.max_epochs=2", "trainer.accumulate_grad_batches=2", "optim.lr=0.1")
    ranks.run(processes, fit, tmp_path, [f"trainer={trainer}", f"trainer.devices={processes}", *over])
    there = last_checkpoint(Run(tmp_path))
    for name, weight in checkpoint["state_dict"].items():
        assert difference(there["state_dict"][name], weight) < 1e-12, name
    assert difference(free["state_dict"]["net.fc8.weight"], checkpoint["state_dict"]["net.fc8.weight"]) > 1e-3


class SummedAtTheEnd(AllGather):
    """Wrong: each process computes the whole loss, and the sum of its gradients is twice the gradient."""

    def __init__(self, mesh: Any, dim: int, same_work_after: bool = False) -> None:
        super().__init__(mesh, dim, False)


class SlicedInside(AllGather):
    """Wrong: the next layer's kernels differ, and each process has a part of the gradient only."""

    def __init__(self, mesh: Any, dim: int, same_work_after: bool = False) -> None:
        super().__init__(mesh, dim, True)


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "conv1", "fc8"), [(SummedAtTheEnd, 2.0, 2.0), (SlicedInside, None, 1.0)])
def test_wrong_gathers_are_found_out(wrong: type, conv1: float | None, fc8: float, alone: Any, tmp_path: Path):
    """The first keeps the direction: it is a doubled learning rate. The second leaves the last layer right."""
    one, _ = alone(*STEPS, "model.dropout=mask")
    over = ["trainer=towers", *STEPS, "model.dropout=mask"]
    many, *_ = ranks.run(2, fit, tmp_path, over, {"AllGather": wrong})
    for name, times in (("conv1.weight", conv1), ("fc8.weight", fc8)):
        ours, right = many["gradients"][name], one["gradients"][name]
        assert (difference(ours, right * (times or 1)) < 1e-12) is (times is not None)
        if times != 1:
            assert difference(ours, right) > 0.1, "which the test of equality would see"


@pytest.mark.slow
def test_a_run_moves_between_layouts(alone: Any, tmp_path: Path):
    """One device, two towers, four copies, one weird trick, one device again: as if it had never moved."""
    plateau = ["optim=paper", "optim.plateau_patience=2"]
    _, stayed = alone("trainer.max_epochs=5", *plateau)
    journey = [("cpu", 1), ("towers", 2), ("ddp", 4), ("owt", 2), ("cpu", 1)]
    folder = tmp_path / "0"
    for leg, (trainer, processes) in enumerate(journey):
        here, folder = folder, tmp_path / str(leg)
        over = [f"trainer={trainer}", f"trainer.devices={processes}", f"trainer.max_epochs={leg + 1}", *plateau]
        if leg:
            over.append(f"ckpt_path={here}")
        if processes == 1:
            fit(folder, over)
        else:
            ranks.run(processes, fit, folder, over)
    moved = last_checkpoint(Run(folder))
    assert moved["global_step"] == stayed["global_step"] == 20
    for name, weight in stayed["state_dict"].items():
        assert difference(moved["state_dict"][name], weight) < 1e-12, name
    ours, right = (each["optimizer_states"][0] for each in (moved, stayed))
    assert ours["param_groups"] == right["param_groups"]
    assert moved["plateau"] == stayed["plateau"]
    assert right["param_groups"][0]["lr"] < 0.01, "which came to its end on the way"
    assert ours["state"].keys() == right["state"].keys()
    for number, state in right["state"].items():
        assert difference(ours["state"][number]["velocity"], state["velocity"]) < 1e-12
    rows = Run(folder).metrics
    assert [row["images_seen"] for row in rows if "train/epoch_error" in row] == [27, 54, 81, 108, 135]


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "then"), [("towers", "ddp"), ("ddp", "towers")])
def test_a_signal_to_one_process_stops_all_and_the_run_goes_on(trainer: str, then: str, alone: Any, tmp_path: Path):
    """In mid-epoch and between two points of the running error, of which the checkpoint has the sum of all processes.

    It goes on in another layout.
    """
    over = ["trainer.max_epochs=2", "model.dropout=mask", "train_error_window=1000"]
    one, checkpoint = alone(*over)
    stopped, moved = Run(tmp_path / "stopped"), Run(tmp_path / "moved")
    ranks.run(2, fit, stopped.folder, [f"trainer={trainer}", *over], {}, 2)
    assert last_checkpoint(stopped)["global_step"] == 2
    assert last_checkpoint(stopped)["progress"]["window"][2] == 16
    many, *_ = ranks.run(2, fit, moved.folder, [f"trainer={then}", f"ckpt_path={stopped.folder}", *over])
    assert len(many["losses"]) == 6
    assert many["losses"] == pytest.approx(one["losses"][2:], rel=1e-12)
    assert many["metrics"] == pytest.approx(one["metrics"], rel=1e-6)
    for name, weight in checkpoint["state_dict"].items():
        assert difference(last_checkpoint(moved)["state_dict"][name], weight) < 1e-12, name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("optim.lr=0.5", "optim.lr is 0.01 there and 0.5 here"),
        slow("trainer.precision=32-true", "trainer.precision is 64-true there and 32-true here"),
        slow("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches is None there and 2 here"),
    ],
)
def test_a_move_changes_nothing_else(change: str, sentence: str, alone: Any, tmp_path: Path):
    _, checkpoint = alone(*STEPS, MASK)
    torch.save(checkpoint, tmp_path / "0.ckpt")
    over = ["trainer=cpu", "trainer.max_epochs=2", MASK, f"ckpt_path={tmp_path / '0.ckpt'}", change]
    with pytest.raises(ConfigError, match=f"{sentence}.*can only change its devices and length"):
        fit(tmp_path / "1", over)


def test_a_folder_of_several_runs_is_no_start(tmp_path: Path):
    for name in ("a", "b"):
        Run(tmp_path / name).start({"seed": 1}, [])
    with pytest.raises(ConfigError, match=r"holds 2 runs: name one of them \(a, b\)"):
        find_checkpoint(str(tmp_path))
    with pytest.raises(ConfigError, match="neither a checkpoint nor the folder of a run that has one"):
        find_checkpoint(str(tmp_path / "a"))
