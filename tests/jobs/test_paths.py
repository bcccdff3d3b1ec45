"""Words of the command line with paths of any name, and flags of Hydra's that go with nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs.mistakes import quote_text
from alexnet_pl.train import refuse_mistakes

PATHS = [
    "/x/Übung", "a=b", "a(b", "a)b", "a#b", "a'b", 'a"b', "a&b", "~a", "a~", "a b", "a,b", "a\\b", "a\\'b\\", "a{b",
    "a]b", "a:b", "a@b", "5", "-1", "true", "1,2", "x/model.activation=tanh,seed=2", "a  b ", "$a", "%a", "'a", "a;b",
]  # fmt: skip
PATH_KEYS = ["data.root", "ckpt_path", "pretrained", "name", "hydra.run.dir", "hydra.sweep.dir", "+data.root"]


@pytest.mark.parametrize("path", PATHS)
def test_any_path_is_taken(path: str):
    for key in PATH_KEYS:
        (override,) = OverridesParser.create().parse_overrides([quote_text(f"{key}={path}")])
        assert str(override.value()).lower() == path.lower(), key


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resolve"], "--resolve works only together with --cfg"),
        (["--experimental-rerun", "x"], "--experimental-rerun would bypass"),
        (["--experimental-rerun=x"], "--experimental-rerun would bypass"),
        (["hydra.run.dir="], "hydra.run.dir= is empty"),
        (["-m", "hydra.sweep.dir="], "hydra.sweep.dir= is empty"),
        (["-sc", "bash"], "-sc takes install=SHELL"),
        (["--shell-completion"], "-sc takes install=SHELL"),
        (["hydra.job.env_copy=[NO_SUCH_VARIABLE]"], "hydra.job.env_copy names NO_SUCH_VARIABLE, which is not set"),
    ],
    ids=str,
)
def test_flags_of_hydras_that_go_with_nothing_are_a_sentence(words: list[str], said: str):
    with pytest.raises(ConfigError) as error:
        refuse_mistakes(words)
    (sentence,) = error.value.sentences
    assert sentence.startswith(said)


@pytest.mark.parametrize("word", ["ckpt_path=null", "ckpt_path='a b'", "data.root=${oc.env:HOME}/x", "model.lrn=[a b]"])
def test_what_hydra_understands_stays(word: str):
    assert quote_text(word) == word


def test_a_sweep_over_paths_stays_one(tmp_path: Path):
    assert quote_text("ckpt_path=a,b", several=True) == "ckpt_path=a,b"
    (tmp_path / "a,b").mkdir()
    assert quote_text(f"ckpt_path={tmp_path}/a,b", several=True) == f"ckpt_path='{tmp_path}/a,b'"


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert quote_text("hydra.run.dir=~/x") == "hydra.run.dir='/home/me/x'"
