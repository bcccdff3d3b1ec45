"""Checkpoints that W&B keeps, `wandb:ENTITY/PROJECT/NAME:ALIAS`: W&B's public interface is a stand-in here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import wandb

from alexnet_pl.config.schema import as_dict, from_dict
from alexnet_pl.data.datasets import SMALL_DATASETS
from alexnet_pl.errors import ConfigError, UserError
from alexnet_pl.evaluate.settings import Settings, find_members
from alexnet_pl.jobs.sweep import check_run
from alexnet_pl.model.build import build_net
from alexnet_pl.report.outputs import write_kernels
from alexnet_pl.runs import artifacts, mirror, trained, wandb_server
from alexnet_pl.runs.checkpoint import check_origin
from alexnet_pl.runs.pretrained import load_pretrained
from alexnet_pl.runs.run import Run, find_checkpoint
from tests.helpers.commands import environment
from tests.helpers.runs import NET, offline_run, run_config
from tests.helpers.wandb_server import Server

pytestmark = pytest.mark.slow

ADDRESS = "wandb:ada/alexnet_pl/train-seed_1:best"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the artifact that a run with logger.log_model=best makes; the net is not trained."""
    run = offline_run(tmp_path_factory.mktemp("kept") / "run", *NET, "logger=wandb")
    cfg = from_dict(run.config)
    net = build_net(cfg.model, cfg.data.input_size, cfg.seed)
    size, classes = cfg.data.input_size, list(SMALL_DATASETS["shapes"].classes)
    checkpoint = {
        "state_dict": {f"net.{name}": value for name, value in net.state_dict().items()},
        "config": as_dict(cfg),
        "input": {"mean": torch.zeros(size, size, 3), "classes": classes},
        "progress": {"images_seen": 100, "window": [], "epoch": [], "results": {}},
    }
    torch.save(checkpoint, run.last.with_name("best.ckpt"))
    (run.folder / "metrics.csv").write_text("step,images_seen,epoch,val/error\n2,100,1,0.5\n")
    logged: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wandb, "log_artifact", lambda artifact, aliases: logged.append((artifact, aliases)))
        mirror.keep_checkpoint(run, "best", run.done)
    ((artifact, aliases),) = logged
    assert aliases == ["latest", "best"]
    assert artifact.type == "model"
    entries = artifact.manifest.entries
    assert entries["checkpoints/best.ckpt"].local_path == str(run.last.with_name("best.ckpt")), "not copied"
    return {name: Path(entry.local_path).read_bytes() for name, entry in entries.items()}


