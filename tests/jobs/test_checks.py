"""The configuration: every mistake is one sentence; every key is documented and read."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from pytorch_lightning import Trainer

from alexnet_pl import ROOT
from alexnet_pl.config import keys, schema
from alexnet_pl.config.choices import Activation
from alexnet_pl.config.schema import as_dict
from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs import launch
from alexnet_pl.jobs.compose import to_config
from alexnet_pl.jobs.resolvers import lookup
from alexnet_pl.jobs.sweep import check_run
from alexnet_pl.parallel import layouts
from alexnet_pl.runs.run import Run, find_runs
from tests.helpers.commands import Command
from tests.helpers.runs import TINY, run_config

MISTAKES = [
    (["model.activaton=tanh"], "model.activaton", "model.activation"),
    (["+model.activaton=tanh"], "model.activaton", "model.activation"),
    (["model.activation=tahn"], "model.activation=tahn", "tanh"),
    (["optim.lr=abc"], "optim.lr=abc", "float"),
    (["optim.momentum=1.5"], "optim.momentum=1.5", "below 1"),
    (["sweep=figur1"], "sweep=figur1", "figure1"),
    (["experiment=figure"], "experiment=figure", "figure1"),
    (["data=cifar10", "data.root=nowhere"], "data.root=nowhere", "data.download=true"),
    (["data.root=nowhere"], "data.root=nowhere", "data=cifar10"),
    (["trainer.max_epoch=3"], "trainer.max_epoch ", "trainer.max_epochs"),
    (["modle.activation=relu"], "modle", "model"),
    (["data.resize=36", "data.crop_size=40"], "data.crop_size=40", "36"),
    (["data.resize=7"], "data.resize=7", "between 8 and 4096"),
    (["data.resize=4097"], "data.resize=4097", "between 8 and 4096"),
    (["data.crop_size=4097"], "data.crop_size=4097", "between 8 and 4096"),
    (["trainer.devices=0"], "trainer.devices=0", "at least 1"),
    (["trainer=ddp", "data.batch_size=127"], "data.batch_size=127", "cannot be shared by 2"),
    (["trainer=towers"], "model=convnet has one", "take model=alexnet"),
    (["model=alexnet", "trainer=towers", "trainer.devices=3"], "not 3", "trainer.devices=2"),
    (["model=caffe", "trainer=towers"], "model.lrn_across_towers", "trainer=auto"),
    (["model=alexnet", "model.num_classes=11", "trainer=towers"], "model.num_classes=11", "unused"),
    (["trainer=owt", "trainer.devices=4"], "model.num_classes=10", "cannot be shared by 4"),
    (["trainer.strategy=tower"], "trainer.strategy=tower", "did you mean towers?"),
    (["trainer=gpu", "trainer.devices=64"], "trainer.devices=64", "here"),
    (["model=alexnet", "trainer=towers", "trainer.precision=16-mixed"], "trainer.precision", "bf16-mixed"),
    (["ckpt_path=nowhere.ckpt"], "ckpt_path=nowhere.ckpt", "folder of a run"),
    (["trainer=ddp", "trainer.num_nodes=2"], "trainer.num_nodes=2", "torchrun"),
    (["trainer=ddp", "trainer.num_nodes=1,2", "-m"], "several machines", "hydra/launcher=submitit_slurm"),
    (["trainer.overfit_batches=2"], "trainer.overfit_batches ", "limit_train_batches"),
    (["name=."], "name='.'", "under runs/"),
    (["name=../evil"], "name='../evil'", "under runs/"),
    (["trainer.max_epochs=null"], "trainer.max_epochs", "never end"),
    (["model.num_classes=5"], "model.num_classes=5", "10"),
    (["report.compare=[model.activatoin]"], "model.activatoin", "model.activation"),
    (["-m", "model.activation=relu,tahn"], "model.activation=tahn", "tanh"),
    (["-m", "seed=1,2", "+optim.lrr=3"], "optim.lrr", "optim.lr"),
    (["-m", "optim.momentum=0.9,1.5"], "optim.momentum=1.5", "below 1"),
    (["experiment=figure1", "data.pixel_scale=0"], "data.pixel_scale=0", "above 0"),
    (["model=alexnet", "model.lrn=[conv9]"], "model.lrn names conv9", "conv"),
    (["model=alexnet", "model.widths.conv1=95"], "95 outputs", "even"),
    (["model=alexnet", "data.crop_size=32"], "images of 32 pixels", "too small for model=alexnet"),
    (["model=alexnet", "model.drop_layers=[fc8]"], "fc8", "classes"),
    (["model=alexnet", "model.lrn_size=4"], "model.lrn_size=4", "odd"),
    (["model=alexnet", "model.dropout_rate=1"], "model.dropout_rate=1", "between 0 and 1"),
    (["model.dropout=0.5"], "model.dropout=0.5", "mask"),
    (["model.activation=1"], "model.activation=1", "relu"),
    (["model.input_size=0"], "model.input_size=0", "at least 8"),
    (["model=alexnet", "model.order.conv1=lrn_pool"], "model.order.conv1=lrn_pool", "lrn_pool_act"),
    (["model.widths=5"], "model.widths", "{NAME: int, ...}"),
    (["model.lrn=null"], "model.lrn", "[str,...]"),
    (["report.compare=[model.spatail_norm]"], "model.spatail_norm", "model.spatial_norm"),
    (["model=alexnt"], "model=alexnt", "did you mean alexnet?"),
    (["model.towers=2"], "model.towers=2", "only AlexNet"),
    (["model.dropout=mask"], "model=convnet", "model.dropout=none"),
    (["model.lrn=conv1"], "model.lrn takes a list", "[]"),
    (["optim.lr_milestones=[5]"], "optim.lr_milestones=[5.0]", "one length"),
    (["optim.lr_milestones=[5,3]", "optim.lr_factors=[1,1]"], "optim.lr_milestones", "rise"),
    (["optim=paper", "optim.lr_milestones=[5]", "optim.lr_factors=[0.1]"], "optim.lr_milestones", "plateau"),
    (["optim=paper", "trainer.limit_val_batches=0"], "optim.schedule=plateau", "limit_val_batches"),
    (["optim=released_170", "trainer.max_epochs=-1", "trainer.max_time=00:01:00:00"], "shares", "max_epochs"),
    (["data=imagenet", "data.root=nowhere"], "nowhere is no folder", "alexnet_pl.prepare SOURCE nowhere"),
    (["data=imagenet", "data.root=/"], "/ is no packed store", "alexnet_pl.prepare SOURCE /"),
    (["data=tiny_imagenet", "data.download=true"], "data.download", "alexnet_pl.prepare"),
    (["data.size=64"], "data.size=64", "data=shapes"),
    (["test_views=10"], "test_views=10", "data.resize"),
    (["data.workers=2"], "data.workers=2", "data=imagenet"),
    (["data.on_device=never"], "data.on_device=never", "packed stores"),
    (["data.crop_chunk=0"], "data.crop_chunk=0", "2012: 32"),
    (["data.color_noise=strong"], "data.color_noise=strong", "released_2012"),
    (["data.color_noise_until=3"], "data.color_noise_until=3", "data.color_noise"),
    (["data.color_noise=paper", "data.color_noise_until=0"], "data.color_noise_until=0", "at least 1"),
    (["data.flip=true"], "data.flip ", "data.random_flip"),
    (["test_views=5"], "test_views=5", "10"),
]


OF_RUNS = [mistake for mistake in MISTAKES if "-m" not in mistake[0]]


@pytest.mark.parametrize(("overrides", "key", "nearest"), OF_RUNS, ids=lambda value: str(value))
def test_a_mistake_is_one_sentence(tmp_path: Path, overrides: list[str], key: str, nearest: str):
    with pytest.raises(ConfigError) as refused:
        refuse(overrides, tmp_path / "run")
    assert_one_names(refused.value.sentences, key, nearest)


def refuse(overrides: list[str], folder: Path) -> None:
    """Compose and check as the command does, without Hydra's own way there, which takes most of the time."""
    cfg = run_config(*overrides)
    check_run(cfg, Run(folder))
    launch.refuse_other_group(layouts.layout(cfg.trainer))


