"""Values that no key should have, walked over all keys: each is refused in a sentence, before anything is written."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from alexnet_pl import compose
from alexnet_pl.config.keys import key_types
from alexnet_pl.config.schema import Config, as_dict, from_dict
from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs import checks
from alexnet_pl.jobs.mistakes import find_mistakes
from alexnet_pl.jobs.sweep import MOST_JOBS, check_run
from alexnet_pl.parallel import memory
from alexnet_pl.runs.run import Run
from alexnet_pl.training import fit
from tests.helpers.commands import Command
from tests.helpers.runs import TINY, run_config


@cache
def base() -> Config:
    return run_config("experiment=alexnet", "trainer=cpu", "logger=csv")


def with_value(key: str, value: Any) -> Config:
    """A configuration in which one key has another value."""
    plain = as_dict(base())
    *groups, name = key.split(".")
    holder = plain
    for group in groups:
        holder = holder[group]
    holder[name] = value
    return from_dict(plain)


def refusals(cfg: Config, to_run: bool = False) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        checks.check(cfg, to_run)
    return refused.value.sentences


def shaped(kind: Any, number: float) -> Any:
    """A number in the place where a key's type has one."""
    text = str(kind)
    return {"conv1": number} if text.startswith("dict") else [number] if text.startswith("list") else number


NUMBERS = {
    word: [key for key, kind in key_types().items() if re.search(rf"\b{word}\b", str(kind))]
    for word in ("int", "float")
}
"""Keys that are numbers, or lists or dicts of some"""


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 1e39])
@pytest.mark.parametrize("key", NUMBERS["float"])
def test_no_float_is_infinite_or_no_number(key: str, number: float):
    (sentence,) = refusals(with_value(key, shaped(key_types()[key], number)))
    assert sentence.startswith(key)
    assert "must be a finite number" in sentence


@pytest.mark.parametrize("key", NUMBERS["int"])
def test_no_whole_number_is_too_large_for_64_bits(key: str):
    (sentence,) = refusals(with_value(key, shaped(key_types()[key], 10**20)))
    assert sentence.startswith(key)
    assert "must be at most" in sentence


def test_there_are_such_keys():
    assert len(NUMBERS["float"]) >= 20
    assert len(NUMBERS["int"]) >= 20


TRAINER = [
    ("max_epochs", -5, "at least -1"), ("max_epochs", 0, "would not train"), ("max_steps", -2, "at least -1"),
    ("max_steps", 0, "would not train"), ("max_time", "abc", "DD:HH:MM:SS"), ("max_time", "", "DD:HH:MM:SS"),
    ("max_time", "00:00:00:00", "DD:HH:MM:SS"), ("precision", "abc", "choose from"), ("strategy", "abc", "choose from"),
    ("accelerator", "tpu", "not a choice"), ("profiler", "abc", "choose from"), ("deterministic", "maybe", "warn"),
    ("devices", [0, 0], "different"), ("devices", "0,0", "different"), ("devices", [0, "a"], "different"),
    ("devices", [0, 1], "lists GPUs"), ("devices", [], "at least 1"), ("devices", 1.5, "at least 1"),
    ("devices", True, "at least 1"), ("devices", {"a": 1}, "at least 1"), ("num_nodes", 0, "at least 1"),
    ("limit_train_batches", 1.5, "a share"), ("limit_train_batches", "abc", "a share"),
    ("limit_train_batches", 0.0, "would not train"), ("limit_val_batches", -1, "a share"),
    ("limit_test_batches", True, "a share"), ("limit_test_batches", [1], "a share"),
    ("accumulate_grad_batches", 0, "at least 1"), ("check_val_every_n_epoch", 0, "at least 1"),
    ("num_sanity_val_steps", -2, "at least -1"), ("gradient_clip_val", -1.0, "at least 0"),
    ("val_check_interval", 500, "more than the 79 batches"), ("val_check_interval", 0, "would not validate"),
    ("val_check_interval", 1.5, "a share"), ("val_check_interval", "00:01:00:00", "a share"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "said"), TRAINER, ids=str)
