"""The loggers: what W&B's own client sends of a run, and that nothing that befalls W&B stops a run.

The runs are few and shared, and those that wait for W&B to give up wait beside the others.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

from alexnet_pl import sync
from alexnet_pl.config.choices import Arch, LoggerName
from alexnet_pl.config.schema import Config, Data, Logger, Model, Optim, Trainer, as_dict
from alexnet_pl.data import datasets
from alexnet_pl.errors import Interrupted, NotFinite
from alexnet_pl.runs.metrics import read_rows
from alexnet_pl.runs.run import Run, find_runs
from alexnet_pl.training import loggers
from tests.helpers.commands import Command, environment
from tests.helpers.processes import Process, wait_until
from tests.helpers.runs import fit
from tests.helpers.wandb_server import KEY, Server, history_rows, own_config, without_empty

SMALL = (
    "model.width=0.5",
    "train_error_window=100",
    "train_eval_images=100",
    "trainer.limit_train_batches=12",
    "trainer.limit_val_batches=1",
)
TINY = (*SMALL, "trainer.max_epochs=2")
ONE_EPOCH = (*SMALL, "trainer.max_epochs=1")
ONLINE = "logger.mode=online"


def only_run(folder: Path, name: str = "train") -> Run:
    (run,) = find_runs(folder / "runs" / name)
    return run


def rows(folder: Path) -> int:
    """How many rows the folder's run has logged so far."""
    return sum(len(read_rows(file)) for file in folder.glob("runs/*/*/metrics.csv"))


def records(path: Path) -> Iterator[Any]:
    """The records of an offline .wandb file (LevelDB's log format), read with the client's protobuf classes only."""
    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:  # a block's last bytes hold no header
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        part = data[place + 7 : place + 7 + length]
        place += 7 + length
        record = part if kind in (1, 2) else record + part  # 1 whole, 2 first, 3 middle, 4 last
        if kind in (1, 4):
            yield Record.FromString(record)


# ------------------------------------------------------------------------------------------------ the runs


@dataclass
class Waiting:
    """Runs that wait for W&B; other runs go on meanwhile."""

    never: Process
    """its server never answers"""
    gone: Process
    """its server goes away in mid-run"""
    online: Process
    """its server stays; held in mid-run until the client has sent, which it does every 15 s"""
    server: Server
    folders: dict[str, Path]


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waiting]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("never", "gone", "online")}
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY}  # the discard port
    with Server() as server, ExitStack() as ends:

        def start(name: str, *args: str, **variables: str) -> Process:
            process = Process(folders[name], "alexnet_pl.train", *args, ONLINE, **variables)
            ends.callback(process.kill)  # W&B's process ends by itself when the one that started it has gone
            return process

        online = start("online", *TINY, **server.environment)
        wait_until(lambda: rows(folders["online"]) > 3)
        online.send_signal(signal.SIGSTOP)
        never = start("never", *ONE_EPOCH, **nobody)
        with Server() as leaving:
            gone = start("gone", *ONE_EPOCH, **leaving.environment)
            wait_until(lambda: rows(folders["gone"]) > 3)
        yield Waiting(never, gone, online, server, folders)


@dataclass
class Synced:
    """Runs that were offline, by activation, and the server that has them now."""

    runs: dict[str, Run]
    server: Server
    told: dict[str, sync.Outcome]


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synced]:
    """Two offline runs in one process, one after the other; the second is stopped and continued; then all is sent."""
    import wandb

    folder = tmp_path_factory.mktemp("home") / "synced"
    with mock.patch.dict(os.environ, environment(folder.parent), clear=True), pytest.MonkeyPatch.context() as patch:
        wandb.teardown()  # it remembers the environment in which it was used first
        own = ["logger=wandb", "name=synced", "logger.tags=[extra]", "trainer.max_epochs=2"]
        relu = fit(folder / "relu", [*own, "model.activation=relu"], patch)
        with pytest.raises(Interrupted):
            fit(folder / "tanh", [*own, "model.activation=tanh"], patch, stop_in=7)
        tanh = fit(folder / "tanh", [*own, "model.activation=tanh"], patch)
        wandb.teardown()  # what it has still to write is written
        with Server() as server, mock.patch.dict(os.environ, server.environment):
            told = {run.folder.name: said for run, said in sync.sync([folder], jobs=1)}
            yield Synced({"relu": relu, "tanh": tanh}, server, told)


# ------------------------------------------------------------------------------------------------ offline, then sync


