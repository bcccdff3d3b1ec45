"""The command from an installed wheel, the help, the shell completion."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from functools import partial, reduce
from pathlib import Path

import pytest
import yaml

from alexnet_pl import ROOT, compose
from alexnet_pl.config import help, keys
from alexnet_pl.config.schema import as_dict
from tests.helpers.commands import environment

slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def build(target: str, source: Path, folder: Path) -> Path:
    """Build a wheel or an sdist of the checkout at `source` into an empty folder; return the file."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (file,) = folder.iterdir()
    return file


def call(cwd: Path, *args: str, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a folder, with the package unpacked at `path` in front of the installed one."""
    env = environment(cwd) | ({"PYTHONPATH": str(path)} if path else {}) | variables
    command = [sys.executable, "-m", "alexnet_pl.train", *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_wheel_trains_from_any_folder_as_the_checkout_does(wheel: Path, tmp_path: Path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for args in (("--cfg", "job"), ("sweep=figure1", "--cfg", "job"), ("--help",)):
        checkout, installed = call(ROOT, *args), call(elsewhere, *args, path=site)
        assert installed.returncode == 0, installed.stderr
        assert installed.stdout == checkout.stdout
    tiny = ("sweep=figure1", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1")
    run = call(elsewhere, *tiny, "experiment=figure1", "model.activation=tanh", "logger=csv", path=site)
    assert run.returncode == 0, run.stderr
    (done,) = (elsewhere / "runs" / "figure1").glob("*/done.json")
    assert (done.parent / "run.json").read_text().count('"git": {}') == 1, "an installed wheel has no commit"


def test_the_wheel_carries_what_the_command_reads(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "alexnet_pl/report/paper.yaml" in names
    for folder in ("conf", "sweeps"):
        for file in (ROOT / folder).rglob("*.yaml"):
            assert f"alexnet_pl/{file.relative_to(ROOT)}" in names


@pytest.mark.slow
def test_twine_takes_wheel_and_sdist_and_the_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path):
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    command = [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count("PASSED") == 2
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    top = {path.name for path in unpacked.iterdir()}
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "Makefile", "README.md", "bench", "constraints.txt"} <= top
    assert {"docs", "tests"} <= top
    assert not top & {".venv", "data", "runs"}
    again = build("wheel", unpacked, tmp_path / "again")
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


def test_citation_and_changelog_name_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {key: citation[key] for key in ("version", "license")} == {
        key: project[key] for key in ("version", "license")
    }
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Krizhevsky", "Sutskever", "Hinton"]
    assert f"\n## {project['version']} " in (ROOT / "CHANGELOG.md").read_text()


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_help_shows_the_groups_and_the_keys_that_people_set(tmp_path: Path):
    result = call(tmp_path, "--help")
    assert result.returncode == 0, result.stderr
    text = one_line(result.stdout)
    for group in (folder for folder in (ROOT / "conf").iterdir() if folder.is_dir()):
        assert f"{', '.join(sorted(file.stem for file in group.glob('*.yaml')))} " in text
    assert ", ".join(sorted(file.stem for file in (ROOT / "sweeps").glob("*.yaml"))) in text
    for shown in ("model=convnet ", "optim.lr=0.002 ", "trainer.max_epochs=10 ", "(relu|tanh|sigmoid|abs_tanh)"):
        assert shown in text
    assert 15 <= len(help.COMMON) <= 25
    for key in help.COMMON:
        assert f" {key}={keys.format_value(help.default_values()[key])} " in text
    assert "--help-all" in text
    assert max(map(len, result.stdout.splitlines())) <= help.WIDTH


def test_all_keys_are_shown_with_type_default_and_meaning(tmp_path: Path):
    text = call(tmp_path, "--help-all").stdout
    for key, meaning in keys.key_docs().items():
        assert (
            f"\n{key}={keys.format_value(help.default_values()[key])}  ({keys.type_words(keys.key_types()[key])})"
            in text
        )
        assert one_line(meaning) in one_line(text)
    assert set(keys.key_docs()) == set(keys.key_types())


def test_the_defaults_that_help_shows_are_those_of_a_run():
    composed = as_dict(compose())
    for key, value in help.default_values().items():
        assert value == reduce(dict.__getitem__, key.split("."), composed), key


@pytest.mark.parametrize(
    ("value", "typed"),
    [(None, "null"), (False, "false"), (0.5, "0.5"), (["a", 1], "[a,1]"), ({"conv1": "x"}, "{conv1: x}"), ({}, "{}")],
)
def test_a_value_is_shown_as_one_types_it(value: object, typed: str):
    assert keys.format_value(value) == typed
    assert yaml.safe_load(typed) == value


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("model.act", {"model.activation="}),
        slow("model.activation=", {"model.activation=relu"}),
        slow("sweep=", {f"sweep={file.stem}" for file in (ROOT / "sweeps").glob("*.yaml")}),
        ("data=", {"data=cifar10", "data=imagenet", "data=packed", "data=shapes", "data=tiny_imagenet"}),
        slow("data=packed opt", {"optim=", "optim."}),
        slow("-m trainer=t", {"trainer=towers", "trainer=towers_ddp"}),
    ],
)
def test_completion(tmp_path: Path, line: str, offered: set[str]):
    words = f"alexnet-train {line}"
    result = call(tmp_path, "-sc", "query=bash", COMP_LINE=words, COMP_POINT=str(len(words)))
    assert set(result.stdout.split()) == offered


def test_the_printed_configuration_is_short_and_complete(tmp_path: Path):
    text = call(tmp_path, "--cfg", "job").stdout
    assert "activation: relu" in text
    assert "Activation." not in text
    assert text.count("\n") <= 105
    assert not list(tmp_path.iterdir())


def test_python_m_and_the_script_are_one():
    from importlib.metadata import entry_points

    (script,) = [e for e in entry_points(group="console_scripts") if e.name == "alexnet-train"]
    assert script.value == "alexnet_pl.train:main"
    assert os.access(Path(sys.executable).with_name("alexnet-train"), os.X_OK)