def test_what_lightning_would_refuse_later_is_refused_at_once(key: str, value: Any, said: str):
    (sentence,) = refusals(with_value(f"trainer.{key}", value))
    assert f"trainer.{key}=" in sentence
    assert said in sentence


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.detect_anomaly=abc", "takes bool"),
        ("trainer.log_every_n_steps=abc", "takes int | null"),
        ("trainer.min_epochs=[1]", "takes int | null"),
        ("trainer.fast_dev_run=abc", "takes int | bool"),
    ],
)
def test_other_arguments_of_lightning_have_their_types(word: str, said: str):
    assert said in find_mistakes([word])[word][0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.num_classes", 10**12), ("model.width", 1e30), ("data.batch_size", 10**12),
        ("model.widths", {"fc6": 10**12}), ("trainer.devices", 2**20),
    ],
    ids=str,
)  # fmt: skip
def test_what_no_machine_can_hold_is_refused(key: str, value: Any):
    cfg = with_value(key, value)
    if key == "trainer.devices":
        cfg = replace(cfg, data=replace(cfg.data, batch_size=value))
    (sentence,) = refusals(cfg, to_run=True)
    assert "are more than the" in sentence
    assert f"{key}=" in sentence or key == "model.widths"
    checks.check(cfg, to_run=False)  # it can be described


def test_memory_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch):
    checks.check(base())
    monkeypatch.setattr(memory.cpu, "memory", lambda: 10**8)
    assert "0.1 GB here" in refusals(base(), to_run=True)[0]


OVERRIDES = [
    ("lr=0.1", "did you mean optim.lr?"), ("epochs=9", "did you mean trainer.max_epochs?"),
    ("batch_size=9", "did you mean data.batch_size?"), ("sed=9", "did you mean seed?"),
    ("scale=null", "scale=null is not a choice"), ("optim=5", "optim=5 is not a choice"),
    ("model=[alexnet,3]", "not a choice"), ("model=", "model='' is not a choice"), ("data=nan", "not a choice"),
    ("model=${nope:1}", "not a choice"), ("sweep=null", "not a choice"), ("hydra=5", "would change"),
    ("hydra/sweeper=basic", "would change"), ("hydra.launcher=null", "would change"), ("~sweep=1", "not a choice"),
    ("~hydra.callbacks.checks", "would change"), ("seed=int(abc)", "not understood"),
    ("seed=range(a,b)", "not understood"), ("seed=choice()", "not understood"), ("seed=1,2", "alexnet-train -m"),
    ("model.lrn=conv1,conv2", "write [...] around a list"), ("model=range(0,3)", "model=a range is not a choice"),
    ("=5", "not understood"), ("seed", "not understood"), ("", "not understood"), ("{=1", "not understood"),
    ("seed=null", "seed"), ("seed=[1]", "seed"), ("seed={a:1}", "seed"),
    ("data.nothing=1", "not a key"), ("+data.nothing=1", "not a key"), ("++data.nothing=1", "not a key"),
    ("~nothing", "nothing"), ("seed@pkg=3", "seed@pkg"), ("model@pkg=alexnet", "model@pkg"),
    ("+model=alexnet", "model"), ("++model=alexnet", "model"), ("seed=${nope}", "Interpolation key 'nope' not found"),
    ("seed=${seed}", "Recursive"),
    ("name=${oc.env:NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE"), ("seed=${nope:1}", "nope"),
    ("hydra.foo=1", "hydra.foo is not a key of Hydra's"), ("hydra.mode=abc", "hydra.mode"),
    ("hydra.run.dir=null", "hydra.run.dir"), ("optim.lr_milestones=[[]]", "plain list"), ("~seed", "seed has no value"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "said"), OVERRIDES, ids=str)
def test_hydras_and_omegaconfs_errors_are_a_sentence(word: str, said: str):
    with pytest.raises(ConfigError) as refused:
        compose(word)
    (sentence,) = refused.value.sentences
    assert said in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400


