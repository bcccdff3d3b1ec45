"""Files of a run that are not what a run writes: each is named as damaged, with what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from alexnet_pl.errors import ConfigError
from alexnet_pl.report.claims import survey
from alexnet_pl.report.compare import collect
from alexnet_pl.runs import checkpoint, trained
from alexnet_pl.runs.run import Run, find_runs
from alexnet_pl.runs.sweep import read_sweep, record_sweep
from tests.helpers.fuzz import STRANGE, untouched
from tests.helpers.nets import save_checkpoint, untrained_model
from tests.helpers.reports import make_run, rows, settings

pytestmark = pytest.mark.slow

READERS: dict[str, Callable[[Path], object]] = {
    "config.yaml": lambda folder: Run(folder).config,
    "run.json": lambda folder: Run(folder).identity,
    "done.json": lambda folder: Run(folder).status,
    "failed.json": lambda folder: Run(folder).failure,
    "metrics.csv": lambda folder: Run(folder).metrics,
    "sweep.json": read_sweep,
    "checkpoints/last.ckpt": trained.load,
    "checkpoints/best.ckpt": lambda folder: trained.load(folder, ["best"]),
}
"""What reads each file"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("made") / "a", settings(), rows(9, 2))


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    """A finished run, for a test to change."""
    return Run(shutil.copytree(made.folder, tmp_path / "runs" / "a"))


@pytest.mark.parametrize("name", READERS)
def test_whatever_stands_in_a_files_place_is_damaged(name: str, run: Run, tmp_path: Path):
    last = run.folder / "checkpoints" / "last.ckpt"
    last.write_bytes(b"PK")
    file = run.folder / name
    for put in STRANGE.values():
        file.unlink(missing_ok=True)
        put(file)
        says = rf"^{file} (is damaged: [^;]+; |was written by another version .* key a: )\w+"
        with untouched(tmp_path), pytest.raises(ConfigError, match=says):
            READERS[name](run.folder)
        file.rmdir() if file.is_dir() else file.unlink()


def test_a_whole_run_is_read(run: Run):
    assert (run.status, run.config, len(run.metrics)) == ("done", settings(), 10)
    assert run.identity["overrides"] == []


WRONG = [
    ("run.json", {"id": 5}, "id should be a str and is a int"),
    ("run.json", {"overrides": []}, "it has no id"),
    ("run.json", {"id": "a", "overrides": "model.lrn=[]"}, "overrides should be a list and is a str"),
    ("run.json", {"id": "a", "overrides": [["x"]]}, "overrides.0 should be a str and is a list"),
    ("run.json", {"id": "a", "git": {"commit": 5}}, "git.commit should be a str and is a int"),
    ("run.json", {"id": "a", "versions": [1]}, "versions should be a dict and is a list"),
    ("run.json", {"id": "a", "machine": "mine"}, "machine should be a dict and is a str"),
    ("run.json", {"id": "a", "continued": {"a": 1}}, "continued should be a list and is a dict"),
    ("done.json", {"metrics": "none"}, "metrics should be a dict and is a str"),
    ("done.json", {"seconds": 1}, "it has no metrics"),
    ("done.json", {}, "it has no metrics"),
    ("failed.json", {"reason": ["a"]}, "reason should be a str and is a list"),
    ("sweep.json", {"a": "x=1"}, "a should be a list and is a str"),
    ("sweep.json", {"a": [1]}, "a.0 should be a str and is a int"),
    ("sweep.json", {"../victim": ["x=1"]}, "'../victim' is no name of a folder"),
    ("sweep.json", {"..": ["x=1"]}, "'..' is no name of a folder"),
    ("sweep.json", {"/etc": ["x=1"]}, "'/etc' is no name of a folder"),
    ("sweep.json", {"": []}, "'' is no name of a folder"),
]


@pytest.mark.parametrize(("name", "contents", "said"), WRONG)
def test_an_entry_of_another_type_is_named(name: str, contents: dict[str, Any], said: str, run: Run):
    (run.folder / name).write_text(json.dumps(contents))
    with pytest.raises(ConfigError) as error:
        READERS[name](run.folder)
    assert f"{run.folder / name} is damaged: {said}; " in str(error.value)


CONFIGS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c.pop("seed"), "seed is missing"),
    (lambda c: c.update(seed="one"), "seed is 'one'"),
    (lambda c: c.update(seed=True), "seed is True"),
    (lambda c: c.update(seed={}), "seed is {}"),
    (lambda c: c.update(seed={"a": 1}), "seed is {'a': 1}"),
    (lambda c: c.update(model=5), "model is 5"),
    (lambda c: c.update(model=[]), "model is []"),
    (lambda c: c.update(report=None), "report is None"),
    (lambda c: c["model"].pop("arch"), "model.arch is missing"),
    (lambda c: c["model"].update(activation="step"), "model.activation is 'step'"),
    (lambda c: c["model"].update(widths=[1]), "model.widths is [1]"),
    (lambda c: c["model"].update(lrn="conv1"), "model.lrn is 'conv1'"),
    (lambda c: c["optim"].update(lr=float("nan")), "optim.lr is nan"),
    (lambda c: c["optim"].update(lr=float("inf")), "optim.lr is inf"),
    (lambda c: c["optim"].update(lr_milestones=["a"]), "optim.lr_milestones is ['a']"),
    (lambda c: c["report"].update(target=[0.25]), "report.target is [0.25]"),
    (lambda c: c["report"].update(compare=[["a"]]), "report.compare is [['a']]"),
]


