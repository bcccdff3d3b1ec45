"""One's own YAML, by --config-dir or beside ours: what is wrong is told with file, line and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from alexnet_pl import ROOT
from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs import compose
from alexnet_pl.jobs.mistakes import FOLDERS, find_mistakes, translated
from tests.helpers.commands import Command
from tests.helpers.fuzz import STRANGE

TOP = b"# @package _global_\n"
FILES = [
    ("tab", TOP + b"data:\n\tbatch_size: 8\n", 3, "indent with spaces"),
    ("latin", TOP + b"name: \xdcbung\n", 2, "not UTF-8"),
    ("twice", TOP + b"name: a\nseed: 1\nname: b\n", 4, "duplicate key name"),
    ("mark", b"\xef\xbb\xbf" + TOP + b"name: a\n", 1, "byte order mark"),
    ("off", TOP + b"data:\n  color_noise: off\n", 3, "write 'off' in quotes"),
    ("nowhere", b"name: a\n", 1, "# @package _global_"),
    ("elsewhere", b"# @package model\nname: a\n", 1, "# @package _global_"),
    ("type", TOP + b"# a comment\ndata:\n  size: 32\n  batch_size: many\n", 5, "data.batch_size=many is not of type"),
    ("key", TOP + b"data:\n  batchsize: 3\n", 3, "did you mean data.batch_size?"),
    ("trainer", TOP + b"trainer:\n  max_epoch: 3\n", 3, "did you mean trainer.max_epochs?"),
    ("lightning", TOP + b"trainer: {detect_anomaly: maybe}\n", 2, "takes bool"),
    ("group", TOP + b"data: 5\n", 2, "data is a group of keys"),
    ("list", TOP + b"- 1\n", 1, "no KEY: VALUE"),
    ("empty", b"", 1, "# @package _global_"),
    ("number alone", TOP + b"5\n", 1, "no KEY: VALUE"),
    ("no hydra", TOP + b"hydra: null\n", 2, "hydra is a group of keys"),
    ("text", b"text\n", 1, "# @package _global_"),
    ("defaults", TOP + b"defaults: 5\n", 2, "defaults must be a list"),
    ("open", TOP + b"data: [1\n", 3, "expected ',' or ']'"),
    ("python", TOP + b"name: !!python/object/apply:os.system [ls]\n", 2, "could not determine a constructor"),
    ("unhashable", TOP + b"? [a, b]\n: 2\n", 2, "unhashable key"),
    ("number", TOP + b"1: 2\n", 2, "1 is not a key"),
    ("alone", TOP + b"3\n", 1, "no KEY: VALUE"),
    ("layer", TOP + b"model:\n  widths:\n    conv1: wide\n", 4, "model.widths.conv1=wide"),
]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    return tmp_path / "own"


@pytest.mark.parametrize(("name", "contents", "line", "reason"), FILES, ids=[file[0] for file in FILES])
def test_a_file_is_told_with_line_and_reason(own: Path, name: str, contents: bytes, line: int, reason: str):
    file = own / "experiment" / f"{name}.yaml"
    file.write_bytes(contents)
    ((sentence,),) = find_mistakes([f"experiment={name}"], folders=[*FOLDERS, own]).values()
    assert sentence.startswith(f"{file}, line {line}: ")
    assert reason in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (TOP + b"a: &a [*a]\n", "holds itself"),
        (TOP + b"name: \x01\n", "special characters"),
        (b"\x00", "special"),
        (TOP + b"name: !!set {a}\n", "'set' is not a supported"),
        (TOP + b"name: ${seed\n", "no viable alternative"),
        (TOP + b"null: 2\n", "Incompatible key type"),
    ],
    ids=["anchor", "control", "zero", "set", "reference", "key"],
)
def test_what_has_no_line_names_the_file(own: Path, contents: bytes, reason: str):
    file = own / "experiment" / "mine.yaml"
    file.write_bytes(contents)
    ((sentence,),) = find_mistakes(["experiment=mine"], folders=[*FOLDERS, own]).values()
    assert str(file) in sentence
    assert reason in sentence


def test_a_huge_file_is_not_read(own: Path):
    file = own / "experiment" / "mine.yaml"
    STRANGE["huge"](file)
    ((sentence,),) = find_mistakes(["experiment=mine"], folders=[*FOLDERS, own]).values()
    assert sentence == f"{file}: has 1,099,511,627,776 bytes, and at most 16,777,216 are read"


@pytest.mark.slow
def test_no_file_of_ours_is_refused():
    words = [f"{file.parent.name}={file.stem}" for file in (ROOT / "conf").glob("*/*.yaml")]
    words += [f"sweep={file.stem}" for file in (ROOT / "sweeps").glob("*.yaml")]
    assert len(words) > 60
    assert find_mistakes(words) == {}


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--config-dir", "own"], ["--config-dir=own"], ["-cd", "own"], ["-m", "-cd", "own"]])
def test_the_command_prints_it(train: Command, tmp_path: Path, own: Path, flags: list[str]):
    (own / "experiment" / "mine.yaml").write_bytes(TOP + b"data:\n\tbatch_size: 8\n")
    result = train(*flags, "experiment=mine", "optim.lr=abc")
    assert result.returncode == 1
    yaml, lr = result.stderr.splitlines()
    assert yaml.startswith(f"error: {own}/experiment/mine.yaml, line 3: ")
    assert lr.startswith("error: optim.lr=abc ")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"defaults:\n  - mine\n", "includes itself"),
        (b"defaults:\n  - override /model: nope\n", "model=nope is not a choice"),
        (b"defaults:\n  - model: alexnet\n", "write override /GROUP: CHOICE"),
        (b"defaults:\n  - other\n", "'experiment/other'"),
        (b"seed: ${sed}\n", "Interpolation key 'sed' not found"),
        (b"optim:\n  lr: .nan\n", "optim.lr=nan must be a finite number"),
    ],
)
def test_what_hydra_finds_is_a_sentence_too(train: Command, tmp_path: Path, own: Path, contents: bytes, said: str):
    (own / "experiment" / "mine.yaml").write_bytes(TOP + contents)
    result = train("--config-dir=own", "experiment=mine")
    assert result.returncode == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.slow
def test_a_right_file_is_taken(train: Command, own: Path):
    (own / "experiment" / "mine.yaml").write_bytes(TOP + b"optim:\n  lr: 0.5\n")
    result = train("--config-dir=own", "experiment=mine", "--cfg", "job")
    assert result.returncode == 0, result.stderr
    assert "lr: 0.5" in result.stdout


@pytest.mark.parametrize("words", [["--config-name=nope"], ["--config-dir=nope"], ["--config-path=nope"]], ids=str)
def test_a_folder_that_is_none(train: Command, tmp_path: Path, words: list[str]):
    result = train(*words)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_sweep_of_ones_own_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_bytes(TOP + b"data:\n\tbatch_size: 8\n")
    monkeypatch.setattr(compose, "ROOT", tmp_path)
    with pytest.raises(ConfigError, match=r"mine.yaml, line 3: .*indent with spaces"), translated():
        compose.register.__wrapped__()
