"""Run folders with one file damaged at random, and every command over them: each ends well, or in a sentence.

Nothing else than the command's own output changes, and a refused command leaves no folder.
"""

from __future__ import annotations

import copy
import errno
import functools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image

from alexnet_pl import export, sync
from alexnet_pl.config.schema import Config, as_dict
from alexnet_pl.data import datasets
from alexnet_pl.errors import UserError
from alexnet_pl.evaluate import cli as evaluate
from alexnet_pl.jobs.sweep import check_run
from alexnet_pl.predict import cli as predict
from alexnet_pl.report import cli as report
from alexnet_pl.runs.run import Run, find_runs
from alexnet_pl.runs.sweep import record_sweep
from alexnet_pl.train import train
from tests.helpers.commands import train_command
from tests.helpers.fuzz import DONE, REFUSED, STRANGE, changes, full_disk, how_it_ended, picture
from tests.helpers.runs import NET, run_config

SAVE_FIGURE = Figure.savefig
PAIRS = 50
"""of a damage and a command for each seed"""
ONE_BATCH = [
    *NET, "trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "trainer.max_epochs=1",
    "train_error_window=50", "name=fuzz", "trainer.enable_progress_bar=false", "data.batch_size=10",
]  # fmt: skip


JOBS = {"a": ["seed=1"], "b": ["seed=2"]}


@functools.cache
def _composed(*overrides: str) -> Config:
    return run_config(*ONE_BATCH, *overrides)


def config(*overrides: str) -> Config:
    """Return a run's configuration, for a test to change; composed once, as that takes longer than most commands."""
    return copy.deepcopy(_composed(*overrides))


# ------------------------------------------------------------------------------------------------ the folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of two runs of a sweep, done and without a damage, and an image beside it."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "SHAPES_SPLITS", {"train": (10, 1), "val": (10, 2)})
        patch.setattr(Figure, "savefig", lambda figure, file, **how: Path(file).write_bytes(b"a picture"))
        for name, more in JOBS.items():
            run = Run(folder / "runs" / "fuzz" / name)
            train(config(*more), run, ["sweep=lrn", *more])
            run.release()
            (run.folder / "wandb" / "offline-run-1-x").mkdir(parents=True)
            for end in ("wandb", "wandb.synced"):
                (run.folder / "wandb" / "offline-run-1-x" / f"run-x.{end}").write_bytes(b"x")
        (run.folder.parent / "a" / "failed.json").write_text('{"reason": "of old"}')
        record_sweep(run.folder.parent, {name: ["sweep=lrn", *more] for name, more in JOBS.items()})
        Image.new("RGB", (80, 80)).save(folder / "image.png")
        (folder / "temporary").mkdir()
        patch.setenv("TMPDIR", str(folder / "temporary"))
        yield folder


# ------------------------------------------------------------------------------------------------ damages

NAMES = ["config.yaml", "run.json", "done.json", "failed.json", "metrics.csv"]
FILES = [*(f"a/{name}" for name in NAMES), "a/checkpoints/last.ckpt", "a/checkpoints/best.ckpt", "sweep.json"]
MAD: list[Any] = [
    None, True, 0, -1, 10**40, -(10**9), 1e300, float("nan"), float("inf"), "", "x", "../..", "\x1b[2J", "${seed}",
    "a" * 9999, [], [1], ["x"], [[]], {}, {"a": 1}, {"": {}},
]  # fmt: skip


def cut(file: Path, rng: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])


def flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice([1, 1, 8, 200])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def replace(file: Path, rng: random.Random) -> None:
    file.unlink()
    STRANGE[rng.choice(list(STRANGE))](file)


def remove(file: Path, rng: random.Random) -> None:
    file.unlink()


def change_entry(file: Path, rng: random.Random) -> None:
    """Delete an entry, however deep, or put something mad in its place."""
    if file.suffix == ".csv":
        change_cell(file, rng)
        return
    contents = load(file)
    entries = list(all_entries(contents))
    holder, key = rng.choice(entries) if entries else (contents, "a")
    if rng.random() < 0.3:
        holder.pop(key, None)
    else:
        tensors = [torch.zeros(3), torch.full((2, 2), torch.nan)] if file.suffix == ".ckpt" else []
        holder[key] = rng.choice([*MAD, *tensors])
    save(file, contents)


def change_cell(file: Path, rng: random.Random) -> None:
    lines = [line.split(",") for line in file.read_text().splitlines()]
    line = rng.choice(lines)
    if rng.random() < 0.2:
        line.append("1")
    else:
        line[rng.randrange(len(line))] = str(rng.choice(MAD))
    file.write_text("".join(f"{','.join(line)}\n" for line in lines))


def load(file: Path) -> Any:
    if file.suffix == ".ckpt":
        return torch.load(file, weights_only=True)
    return yaml.safe_load(file.read_text()) if file.suffix == ".yaml" else json.loads(file.read_text())


def save(file: Path, contents: Any) -> None:
    if file.suffix == ".ckpt":
        torch.save(contents, file)
    else:
        file.write_text(yaml.dump(contents) if file.suffix == ".yaml" else json.dumps(contents))


