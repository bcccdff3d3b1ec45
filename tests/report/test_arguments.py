"""Report's own arguments: what is wrong with one is told before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alexnet_pl.report import cli
from tests.helpers.fuzz import untouched
from tests.report.test_ablation import plain_run

WRONG = {
    ("sweep", "--allow", "optim.learning_rate"): "--allow optim.learning_rate is no key of these runs",
    ("sweep", "--allow", ""): "--allow  is no key of these runs",
    ("sweep", "--allow", "op"): "--allow op is no key of these runs",
    ("sweep", "--wandb", ""): "--wandb  is not ENTITY/PROJECT",
    ("sweep", "--wandb", "ada"): "--wandb ada is not ENTITY/PROJECT",
    ("sweep", "--wandb", "ada/nets/more"): "--wandb ada/nets/more is not ENTITY/PROJECT",
    ("sweep", "--wandb", "/nets", "--wandb-dry-run"): "--wandb /nets is not ENTITY/PROJECT",
    ("sweep", "--wandb", "ada/" + "n" * 129): "is not ENTITY/PROJECT",
    ("--claims", "rusn"): "--claims rusn does not exist: give the folder with your sweeps (runs)",
}


@pytest.mark.parametrize(("words", "said"), WRONG.items(), ids=[" ".join(words)[:40] for words in WRONG])
def test_a_mistake_is_told_before_the_work(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", *words])
    plain_run(tmp_path / "sweep", seed=1)
    with untouched(tmp_path), pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("error: ")
    assert said in sentence