@pytest.mark.slow
def test_runs_that_were_stopped_continued_and_synced_reach_the_server(synced: Synced):
    assert {name: said.word for name, said in synced.told.items()} == {"relu": "sent", "tanh": "sent"}
    assert {run.status for run in synced.runs.values()} == {"done"}
    assert set(synced.server.runs) == {run.identity["id"] for run in synced.runs.values()}
    assert len(synced.server.runs) == 2
    assert synced.server.unknown == set()


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_server_has_every_run_as_its_folder_has_it(synced: Synced, activation: str):
    run = synced.runs[activation]
    received = synced.server.runs[run.identity["id"]]
    told = {key: received.fields[key] for key in ("displayName", "groupName", "project", "jobType")}
    assert told == {
        "displayName": run.folder.name,
        "groupName": "synced",
        "project": "alexnet_pl",
        "jobType": "train",
    }
    assert received.fields["tags"] == ["synced", "shapes", "alexnet", "extra"]
    assert own_config(received) == without_empty(run.config)
    assert received.config["model"]["activation"] == activation
    assert received.exit_code == 0
    assert len(run.metrics) == 2 * (3 + 1), "a row per window and per epoch"
    assert history_rows(received.history) == run.metrics
    assert all("epoch" in row for row in received.history)
    assert received.summary["val/error"] == run.done["metrics"]["val/error"]