@pytest.mark.parametrize(("change", "said"), CONFIGS, ids=[said for _, said in CONFIGS])
def test_a_value_of_another_type_is_named(change: Callable[[dict[str, Any]], object], said: str, run: Run):
    plain = settings()
    change(plain)
    (run.folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain)))
    with pytest.raises(ConfigError) as error:
        _ = run.config
    assert f"config.yaml is damaged: {said}; " in str(error.value)


YAMLS = {
    "a: &x [1, 2]\nb: [*x, *x]\n": "parts of it stand for others",
    "seed: 2020-01-01\n": "date",
    "seed: [1\n": "while parsing",
    "seed: !!python/object:os.system x\n": "could not determine a constructor",
    'name: "\\ud800"\n': "surrogates",
}


@pytest.mark.parametrize("text", YAMLS)
def test_yaml_that_a_run_never_writes_is_damaged(text: str, run: Run):
    (run.folder / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"config\.yaml is damaged: it is no configuration \(.*{YAMLS[text]}"):
        _ = run.config


def test_a_key_of_another_version_is_no_damage(run: Run):
    (run.folder / "config.yaml").write_text(OmegaConf.to_yaml(settings() | {"colour": "red"}))
    with pytest.raises(ConfigError, match="written by another version of this package, which had a key colour"):
        _ = run.config
    older = settings()
    del older["model"]["towers"], older["report"]
    run.record(older)
    assert run.config["model"]["towers"] == 1
    assert run.config["report"]["compare"] == []


TABLES = {
    "epoch,images_seen\n1,x\n": "line 2: could not convert string to float: 'x'",
    "epoch,images_seen\n1,2,3\n": "line 2: more cells than columns",
    "epoch,images_seen\n1,2\n,4\n": "line 3: epoch is missing",
    "epoch,train/error\n1,0.5\n": "line 1: it has no column images_seen",
    "epoch,images_seen\nnan,2\n": "line 2: epoch is missing, or no number that a run comes to",
    "epoch,images_seen\n-1,2\n": "line 2: epoch is missing, or no number that a run comes to",
    "epoch,images_seen\n1,1e300\n": "line 2: images_seen is missing, or no number",
    "epoch,images_seen,train/error\n1,2,1e300\n": "line 2: train/error is 1e+300",
    'epoch,images_seen\n1,"2\n': "line 1: unexpected end of data",
    "epoch,images_se": "it has no whole line",
}


@pytest.mark.parametrize("text", TABLES)
def test_a_table_of_something_else_is_damaged(text: str, run: Run):
    (run.folder / "metrics.csv").write_text(text)
    with pytest.raises(ConfigError) as error:
        collect(run.folder)
    assert f"metrics.csv is damaged: {TABLES[text]}" in str(error.value)


def test_all_commands_over_a_folder_name_the_file(run: Run, tmp_path: Path):
    """A folder of runs, of which one file is damaged, by way of finding runs, reporting them and looking for claims."""
    record_sweep(run.folder.parent, {"a": ["sweep=lrn"], "b": []})
    (run.folder / "run.json").write_text('{"id": "a", "overrides": 3}')
    for read in (lambda: collect(run.folder.parent), lambda: survey(tmp_path)):
        with pytest.raises(ConfigError, match=r"run\.json is damaged: overrides"):
            read()
    (run.folder.parent / "sweep.json").write_text("[1, 2]")
    for read in (lambda: collect(run.folder.parent), lambda: survey(tmp_path), lambda: find_runs(run.folder.parent)):
        with pytest.raises(ConfigError, match=r"sweep\.json is damaged: its contents should be a dict and is a list"):
            read()
    with pytest.raises(ConfigError, match=r"sweep\.json is damaged"):
        record_sweep(run.folder.parent, {"c": []})
    assert (run.folder.parent / "sweep.json").read_text() == "[1, 2]", "and it stays as it was"


# ------------------------------------------------------------------------------------------------ checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a checkpoint holds of which a net can be made."""
    net = untrained_model("convnet", "data.resize=36", "data.crop_size=32", "model.width=0.25")
    return torch.load(save_checkpoint(net, tmp_path_factory.mktemp("saved") / "net.ckpt"), weights_only=True)


def first(state: dict[str, Any]) -> str:
    return next(iter(state))


