"""Sync, and what is added to a run when it has ended: W&B's own client, and a stand-in for its server.

The runs train nothing: they log what a run would, through the loggers of a run.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from alexnet_pl import files, sync
from alexnet_pl.config.schema import as_dict
from alexnet_pl.runs.run import Run
from alexnet_pl.training import loggers
from tests.helpers.commands import environment
from tests.helpers.reports import settings
from tests.helpers.runs import run_config
from tests.helpers.wandb_server import Server, history_rows, own_config, without_empty

pytestmark = pytest.mark.slow


def session(run: Run, epochs: range, *overrides: str) -> None:
    """One start of a run that logs these epochs; it is done with the fourth."""
    cfg = run_config("name=some", "report.target=0.25", *overrides)
    run.start(as_dict(cfg), [])
    built = loggers.build_loggers(cfg, run)
    for epoch in epochs:
        for one in built:
            one.log_metrics({"train/error": 1 / (1 + epoch), "images_seen": 100.0 * epoch, "epoch": epoch}, epoch)
    done = epochs.stop == 4
    loggers.finish_wandb(exit_code=0 if done else 1)
    if done:
        run.finish({"train/error": 0.25}, 1.0)
    assert run.lock
    run.lock.close()
    run.lock = None


def command(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, list[str], str]:
    """Exit code of the command in this process, the lines it printed but for those on its progress, and its error."""
    code = 0
    with mock.patch.object(sys, "argv", ["alexnet-sync", *map(str, args)]):
        try:
            sync.main()
        except SystemExit as end:
            code = end.code
    out, err = capsys.readouterr()
    return code, [line for line in out.splitlines() if not line.startswith("  sync: ")], err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs that were continued, cut short, spoiled, and without W&B; the environment knows of no account."""
    import wandb

    out = tmp_path_factory.mktemp("sync")
    with mock.patch.dict(os.environ, environment(out), clear=True):
        wandb.teardown()  # it remembers the environment in which it was used first
        continued = Run(out / "some" / "continued")
        session(continued, range(2))
        time.sleep(1.1)  # W&B names its folders by the second
        session(continued, range(2, 4))
        for name in ("cut", "spoiled"):
            session(Run(out / "some" / name), range(4))
        session(Run(out / "some" / "csv"), range(4), "logger=csv")
        wandb.teardown()  # what it has still to write is written
        (cut,) = sync.wandb_files(Run(out / "some" / "cut"))
        cut.write_bytes(cut.read_bytes()[:-20])
        (spoiled,) = sync.wandb_files(Run(out / "some" / "spoiled"))
        spoiled.write_bytes(b"this is something else")
        yield out / "some"
        wandb.teardown()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with Server() as server, mock.patch.dict(os.environ, server.environment):
        yield server


def test_every_run_that_can_be_is_sent_and_none_twice(folder: Path, server: Server, capsys: pytest.CaptureFixture[str]):
    code, lines, err = command(capsys, folder, folder / "continued", "--jobs", "2")  # a run named twice is one run
    assert code == 1
    assert err == "error: some runs were not sent: the same command tries those again and skips the others\n"
    said = dict(re.fullmatch(r"(.{11})  (.*)", line).groups()[::-1] for line in lines[:-1])  # type: ignore[union-attr]
    told = {name.partition(":")[0]: (word.strip(), name.partition(": ")[2]) for name, word in said.items()}
    assert {name: word for name, (word, _) in told.items()} == {
        "continued": "sent", "cut": "sent", "spoiled": "failed", "csv": "none",
    }  # fmt: skip
    assert lines[-1].startswith("2 of 4 runs sent (")
    assert "1 failed" in lines[-1]
    assert "invalid W&B identifier" in told["spoiled"][1]
    assert "in the middle of a record" in told["cut"][1]
    continued, cut = Run(folder / "continued"), Run(folder / "cut")
    assert told["continued"][1].endswith(f"/runs/{continued.identity['id']}")
    assert set(server.runs) == {continued.identity["id"], cut.identity["id"]}
    for run in (continued, cut):
        received = server.runs[run.identity["id"]]
        assert history_rows(received.history) == [row | {"target/error": 0.25} for row in run.metrics]
        assert [row["epoch"] for row in received.history] == [0, 1, 2, 3]
        assert own_config(received) == without_empty(run.config)
    assert server.runs[continued.identity["id"]].exit_code == 0, "that of the last start"
    assert server.unknown == set()

    before = {name: len(run.history) for name, run in server.runs.items()}
    (spoiled,) = sync.wandb_files(Run(folder / "spoiled"))
    spoiled.unlink()
    code, lines, _ = command(capsys, folder)
    assert code == 0
    assert lines[-1].startswith("0 of 4 runs sent (2 sent before")
    assert {name: len(run.history) for name, run in server.runs.items()} == before