@pytest.mark.parametrize("key", ["ckpt_path", "pretrained"])
def test_an_empty_start_is_none(key: str):
    """A run that was to go on from a checkpoint must not begin anew."""
    (sentence,) = refusals(with_value(key, ""))
    assert sentence.startswith(f"{key} is empty")


@pytest.mark.parametrize("key", [key for key, kind in key_types().items() if kind in (str, str | None)])
def test_no_text_holds_a_zero_byte(key: str):
    """One's own YAML can; no file system takes it."""
    assert f"{key} holds a zero byte, which no name and no path has" in refusals(with_value(key, "a\0b"))


# ------------------------------------------------------------------------------------------------ sweeps
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=range(0,0)", "no job"), ("model=glob(zz*)", "no job"), ("seed=glob(*)", "no job"),
        ("seed=interval(0,1)", "no list of values"), ("seed=range(0,9,0)", "steps of 0"),
        ("seed=range(0,10000000000)", f"{MOST_JOBS:,} are the most"), ("model=alexnet,5", "model=5 is not a choice"),
        ("hydra.sweeper.max_batch_size=0", "not a key of Hydra's"), ("hydra.sweeper.n_jobs=0", "at least 1"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_sweep_that_is_none_is_refused(train: Command, tmp_path: Path, word: str, said: str):
    result = train("-m", word)
    assert result.returncode == 1
    assert result.stderr.count("error: ") == len(result.stderr.splitlines()) == 1
    assert said in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_sweep_for_slurm_needs_slurm(train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = train("-m", *TINY, "hydra/launcher=submitit_slurm", "seed=1,2")
    assert result.returncode == 1
    assert result.stderr.startswith("error: hydra/launcher=submitit_slurm sends jobs to Slurm, and there is no srun")
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_folders_may_be_numbered(tmp_path: Path, train: Command, monkeypatch: pytest.MonkeyPatch):
    numbers: list[str] = []
    monkeypatch.setattr(
        "alexnet_pl.jobs.local.run_jobs", lambda jobs, *_: numbers.extend(j.run.folder.name for j in jobs)
    )
    train("-m", "seed=1,2,1", "hydra.sweep.subdir=${hydra.job.num}", "logger=csv")
    assert numbers == ["0", "1"]


# ------------------------------------------------------------------------------------------------ refused when begun
@pytest.mark.slow
@pytest.mark.parametrize("word", ["pretrained=no.ckpt", "ckpt_path=no.ckpt", "trainer.limit_train_batches=1e-5"])
def test_what_is_refused_in_its_folder_leaves_none(train: Command, tmp_path: Path, word: str):
    (tmp_path / "no.ckpt").write_text("no checkpoint")
    result = train(*TINY, word)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["no.ckpt"]


@pytest.mark.slow
def test_a_folder_that_was_there_stays(train: Command, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    assert train(*TINY, "trainer.limit_train_batches=1e-5", "hydra.run.dir=mine").returncode == 1
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


@pytest.mark.slow
def test_a_longer_run_is_told_how_to_go_on(train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def work(cfg: Config, run: Run) -> None:
        run.finish({}, 1)

    monkeypatch.setattr(fit, "work", work)
    assert train("logger=csv", "trainer.max_epochs=2").returncode == 0
    (done,) = (tmp_path / "runs" / "train").iterdir()
    longer = train("logger=csv", "trainer.max_epochs=3")
    assert f"to go on from it, add ckpt_path={done}" in longer.stdout
    assert "ckpt_path" not in train("logger=csv", "trainer.max_epochs=4", "optim.lr=0.1").stdout, "another run"
    same = train("logger=csv", "trainer.max_epochs=3", f"hydra.run.dir={done}")
    assert same.returncode == 1
    assert f"done after 2 epochs: to go on from it to 3, add name=... and ckpt_path={done}" in same.stderr
    shutil.rmtree(done.parent)
    with pytest.raises(ConfigError, match="neither a checkpoint"):
        check_run(run_config("logger=csv", f"ckpt_path={done}"), Run(tmp_path / "new"))