def assert_one_names(sentences: Sequence[str], key: str, nearest: str) -> None:
    (sentence,) = [sentence for sentence in sentences if key in sentence]
    assert nearest in sentence
    assert len(sentences) <= 2, "what follows from it may be named as well"


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "key", "nearest"), MISTAKES[::4], ids=lambda value: str(value))
def test_the_command_prints_it_and_leaves_nothing(
    train: Command, tmp_path: Path, overrides: list[str], key: str, nearest: str
):
    result = train(*overrides)
    assert result.returncode == 1
    assert result.stdout == ""
    sentences = result.stderr.strip().splitlines()
    assert all(sentence.startswith("error: ") for sentence in sentences)
    assert_one_names(sentences, key, nearest)
    assert not list(tmp_path.iterdir()), "a refused run leaves nothing behind"


EACH_WAY = [m for m in MISTAKES if m[0][0] in ("model.activaton=tanh", "sweep=figur1", "optim.lr=abc", "-m")]


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "key", "nearest"), EACH_WAY, ids=lambda value: str(value))
def test_so_it_is_in_a_process(process: Command, tmp_path: Path, overrides: list[str], key: str, nearest: str):
    """The same of a process, once for each way in which a mistake comes to light."""
    test_the_command_prints_it_and_leaves_nothing(process, tmp_path, overrides, key, nearest)