class Shelf:
    """wandb.Api, and the one artifact that it knows."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.downloads, self.asked = files, 0, list[str]()
        self.name, self.size, self.fails = "train-seed_1:v3", 1000, False
        self.manifest = SimpleNamespace(entries=files)

    def artifact(self, name: str) -> Shelf:
        self.asked.append(name)
        if not name.startswith("ada/alexnet_pl/train-seed_1:"):
            raise wandb.errors.CommError("artifact membership\nnot found")
        return self

    def download(self, root: str, skip_cache: bool) -> None:
        self.downloads += 1
        for name, data in self.files.items():
            path = Path(root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            if self.fails:
                raise ConnectionResetError("Connection lost")


@pytest.fixture
def shelf(kept: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(kept)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wandb, "Api", lambda timeout: shelf)
    monkeypatch.setattr(wandb_server, "require", lambda purpose: None)
    artifacts.fetch.cache_clear()
    yield shelf
    artifacts.fetch.cache_clear()


def test_an_artifact_is_the_folder_of_a_run(shelf: Shelf):
    folder = Path("artifacts/ada/alexnet_pl/train-seed_1_v3")
    assert find_checkpoint(ADDRESS) == folder / "checkpoints" / "best.ckpt"
    assert [member.word for member in find_members([Path(ADDRESS)], Settings(weights=["best"]))] == [str(folder)]
    net = trained.load(ADDRESS)
    assert net.run == Run(folder)
    assert len(net.classes) == 10
    assert write_kernels(Path(ADDRESS)) == [folder / "kernels.png"]
    assert Run(folder).done == {"metrics": {"val/error": 0.5}, "seconds": 1.0}
    assert shelf.downloads == 1
    with pytest.raises(ConfigError, match=r"has no last.ckpt: --weights best takes the one"):
        find_members([Path(ADDRESS)], Settings())
    with pytest.raises(ConfigError, match=r"has no last.ckpt, but best.ckpt"):
        trained.load(folder, ["last"])
    (folder / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"best is neither a checkpoint nor the folder of a run that has one"):
        find_checkpoint(ADDRESS)


def test_a_run_starts_from_an_artifact(shelf: Shelf, tmp_path: Path):
    cfg = run_config(*NET)
    for key in ("ckpt_path", "pretrained"):
        setattr(cfg, key, ADDRESS)
        check_run(cfg, Run(tmp_path / "new"))
        setattr(cfg, key, "wandb:ada/alexnet_pl/other:best")
        with pytest.raises(
            UserError, match=r"W&B does not give wandb:ada/alexnet_pl/other:best \(artifact membership n"
        ):
            check_run(cfg, Run(tmp_path / "new"))
        setattr(cfg, key, None)
    check_origin(find_checkpoint(ADDRESS), cfg)
    cfg.pretrained = ADDRESS
    load_pretrained(build_net(cfg.model, cfg.data.input_size, 2), cfg)
    assert not (tmp_path / "new").exists()


def test_a_version_is_downloaded_once_whatever_it_is_called(shelf: Shelf):
    for name in ("best", "latest", "v3"):
        artifacts.fetch(f"wandb:ada/alexnet_pl/train-seed_1:{name}")
    artifacts.fetch("wandb:ada/alexnet_pl/train-seed_1")
    assert shelf.asked[-1].endswith(":latest")
    assert shelf.downloads == 1


def test_a_download_that_fails_leaves_nothing(shelf: Shelf):
    shelf.fails = True
    with pytest.raises(UserError, match=r"W&B does not give wandb:\S+ \(Connection lost\)"):
        artifacts.fetch(ADDRESS)
    assert list(Path("artifacts/ada/alexnet_pl").iterdir()) == []
    shelf.fails = False
    assert artifacts.fetch(ADDRESS).is_dir()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "no checkpoint"),
        (["config.yaml", "model.pt"], "no checkpoint"),
        (["a.ckpt", "checkpoints/b.ckpt"], r"2 checkpoints \(a.ckpt, checkpoints/b.ckpt\)"),
    ],
)
def test_an_artifact_without_one_checkpoint_is_refused_before_it_is_downloaded(
    shelf: Shelf, names: list[str], says: str
):
    shelf.manifest.entries = dict.fromkeys(names)
    with pytest.raises(ConfigError, match=f"{ADDRESS} holds {says}"):
        trained.load(ADDRESS)
    assert shelf.downloads == 0


def test_another_programs_artifact_serves_as_a_checkpoint(shelf: Shelf, kept: dict[str, bytes]):
    shelf.files = shelf.manifest.entries = {"model.ckpt": kept["checkpoints/best.ckpt"]}
    assert trained.load(ADDRESS).run is None
    with pytest.raises(ConfigError, match="holds no run"):
        find_members([Path(ADDRESS)], Settings())


WRONG = [
    "wandb:", "wandb:net", "wandb:alexnet_pl/net:best", "wandb:a/b/c/d:best", "wandb:a/b/c:d:e", "wandb:a b/c/d:best",
    "wandb:a/b/c:", "wandb:../../etc:best", "wandb://a/b/c:d", "wandb:a/../c:v0",
]  # fmt: skip


@pytest.mark.parametrize("address", WRONG)
def test_what_is_no_address_asks_no_server(shelf: Shelf, address: str):
    with pytest.raises(ConfigError, match="is not wandb:ENTITY/PROJECT/NAME:ALIAS"):
        artifacts.fetch(address)
    assert shelf.asked == []


@pytest.mark.parametrize(("key", "says"), [("", "needs a W&B key"), ("local-" + "0" * 40, "does not answer")])
def test_without_a_key_or_a_server_it_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str, says: str
):
    for name, value in {"WANDB_API_KEY": key, "WANDB_BASE_URL": "http://127.0.0.1:9", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=says) as refusal:
        trained.load(ADDRESS)
    assert len(refusal.value.sentences) == 1


def test_the_real_interface_says_what_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with Server() as server, mock.patch.dict(os.environ, environment(tmp_path) | server.environment, clear=True):
        wandb.teardown()  # it remembers the environment in which it was used first
        with pytest.raises(UserError, match=f"W&B does not give {ADDRESS} .*project 'alexnet_pl' not found"):
            artifacts.fetch(ADDRESS)
        wandb.teardown()
        assert server.unknown == set()