def all_entries(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield node, key
            yield from all_entries(value)


MUTATORS: list[Callable[[Path, random.Random], None]] = [cut, flip, replace, replace, remove, *[change_entry] * 5]

# ------------------------------------------------------------------------------------------------ commands


def go_on(folder: Path) -> None:
    """Train the first run again, as the command does once its overrides are composed."""
    cfg = config(*JOBS["a"])
    run = Run(folder / "runs" / "fuzz" / "a")
    try:
        check_run(cfg, run)
        if run.done:
            run.record(as_dict(cfg))
        else:
            train(cfg, run, [])
    finally:
        run.release()


def go_on_undone(folder: Path) -> None:
    (folder / "runs" / "fuzz" / "a" / "done.json").unlink(missing_ok=True)
    go_on(folder)


def start_from(key: str) -> Callable[[Path], None]:
    """Begin another run with a checkpoint of the first, up to its claim of a folder."""

    def call(folder: Path) -> None:
        cfg, run = config(*JOBS["a"]), Run(folder / "runs" / "another" / "c")
        setattr(cfg, key, str(folder / "runs" / "fuzz" / "a"))
        check_run(cfg, run)
        run.start(as_dict(cfg), [])
        run.release()

    return call


def sweep_again(folder: Path) -> None:
    """What a sweep reads and writes besides its jobs' own."""
    runs = folder / "runs" / "fuzz"
    record_sweep(runs, {"a": ["sweep=lrn"], "c": ["sweep=lrn"]})
    assert [run.status for run in find_runs(runs)]


FUNCTIONS = [go_on, go_on_undone, start_from("ckpt_path"), start_from("pretrained"), sweep_again]
A, ALL = "runs/fuzz/a", "runs/fuzz"
MAINS: list[tuple[Callable[[], None], list[str]]] = [
    (report.main, [A]),
    (report.main, ["--kernels", A]),
    (report.main, ["--claims", "runs"]),
    (report.main, [ALL, "--wandb", "ada/nets", "--wandb-dry-run"]),
    (evaluate.main, [ALL, "--out", "out"]),
    (evaluate.main, [A, "--weights", "best", "last", "--out", "out"]),
    (predict.main, [A, "image.png"]),
    (export.main, [A, "--format", "torch", "--out", "out"]),
    (sync.main, [ALL]),
]


def call(number: int, folder: Path, patch: pytest.MonkeyPatch) -> str:
    """Run a command over a folder; return how it ended."""
    if number < len(MAINS):
        main, words = MAINS[number]
        return how_it_ended(train_command(folder, patch, main)(*words))
    code, said = 0, ""
    try:
        FUNCTIONS[number - len(MAINS)](folder)
    except (UserError, OSError) as error:
        code, said = 1, f"error: {error}"
    return how_it_ended(subprocess.CompletedProcess([], code, "", said))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(MAINS) + len(FUNCTIONS)))
def test_a_whole_folder_satisfies_every_command(
    number: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert call(number, Path(shutil.copytree(whole, tmp_path / "home")), monkeypatch) == DONE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_run_ends_no_command_in_a_traceback(
    seed: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rng, ended = random.Random(seed), Counter[str]()
    for number in range(PAIRS):
        parent = tmp_path / str(number)
        folder = Path(shutil.copytree(whole, parent / "home"))
        name, mutate = rng.choice(FILES), rng.choice(MUTATORS)
        mutate(folder / "runs" / "fuzz" / name, rng)
        command = rng.randrange(len(MAINS) + len(FUNCTIONS))
        about = f"seed {seed}, pair {number}: {mutate.__name__} of {name}, command {command}"
        before = picture(parent)
        try:
            how = call(command, folder, monkeypatch)
        except BaseException as error:
            error.add_note(about)
            raise
        ended[how] += 1
        after = picture(parent)
        new = changes(before, after)
        assert [line for line in new if not line.startswith((f"{folder / 'runs'}/", f"{folder / 'out'}"))] == [], about
        if how == REFUSED:
            assert [path for path in after.keys() - before.keys() if path.is_dir()] == [], about
        shutil.rmtree(parent)
    print(f"seed {seed}: {dict(ended)}", file=sys.stderr)
    assert ended[DONE] >= PAIRS // 4, "most commands do not read every file"
    assert ended[REFUSED] >= PAIRS // 7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(MAINS) - 1))  # sync writes nothing
@pytest.mark.parametrize("left", [100, 10_000])
def test_a_full_disk_names_a_file_in_every_command(
    number: int, left: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    main, words = MAINS[number]
    monkeypatch.setattr(Figure, "savefig", SAVE_FIGURE)
    folder = Path(shutil.copytree(whole, tmp_path / "home"))
    more = ["--csv", "out.csv", "--figure", "out.png"] if main is predict.main else []
    more += ["--keep-logits"] if main is evaluate.main else []
    with full_disk(left):
        result = train_command(folder, monkeypatch, main)(*words, *more)
    if how_it_ended(result) == REFUSED:
        said = re.fullmatch(rf"error: (\S+): {os.strerror(errno.EFBIG)}", result.stderr.splitlines()[-1])
        assert said, result.stderr
        assert Path(said[1]).suffix, "a file, and not the folder of all that the command writes"
    else:
        assert left > 100, "this command writes less"
    assert not list(folder.rglob("*.tmp"))