def test_what_is_added_later_goes_to_the_same_run(folder: Path, server: Server, capsys: pytest.CaptureFixture[str]):
    run, image = Run(folder / "continued"), folder / "continued" / "kernels.png"
    Image.new("RGB", (4, 4), (200, 30, 30)).save(image)
    time.sleep(1.1)
    assert loggers.attach_results(run, {"evaluate/top1_error": 0.125}, {"kernels": image})
    assert len(sync.wandb_files(run)) == 3
    code, lines, _ = command(capsys, folder)
    assert code == 0
    assert lines[-1].startswith("1 of 4 runs sent")
    received = server.runs[run.identity["id"]]
    assert [row.get("epoch") for row in received.history] == [0, 1, 2, 3, None]
    assert received.history[-1]["kernels"]["_type"] == "image-file"
    (name,) = (name for name in server.uploads if name.startswith(f"{run.identity['id']}/media/images/kernels_"))
    assert server.uploads[name] == image.read_bytes()
    assert received.summary["evaluate/top1_error"] == 0.125
    assert own_config(received) == without_empty(run.config)
    assert received.exit_code == 0
    assert server.unknown == set()


def test_a_run_without_wandb_is_left_alone(folder: Path):
    run = Run(folder / "csv")
    before = {path.name for path in run.folder.iterdir()}
    assert not loggers.attach_results(run, {"evaluate/top1_error": 0.125}, {})
    assert {path.name for path in run.folder.iterdir()} == before


def test_where_wandb_fails_the_command_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import wandb

    def fails(**kwargs: object) -> None:
        raise ConnectionResetError("Connection\nlost")

    monkeypatch.setattr(wandb, "init", fails)
    assert not loggers.attach_results(Run(folder / "cut"), {"evaluate/top1_error": 0.125}, {})
    said = "W&B did not take the results (Connection lost); the run's folder has them\n"
    assert capsys.readouterr().err == said


def begun(folder: Path, logs: str = "wandb") -> Run:
    """A run with a W&B file that no one has to send."""
    run = Run(folder / "some" / "run")
    run.folder.mkdir(parents=True)
    (run.folder / "run.json").write_text(json.dumps({"id": "abc"}))
    run.record(settings(logger__name=logs))
    if logs == "wandb":
        part = run.folder / "wandb" / "offline-run-20260101_000000-abc" / "run-abc.wandb"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x")
    return run


@pytest.mark.parametrize(
    ("logs", "server", "says"),
    [
        (None, {}, "is not a folder"),
        ("csv", {}, "no run in {} has a W&B run to send: they were trained with logger=csv"),
        ("wandb", {}, "sync needs a W&B key and none was found: run `wandb login`, or set WANDB_API_KEY"),
        ("wandb", {"WANDB_API_KEY": "x", "WANDB_BASE_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not answer"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], logs: str | None, server: dict[str, str], says: str
):
    if logs:
        begun(tmp_path, logs)
    with mock.patch.dict(os.environ, environment(tmp_path) | server, clear=True):
        code, lines, err = command(capsys, tmp_path / "some")
    assert code == 1
    assert err.startswith("error: ")
    assert says.format(tmp_path / "some") in err
    assert lines == []


def test_a_run_that_is_trained_now_is_left_for_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lock = files.lock(begun(tmp_path).folder)
    assert lock
    with lock:
        code, lines, _ = command(capsys, tmp_path / "some")
    assert code == 0
    assert lines[0].startswith("later        run: it is being trained")