def test_wrong_folder_suggests_its_neighbour(tmp_path: Path, train: Command):
    (tmp_path / "cifar10").mkdir()
    result = train("data=cifar10", "data.root=cifra10")
    assert "did you mean cifar10?" in result.stderr
    assert result.returncode == 1


def test_trainer_keys_are_lightnings():
    ours = {key.removeprefix("trainer.") for key in keys.key_types() if key.startswith("trainer.")} - {"more"}
    assert ours <= set(inspect.signature(Trainer.__init__).parameters)


@pytest.mark.slow
def test_other_arguments_of_lightnings_trainer_are_passed_on(train: Command, tmp_path: Path):
    result = train(*TINY, "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.detect_anomaly=true")
    assert result.returncode == 0, result.stderr
    (run,) = find_runs(tmp_path / "runs" / "train")
    assert run.config["trainer"]["more"] == {"detect_anomaly": True}


def test_all_mistakes_are_shown_at_once(train: Command, tmp_path: Path):
    """Unknown keys, wrong types and broken rules, in one go."""
    result = train("model.activaton=tanh", "optim.lr=abc", "optim.momentum=1.5", "test_views=5", "trainer.max_epoch=3")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    for named in ("model.activaton", "optim.lr=abc", "optim.momentum=1.5", "test_views=5", "trainer.max_epoch "):
        assert sum(named in line for line in lines) == 1, named
    assert len(lines) == 5
    assert not list(tmp_path.iterdir())


def test_the_jobs_of_a_sweep_are_all_checked(train: Command, tmp_path: Path):
    result = train("-m", "optim.momentum=0.9,1.5,-1", "model.lrn_size=4,5")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 3, "each mistake once"
    assert not list(tmp_path.iterdir())


def _fields() -> list[tuple[str, str, str | None]]:
    """(class, field, the string below it) of every dataclass in schema.py, read from the source."""
    tree = ast.parse(Path(schema.__file__).read_text())
    found = []
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, below in zip(cls.body, [*cls.body[1:], ast.Pass()], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                text = (
                    below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
                )
                found.append((cls.name, field.target.id, text))
    return found


def test_every_key_is_documented_beside_its_field():
    groups = {"model", "data", "optim", "trainer", "logger", "report"}
    undocumented = [f"{c}.{f}" for c, f, text in _fields() if not text and not (c == "Config" and f in groups)]
    assert undocumented == []


def test_every_key_is_read_somewhere():
    read = set()
    for file in (ROOT / "alexnet_pl").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and not (file.name == "schema.py" and node.attr == "name"):
                read.add(node.attr)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.add(node.value)  # read from a run folder's plain dict
    dead = [f"{c}.{f}" for c, f, _ in _fields() if c != "Trainer" and f not in read]
    assert dead == []  # Trainer's keys all go to Lightning


def test_numbers_keep_their_types():
    plain = {
        "name": "x",
        "seed": 1,
        "train_error_window": 10,
        "train_eval_images": 0,
        "model": {"name": "convnet", "arch": "convnet", "num_classes": 10, "input_size": 32, "activation": "tanh"},
        "data": {"kind": "shapes", "name": "shapes", "num_classes": 10},
        "optim": {"lr": 1},
        "trainer": {"max_epochs": 1, "devices": 1, "limit_train_batches": 0.5},
        "logger": {"name": "csv"},
    }
    run = to_config(OmegaConf.create(plain))
    assert run.model.activation is Activation.tanh
    assert run.optim.lr == 1.0
    assert isinstance(run.optim.lr, float)
    assert as_dict(run)["model"]["activation"] == "tanh"
    with pytest.raises(ConfigError, match=r"optim\.lr has no value"):
        to_config(OmegaConf.create(plain | {"optim": {}}))


def test_lookup_names_what_it_knows():
    assert lookup("relu", {"relu": 0.1}) == 0.1
    assert lookup("tanh", {"relu": 0.1, "else": 0.2}) == 0.2
    with pytest.raises(ConfigError, match="sigmoid, only for relu, tanh"):
        lookup("sigmoid", {"relu": 1, "tanh": 2})
