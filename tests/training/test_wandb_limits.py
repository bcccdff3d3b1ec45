"""What W&B does not take: long names are cut, mistakes are refused before any work, a lost server costs nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from alexnet_pl.config.choices import LoggerName, LogModel, WandbMode
from alexnet_pl.config.schema import Logger, as_dict
from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs import checks
from alexnet_pl.runs.naming import artifact_name
from alexnet_pl.runs.run import Run
from alexnet_pl.training import loggers
from tests.helpers.bad_servers import bad_server
from tests.helpers.runs import run_config
from tests.helpers.wandb_server import KEY

pytestmark = pytest.mark.slow

NAMES = {"name": 300 * "n", "data.name": 300 * "d", "model.name": 300 * "m"}


def test_long_names_do_not_cost_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What W&B takes: 128 characters of a name or a group, 64 of a tag; two long names stay two."""
    import wandb

    began: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **given: began.append(given) or mock.Mock())
    monkeypatch.chdir(tmp_path)
    cfg = run_config("logger=wandb", "scale=smoke", *(f"{key}={value}" for key, value in NAMES.items()))
    for seed in "12":
        run = Run(tmp_path / f"{'o' * 150},seed={seed}")
        run.start(as_dict(cfg), [])
        assert len(loggers.build_loggers(cfg, run)) == 2
        run.release()
    assert {len(given["name"]) for given in began} == {128}
    assert began[0]["name"] != began[1]["name"]
    for given in began:
        assert len(given["group"]) == 128
        assert {len(tag) for tag in given["tags"]} == {64}
        assert len(set(given["tags"])) == 3
        settings = {key: given[key] for key in ("project", "entity", "mode")}
        wandb.Settings(run_tags=given["tags"], run_name=given["name"], run_group=given["group"], **settings)
        wandb.Artifact(artifact_name(cfg.name, given["name"]), type="model")


@pytest.mark.parametrize("name", ["a", 200 * "b", "ü, =[1]/:%", "model.lrn=_conv1_,seed=2", "日本"])
def test_an_artifact_has_a_name_that_wandb_takes(name: str):
    import wandb

    assert artifact_name("lrn_small", name) != artifact_name("lrn_small", name + "2")
    wandb.Artifact(artifact_name("lrn_small", name), type="model")


@pytest.mark.parametrize(
    ("logger", "says"),
    [
        ({"project": 129 * "p"}, "logger.project=p+ must have 1 to 128 characters"),
        ({"project": ""}, "logger.project= must have 1 to 128"),
        *(({"project": f"a{c}b"}, r"logger.project=.* none of them among /\\#\?%:") for c in "/\\#?%:\n\r"),
        ({"entity": "ada/alexnet_pl"}, "logger.entity=ada/alexnet_pl must have"),
        ({"entity": ""}, "logger.entity= must have"),
        ({"entity": 129 * "e"}, "logger.entity=e+ must have"),
        ({"tags": ["ok", 65 * "t"]}, "logger.tags has 't+' of 65 characters"),
        ({"tags": [""]}, "logger.tags has '' of 0 characters"),
        ({"name": LoggerName.csv, "log_model": LogModel.last}, "logger.log_model=last .* needs logger=wandb"),
        ({"mode": WandbMode.disabled, "log_model": LogModel.last}, "logger.log_model=last .* needs logger=wandb"),
    ],
)
def test_what_wandb_would_not_take_is_refused(logger: dict[str, Any], says: str):
    cfg = run_config("logger=csv")
    checks.check(replace(cfg, logger=Logger(LoggerName.wandb)))
    with pytest.raises(ConfigError, match=says):
        checks.check(replace(cfg, logger=Logger(**{"name": LoggerName.wandb} | logger)), to_run=False)


@pytest.mark.parametrize(
    ("override", "says"),
    [("trainer.enable_checkpointing=false", "nothing to keep"), ("trainer.limit_val_batches=0", "needs a validation")],
)
def test_a_checkpoint_that_is_not_written_is_not_promised(override: str, says: str):
    with pytest.raises(ConfigError, match=f"logger.log_model=best .*{says}"):
        run_config("logger=wandb", "logger.log_model=best", override)


@pytest.mark.parametrize("kind", ["fails", "fails later"])
def test_an_online_run_goes_on_offline_where_its_server_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
):
    import wandb

    modes: list[str] = []

    def init(mode: str, **given: Any) -> mock.Mock:
        modes.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("Run initialization\nhas timed out")
        return mock.Mock()

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", lambda: modes.append("let go"))  # or the run's id would be in use
    cfg, run = run_config("logger=wandb"), Run(tmp_path / "run")
    cfg.logger.mode = WandbMode.online
    run.start(as_dict(cfg), [])
    with bad_server(kind) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        built = loggers.build_loggers(cfg, run)
    run.release()
    assert len(built) == 2
    assert modes == (["offline"] if kind == "fails" else ["online", "let go", "offline"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("W&B did not start (")
    assert line.endswith(f"; the run goes on offline: python -m alexnet_pl.sync {run.folder} sends it later")