@pytest.mark.slow
def test_a_stopped_run_keeps_its_id_and_its_history_goes_on(synced: Synced):
    run = synced.runs["tanh"]
    files = sorted(run.folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2, "one folder of W&B's for each start"
    assert {file.name for file in files} == {f"run-{run.identity['id']}.wandb"}
    parts, codes = [], []
    for file in files:
        kept = list(records(file))
        lines = [{i.key or ".".join(i.nested_key): i.value_json for i in r.history.item} for r in kept]
        parts.append([float(line["images_seen"]) for line in lines if line])
        codes += [r.exit.exit_code for r in kept if r.WhichOneof("record_type") == "exit"]
        assert [r.run.run_id for r in kept if r.WhichOneof("record_type") == "run"] == [run.identity["id"]]
    assert all(parts)
    assert parts[0] + parts[1] == [row["images_seen"] for row in run.metrics]
    assert codes == [1, 0], "stopped, then done"


@pytest.mark.slow
def test_curves_are_drawn_over_epochs(synced: Synced):
    (file, *_) = synced.runs["relu"].folder.glob("wandb/offline-run-*/*.wandb")
    metrics = [r.metric for r in records(file) if r.WhichOneof("record_type") == "metric"]
    assert {m.glob_name: m.step_metric for m in metrics if m.glob_name} == {
        "train/*": "epoch",
        "train_eval/*": "epoch",
        "val/*": "epoch",
        "test/*": "epoch",
        "target/*": "epoch",
    }
    defined = synced.server.runs[synced.runs["relu"].identity["id"]].config["_wandb"]["m"]
    names = [entry.get("1") for entry in defined]  # 1: name, 2: glob, 5: index of the step metric, from 1
    axis = {entry["2"]: names[entry["5"] - 1] for entry in defined if "2" in entry}
    assert axis == dict.fromkeys(("train/*", "train_eval/*", "val/*", "test/*", "target/*"), "epoch")


@pytest.mark.slow
def test_an_offline_run_keeps_its_checkpoint_for_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The artifact is the folder of a run with that one checkpoint, which is not copied."""
    import wandb

    with mock.patch.dict(os.environ, environment(tmp_path), clear=True):
        wandb.teardown()
        kept = ["logger=wandb", "logger.log_model=best", "name=kept", "trainer.max_epochs=1"]
        run = fit(tmp_path / "run", kept, monkeypatch)
        wandb.teardown()
    (file,) = sync.wandb_files(run)
    (logged,) = (r.artifact for r in records(file) if r.WhichOneof("record_type") == "artifact")
    assert (logged.name, logged.type, set(logged.aliases)) == ("kept-run", "model", {"latest", "best"})
    entries = {entry.path: Path(entry.local_path) for entry in logged.manifest.contents}
    assert set(entries) == {"config.yaml", "run.json", "metrics.csv", "done.json", "checkpoints/best.ckpt"}
    assert entries["checkpoints/best.ckpt"] == run.last.with_name("best.ckpt")
    assert json.loads(entries["done.json"].read_text())["metrics"] == run.done["metrics"]
    assert Run(tmp_path / "run").config["logger"]["log_model"] == "best"


# ------------------------------------------------------------------------------------------------ online


@pytest.mark.slow
def test_an_online_run_arrives_while_it_trains(waiting: Waiting):
    run, server, process = only_run(waiting.folders["online"]), waiting.server, waiting.online
    assert process.returncode is None
    asked = time.monotonic()

    def has_arrived() -> bool:
        """What was logged may still be inside the stopped process: now and then it gets a moment to send it."""
        nonlocal asked
        if time.monotonic() > asked + 5:
            written = len(run.metrics)
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: len(run.metrics) > written)
            process.send_signal(signal.SIGSTOP)
            asked = time.monotonic()
        return run.identity["id"] in server.runs and bool(server.runs[run.identity["id"]].history)

    wait_until(has_arrived)
    (received,) = server.runs.values()
    assert received.exit_code is None
    assert history_rows(received.history) == run.metrics[: len(received.history)]
    before = len(received.history)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=150)
    assert process.returncode == 0, errors
    assert 0 < before < len(run.metrics) == 2 * (12 + 1)
    assert history_rows(received.history) == run.metrics
    assert own_config(received) == without_empty(run.config)
    assert received.exit_code == 0
    assert run.done
    assert server.unknown == set()


@pytest.mark.slow
def test_a_failed_run_is_failed_on_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import wandb

    with Server() as server, mock.patch.dict(os.environ, environment(tmp_path) | server.environment, clear=True):
        wandb.teardown()  # it remembers the environment in which it was used first
        with pytest.raises(NotFinite, match="the loss became"):
            fit(tmp_path / "run", ["logger=wandb", ONLINE, "trainer.max_epochs=2", "optim.lr=1e12"], monkeypatch)
        wandb.teardown()
    run = Run(tmp_path / "run")
    received = server.runs[run.identity["id"]]
    assert received.exit_code == 1
    assert history_rows(received.history) == run.metrics


def test_online_without_a_key_is_refused_at_once(train: Command, tmp_path: Path):
    result = train(*TINY, ONLINE)
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("error: logger.mode=online needs a W&B key and none was found")
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------------------------------------ without W&B


@pytest.mark.parametrize("name", ["csv", pytest.param("none", marks=pytest.mark.slow)])
def test_without_wandb_nothing_of_it_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str):
    from alexnet_pl.training.fit import fit

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "SHAPES_SPLITS", {"train": (1000, 1), "val": (100, 2)})
    cfg = Config(name="train", seed=1, train_error_window=100, train_eval_images=100)
    cfg.model = Model(name="convnet", arch=Arch.convnet, num_classes=10, input_size=32)
    cfg.data = Data(kind="shapes", name="shapes", num_classes=10)
    cfg.optim = Optim(lr=0.002)
    cfg.trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, limit_train_batches=2, limit_val_batches=1)
    cfg.logger = Logger(name=LoggerName[name])
    run = Run(tmp_path / "run")
    run.start(as_dict(cfg), [])
    fit(cfg, run)
    assert run.done
    assert len(run.metrics) == (2 + 1 if name == "csv" else 0)
    files = {path.name for path in run.folder.iterdir()}
    assert files - {"metrics.csv"} == {".lock", "checkpoints", "config.yaml", "done.json", "run.json", "train.log"}
    assert ("metrics.csv" in files) is (name == "csv")
    assert list(tmp_path.iterdir()) == [run.folder]


class Dead:
    """A W&B run whose process has died."""

    logged = 0

    def log(self, row: dict[str, float]) -> None:
        self.logged += 1
        raise ConnectionResetError("Connection\nlost")

    def finish(self, exit_code: int) -> None:
        raise ConnectionResetError("Connection lost")


def test_when_the_process_of_wandb_dies_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import wandb

    dead = Dead()
    mirror = loggers.SafeWandbLogger(dead, target=None)  # type: ignore[arg-type]
    for step in range(3):
        mirror.log_metrics({"train/error": 0.5}, step)
    assert dead.logged == 1
    said = "W&B stopped (Connection lost); the run goes on, and metrics.csv has everything\n"
    assert capsys.readouterr().err == said
    monkeypatch.setattr(wandb, "run", dead)
    monkeypatch.setattr(wandb, "finish", dead.finish)
    loggers.finish_wandb(exit_code=0)
    assert "W&B did not finish (Connection lost)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "says"), [("never", "W&B did not start ("), ("gone", "W&B did not finish (Timed out finishing run.)")]
)
def test_a_server_that_does_not_answer_does_not_stop_a_run(waiting: Waiting, case: str, says: str):
    process: Process = getattr(waiting, case)
    _, errors = process.communicate(timeout=150)
    assert process.returncode == 0, errors
    assert sum(says in line for line in errors.splitlines()) == 1, errors
    assert "Traceback" not in errors
    run = only_run(waiting.folders[case])
    assert run.done
    if case == "never":  # it went on offline, and waits for `sync`
        (file,) = sync.wandb_files(run)
        rows = [r for r in records(file) if r.WhichOneof("record_type") == "history"]
        assert len(rows) == len(run.metrics)
    assert len(run.metrics) == 12 + 1
    assert json.loads((run.folder / "done.json").read_text())["metrics"]["images_seen"] == 12 * 128
    begun, ended = (run.folder / "run.json").stat().st_mtime, (run.folder / "done.json").stat().st_mtime
    assert ended - begun < 90, "it waited for W&B too long"
