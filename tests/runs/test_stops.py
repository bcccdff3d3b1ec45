"""What ends a run early leaves a word: a damaged checkpoint, a removed folder, a full disk, infinite numbers."""

from __future__ import annotations

import copy
import functools
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.data import datasets
from alexnet_pl.errors import ConfigError, InUse, NotFinite, TrainingError, UserError
from alexnet_pl.jobs.sweep import HydraCallback
from alexnet_pl.runs.run import Run
from alexnet_pl.train import discard
from alexnet_pl.train import train as train_run
from alexnet_pl.training.module import ImageClassifier
from tests.helpers.commands import Command
from tests.helpers.fuzz import full_disk, picture, untouched
from tests.helpers.runs import NET, TINY, run_config

MORE = ("trainer.max_epochs=2", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "train_error_window=50")


@pytest.fixture(scope="module", autouse=True)
def few_images() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "SHAPES_SPLITS", {"train": (200, 1), "val": (50, 2)})
        yield


composed = functools.cache(run_config)


def config(*overrides: str) -> Config:
    """Return a run's configuration, for a test to change; composed once."""
    return copy.deepcopy(composed(*NET, *MORE, *overrides))


def fit(folder: Path, cfg: Config) -> Run:
    """Train as the command does once it has checked its overrides."""
    run = Run(folder)
    try:
        train_run(cfg, run, [])
    finally:
        run.release()
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run after the first of its two epochs."""
    return fit(tmp_path_factory.mktemp("trained") / "run", config("trainer.max_epochs=1"))


@pytest.fixture
def begun(trained: Run, tmp_path: Path) -> Run:
    """The same without its done mark, to be continued."""
    run = Run(shutil.copytree(trained.folder, tmp_path / "run"))
    run.record(as_dict(config()))
    (run.folder / "done.json").unlink()
    return run


def first(state: dict[Any, Any]) -> Any:
    return next(iter(state))


def velocities(contents: dict[str, Any]) -> dict[int, Any]:
    return contents["optimizer_states"][0]["state"]


DAMAGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c.pop("loops"), "it has no loops"),
    (lambda c: c.pop("optimizer_states"), "it has no optimizer_states"),
    (lambda c: c.pop("progress"), "it has no progress"),
    (lambda c: c["progress"].pop("window"), "it has no progress.window"),
    (lambda c: c["progress"].update(images_seen="many"), "progress.images_seen should be a int and is a str"),
    (lambda c: c["progress"].update(window="open"), "progress.window should be a list and is a str"),
    (lambda c: c["progress"].update(window=[0.0]), "it cannot be restored"),
    (lambda c: c.update(epoch="first"), "epoch should be a int and is a str"),
    (lambda c: c.update(optimizer_states=[5]), "optimizer_states.0 should be a dict and is a int"),
    (lambda c: c.update(optimizer_states=[]), "it holds the states of 0 optimisers"),
    (lambda c: c["optimizer_states"][0].pop("state"), "it cannot be restored (KeyError: 'state')"),
    (lambda c: velocities(c).update({0: 5}), "it cannot be restored"),
    (lambda c: velocities(c)[0].update(velocity=torch.zeros(7)), "its velocities are of other sizes"),
    (lambda c: c["optimizer_states"][0].update(param_groups=[]), "it cannot be restored"),
    (lambda c: c["state_dict"].pop(first(c["state_dict"])), "net.conv1.weight is of no size, and the net's of"),
    (lambda c: c["state_dict"].update(more=torch.zeros(1)), "more is of (1,), and the net's of no size"),
    (lambda c: c.update({"pytorch-lightning_version": "none"}), "it cannot be restored"),
    (lambda c: c["loops"].pop("fit_loop"), "it cannot be restored"),
    (lambda c: c["loops"].update(fit_loop={"state_dict": []}), "it cannot be restored"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "said"), DAMAGES)
def test_a_run_is_not_continued_from_something_else(
    change: Callable[[dict[str, Any]], object], said: str, begun: Run, tmp_path: Path
):
    contents = torch.load(begun.last, weights_only=True)
    change(contents)
    torch.save(contents, begun.last)
    with pytest.raises(ConfigError) as error:
        fit(begun.folder, config())
    assert str(error.value).startswith(f"{begun.last} is damaged: ")
    assert said in str(error.value)
    assert begun.failure == str(error.value)


@pytest.mark.slow
def test_a_whole_one_is_continued(begun: Run):
    assert fit(begun.folder, config()).status == "done"
    assert torch.load(begun.last, weights_only=True)["global_step"] == 4


NO_CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("words"),
    "empty": lambda path: path.write_bytes(b""),
    "other tensors": lambda path: torch.save({"a": torch.zeros(2)}, path),
    "a list": lambda path: torch.save([1, 2], path),
    "a link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ckpt_path", "pretrained"])
def test_what_is_no_checkpoint_is_refused_before_a_folder_is_made(key: str, tmp_path: Path, train: Command):
    file = tmp_path / "a.ckpt"
    for put in NO_CHECKPOINTS.values():
        put(file)
        with untouched(tmp_path):
            result = train(*TINY, f"{key}={file}")
        assert result.returncode == 1
        (sentence,) = result.stderr.splitlines()
        assert sentence.startswith(f"error: {file} is damaged: ")
        assert {"ckpt_path": "give another ckpt_path", "pretrained": "give a checkpoint"}[key] in sentence
        file.unlink()


# ------------------------------------------------------------------------------------------------ the folder


def in_batch(number: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something happen in the batch of this number, counted from 1."""
    step, seen = ImageClassifier.training_step, 0

    def counted(self: ImageClassifier, *args: Any) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if seen == number:
            act()
        return step(self, *args)

    monkeypatch.setattr(ImageClassifier, "training_step", counted)


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["csv", "none"])
def test_a_folder_that_is_removed_stops_the_run_and_stays_away(
    logger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    in_batch(2, lambda: shutil.rmtree(folder), monkeypatch)
    quiet = ["trainer.enable_progress_bar=false"] if logger == "none" else []
    with pytest.raises(TrainingError, match=f"^the run folder {folder} is gone: it was removed while the run trained$"):
        fit(folder, config(f"logger={logger}", *quiet))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_folder_that_another_run_took_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, other = tmp_path / "run", Run(tmp_path / "run")

    def replace() -> None:
        shutil.rmtree(folder)
        other.start(as_dict(config()), [])
        other.release()
        before.update(picture(folder))

    before: dict[Path, str] = {}
    in_batch(2, replace, monkeypatch)
    with pytest.raises(TrainingError, match="holds another run by now"):
        fit(folder, config())
    assert picture(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("file", ["best.ckpt", "metrics.csv", "config.yaml"])
def test_a_full_disk_names_its_file(file: str, trained: Run, tmp_path: Path):
    config_bytes = (trained.folder / "config.yaml").stat().st_size
    left = {"best.ckpt": trained.last.stat().st_size // 2, "metrics.csv": config_bytes + 300, "config.yaml": 100}
    more = ["trainer.max_epochs=40", "trainer.enable_checkpointing=false"] if file == "metrics.csv" else []
    with full_disk(left[file]), pytest.raises(UserError) as error:
        fit(tmp_path / "run", config(*more))
    assert file in str(error.value)
    assert "File too large" in str(error.value)
    assert list(tmp_path.rglob("*.tmp")) == []
    if file != "config.yaml":  # else the run has not begun
        assert Run(tmp_path / "run").failure == str(error.value)


# ------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize("trained", [False, True], ids=["refused", "trained"])
def test_only_a_run_that_has_not_trained_goes_and_nobody_can_begin_in_it_meanwhile(
    trained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = Run(tmp_path / "runs" / "train" / "seed=1")
    folders = [run.folder, *list(run.folder.parents)[:2]]
    run.start(as_dict(config()), [])
    if trained:
        (run.folder / "metrics.csv").touch()
    (tmp_path / "runs" / "another").mkdir()
    monkeypatch.setattr(HydraCallback, "made", folders)

    def remove(folder: Path, rmtree: Callable[[Path], None] = shutil.rmtree) -> None:
        with pytest.raises(InUse):
            Run(folder).start(as_dict(config()), [])
        rmtree(folder)

    monkeypatch.setattr(shutil, "rmtree", remove)
    discard(run)
    run.release()
    assert [folder.exists() for folder in folders] == [trained, trained, True], "another run has come into the last"


# ------------------------------------------------------------------------------------------------ numbers


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lrn_alpha", "std"])
def test_the_learning_rate_is_not_blamed_for_what_is_infinite_from_the_start(name: str, tmp_path: Path):
    cfg = config("optim.lr=0.001", f"model.lrn=[{'conv1' if name == 'lrn_alpha' else ''}]")
    if name == "std":
        cfg.model.std = {"conv1": 1e30, "conv2": 1e30}
    else:
        cfg.model.lrn_alpha = math.inf
    with pytest.raises(NotFinite, match=r"before the first update: .*whatever the learning rate") as error:
        fit(tmp_path / "run", cfg)
    assert "optim.lr" not in str(error.value)


@pytest.mark.slow
def test_a_run_whose_last_update_diverged_is_one_sentence(tmp_path: Path):
    """The loss was finite before it; the validation after it finds a net without finite outputs."""
    cfg = config("optim.lr=1e30", "trainer.max_steps=1", "trainer.limit_train_batches=1", "test_views=1")
    with pytest.raises(NotFinite, match=r"^val/loss became (nan|inf) in epoch 1: .* learning rate .*optim\.lr=1e\+30"):
        fit(tmp_path / "run", cfg)
    run = Run(tmp_path / "run")
    assert run.status == "failed"
    assert not run.last.exists(), "nor is it kept"