CHECKPOINTS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c.pop("state_dict"), "it has no state_dict"),
    (lambda c: c.pop("input"), "it has no input"),
    (lambda c: c.pop("config"), "it has no config"),
    (lambda c: c.update(state_dict=[1]), "state_dict should be a dict and is a list"),
    (lambda c: c.update(state_dict={}), "it has no weights"),
    (lambda c: c.update(config="all"), "config should be a dict and is a str"),
    (lambda c: c.update(input=torch.zeros(3)), "input should be a dict and is a Tensor"),
    (lambda c: c["input"].pop("mean"), "it has no input.mean"),
    (lambda c: c["input"].pop("classes"), "it has no input.classes"),
    (lambda c: c["input"].update(mean=[1.0]), "input.mean should be a Tensor and is a list"),
    (lambda c: c["input"].update(mean=c["input"]["mean"] * torch.nan), "its mean image is not (32, 32, 3) finite"),
    (lambda c: c["input"].update(mean=torch.zeros(3, 32, 32)), "its mean image is not (32, 32, 3) finite"),
    (lambda c: c["input"].update(mean=torch.zeros(32, 32, 3).long()), "its mean image is not (32, 32, 3) finite"),
    (lambda c: c["input"].update(mean=torch.zeros(32, 32, 3).to_sparse()), "its mean image is not (32, 32, 3) finite"),
    (lambda c: c["input"].update(classes="cats"), "input.classes should be a list and is a str"),
    (lambda c: c["input"].update(classes=[1]), "input.classes.0 should be a str and is a int"),
    (lambda c: c["input"].update(classes=[]), "it names 0 classes for 10 outputs"),
    (lambda c: c["input"].update(classes=["x"] * 11), "it names 11 classes for 10 outputs"),
    (lambda c: c["state_dict"].pop(first(c["state_dict"])), "its net has"),
    (lambda c: c["state_dict"].update({first(c["state_dict"]): torch.zeros(2)}), "its net has"),
    (lambda c: c["state_dict"].update({first(c["state_dict"]): "x"}), "is no tensor of weights"),
    (lambda c: c["state_dict"].update(more=torch.zeros(1).int()), "state_dict.more is no tensor of weights"),
    (lambda c: c["state_dict"].update(more=torch.zeros(1).expand(10**12)), "its weights claim to be larger than the"),
    (lambda c: c["state_dict"].update(more=torch.zeros(0)), "Unexpected key(s) in state_dict"),
    (lambda c: c["config"].update(seed=None), "seed is None"),
    (lambda c: c["config"].update(model=torch.zeros(1)), "model is tensor"),
    (lambda c: c["config"]["data"].update(kind="pictures"), "data.kind is pictures"),
    (lambda c: c["config"]["data"].update(resize=10**9), "its images have 1000000000 pixels"),
    (lambda c: c["config"]["data"].update(crop_size=-3), "its crops -3"),
    (lambda c: c["config"]["data"].update(pixel_scale=0.0), "its pixel_scale is 0"),
    (lambda c: c["config"]["model"].update(num_classes=10**15), "its net has"),
    (lambda c: c["config"]["model"].update(num_classes=-5), "it names 10 classes for -5 outputs"),
    (lambda c: c["config"]["model"].update(width=1e300), "is damaged: "),
    (lambda c: c["config"]["model"].update(width=-1.0), "is damaged: "),
    (lambda c: c["config"]["model"].update(towers=0), "is damaged: "),
    (lambda c: c["config"]["model"].update(lrn_size=-2, lrn=["conv1"]), ""),
    (lambda c: c["config"]["model"].update(drop_layers=["conv1"]), "is damaged: "),
    (lambda c: c["config"].update(seed=10**40), ""),
]


def copied(value: Any) -> Any:
    return {key: copied(entry) for key, entry in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(("change", "said"), CHECKPOINTS)
def test_a_checkpoint_of_something_else_is_damaged(
    change: Callable[[dict[str, Any]], object], said: str, saved: dict[str, Any], tmp_path: Path
):
    """What has no bearing on the weights is no damage: the seed is only that of their start."""
    contents, file = copied(saved), tmp_path / "net.ckpt"
    change(contents)
    torch.save(contents, file)
    if not said:
        assert trained.load(file).classes == saved["input"]["classes"]
        return
    with pytest.raises(ConfigError) as error:
        trained.load(file)
    assert str(error.value).startswith(f"{file} is damaged: ")
    assert said in str(error.value)


def test_a_checkpoint_that_is_cut_or_runs_code_is_damaged(saved: dict[str, Any], tmp_path: Path):
    file = tmp_path / "net.ckpt"
    torch.save(saved, file)
    whole = file.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ConfigError, match=r"net\.ckpt is damaged: it is (empty|cut short, or no checkpoint); "):
            checkpoint.read(file, checkpoint.NET, "train again")
    torch.save(saved | {"more": Path()}, file)
    with pytest.raises(ConfigError, match=r"net\.ckpt is damaged: torch cannot read it: Weights only load failed; "):
        checkpoint.read(file, checkpoint.NET, "train again")
    torch.save([saved], file)
    with pytest.raises(ConfigError, match=r"net\.ckpt is damaged: its contents should be a dict and is a list; "):
        checkpoint.read(file, checkpoint.NET, "train again")
