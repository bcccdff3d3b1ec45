"""Sync, and what is added to a run when it has ended: W&B's own client, and a stand-in for its server.

The runs train nothing: they log what a run would, through the loggers of a run.
"""

from __future__ import annotations

import math
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
from alexnet_pl.runs import mirror, wandb_server
from alexnet_pl.runs.run import Run
from alexnet_pl.training import loggers
from tests.helpers.bad_servers import bad_server
from tests.helpers.commands import environment
from tests.helpers.runs import offline_run, run_config
from tests.helpers.wandb_server import KEY, Server, history_rows, own_config, without_empty


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


@pytest.mark.slow
def test_every_run_that_can_be_is_sent_and_none_twice(folder: Path, server: Server, capsys: pytest.CaptureFixture[str]):
    code, lines, err = command(capsys, folder, folder / "continued", "--jobs", "2")  # a run named twice is one run
    assert code == 1
    assert err.splitlines() == [
        f"sending 3 runs to {server.environment['WANDB_BASE_URL']}, 2 at a time",
        "error: some runs were not sent: the same command tries those again and skips the others",
    ]
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


@pytest.mark.slow
def test_what_is_added_later_goes_to_the_same_run(folder: Path, server: Server, capsys: pytest.CaptureFixture[str]):
    run, image = Run(folder / "continued"), folder / "continued" / "kernels.png"
    Image.new("RGB", (4, 4), (200, 30, 30)).save(image)
    latest = (run.folder / "wandb" / "latest-run").resolve()
    mirror.attach_results(run, {"evaluate/error": 0.5}, {})
    mirror.attach_results(run, {"evaluate/error": 0.125, "kernels/tower1": math.nan}, {"kernels": image})
    drawn = image.read_bytes()
    image.unlink()  # what was added does not need it
    code, lines, _ = command(capsys, run.folder)
    assert code == 0
    assert lines[-1].startswith("1 of 1 runs sent")
    received = server.runs[run.identity["id"]]
    assert [row.get("epoch") for row in received.history] == [0, 1, 2, 3, None]
    assert received.history[-1]["kernels"]["_type"] == "image-file"
    (name,) = (name for name in server.uploads if name.startswith(f"{run.identity['id']}/media/images/kernels_"))
    assert server.uploads[name] == drawn
    assert received.summary["evaluate/error"] == 0.125
    assert own_config(received) == without_empty(run.config)
    assert received.exit_code == 0
    assert server.unknown == set()
    assert len(list(run.folder.glob("wandb/*run-*-*"))) == 2, "one folder of W&B's for each start of the training"
    assert (run.folder / "wandb" / "latest-run").resolve() == latest, "which `wandb leet` opens"
    assert mirror.added(run) == {}
    code, lines, _ = command(capsys, run.folder)
    assert lines[-1].startswith("0 of 1 runs sent")


# ------------------------------------------------------------------------------------------------ without sending


def test_what_is_added_offline_waits_in_one_place(tmp_path: Path):
    run, image = offline_run(tmp_path / "run"), tmp_path / "figure.png"
    before = {path.name for path in (run.folder / "wandb").iterdir()}
    for number, key in enumerate(("kernels", "predictions", "kernels")):
        image.write_bytes(b"%d" % number)
        mirror.attach_results(run, {f"evaluate/{key}": number, "nothing": math.nan}, {key: image})
    assert mirror.added(run) == {
        "summary": {"evaluate/kernels": 2, "evaluate/predictions": 1},
        "images": ["kernels", "predictions"],
    }
    here = {path.name for path in (run.folder / "wandb").iterdir()}
    assert here - before == {"added.json", "added-kernels.png", "added-predictions.png"}
    assert (run.folder / "wandb" / "added-kernels.png").read_bytes() == b"2"
    assert sync.outcome_without_sending(run) is None


@pytest.mark.parametrize("lacks", ["logger", "done mark"])
def test_a_run_without_wandb_or_end_is_left_alone(tmp_path: Path, lacks: str):
    run = offline_run(tmp_path / "run", f"logger={'csv' if lacks == 'logger' else 'wandb'}")
    if lacks == "done mark":
        (run.folder / "done.json").unlink()
    before = sorted(run.folder.rglob("*"))
    mirror.attach_results(run, {"evaluate/error": 0.125}, {})
    assert sorted(run.folder.rglob("*")) == before


def test_what_an_online_run_could_not_take_waits_for_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import wandb

    def fails(**kwargs: object) -> None:
        raise ConnectionResetError("Connection\nlost")

    run = offline_run(tmp_path / "run", "logger=wandb")
    config = run.config
    config["logger"]["mode"] = "online"
    run.record(config)
    sync.sent_mark(sync.wandb_files(run)[0]).touch()
    assert sync.outcome_without_sending(run) == sync.Outcome(sync.BEFORE, "")
    monkeypatch.setattr(wandb, "init", fails)
    mirror.attach_results(run, {"evaluate/error": 0.125}, {})
    said = capsys.readouterr().err
    assert said.startswith("W&B did not take what was added to run (Connection lost); its folder has them: python -m ")
    assert said.count("\n") == 1
    assert sync.outcome_without_sending(run) is None
    assert sync._send_added(run, sync.Outcome(sync.SENT, "")).word == sync.FAILED
    assert mirror.added(run)["summary"] == {"evaluate/error": 0.125}


@pytest.mark.parametrize("case", ["too slow", "damaged"])
def test_each_run_that_is_not_sent_has_its_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
):
    run = offline_run(tmp_path / "some" / "run")
    if case == "damaged":
        (run.folder / "run.json").write_text("{")
    monkeypatch.setattr(wandb_server, "require", lambda purpose: None)
    code, lines, err = command(capsys, tmp_path / "some", "--minutes", "0.0001")
    assert code == 1
    assert "error: some runs were not sent" in err
    assert lines[0].startswith("failed       run: ")
    assert {"too slow": "not through after 0.0001 minutes", "damaged": "run.json"}[case] in lines[0]
    assert lines[1:] == ["0 of 1 runs sent (1 failed)"]


@pytest.mark.slow
def test_a_server_that_fails_later_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The client gives up by itself after as many attempts as it is told."""
    assert set(sync.PATIENCE.values()) == {"3", "20"}
    monkeypatch.setattr(sync, "PATIENCE", sync.PATIENCE | {"WANDB__GRAPHQL_RETRY_MAX": "1"})
    (mark,) = (sync.sent_mark(file) for file in sync.wandb_files(Run(folder / "cut")))
    sent = mark.exists()
    mark.unlink(missing_ok=True)
    with bad_server("fails later") as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        code, lines, _ = command(capsys, folder / "cut")
    assert code == 1
    assert lines[0].startswith("failed       cut: ")
    assert "HTTP 500" in lines[0]
    assert not mark.exists()
    if sent:
        mark.touch()


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
        offline_run(tmp_path / "some" / "run", f"logger={logs}")
    with mock.patch.dict(os.environ, environment(tmp_path) | server, clear=True):
        code, lines, err = command(capsys, tmp_path / "some")
    assert code == 1
    assert err.startswith("error: ")
    assert says.format(tmp_path / "some") in err
    assert lines == []


def test_a_run_that_is_trained_now_is_left_for_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lock = files.lock(offline_run(tmp_path / "some" / "run").folder)
    assert lock
    with lock:
        code, lines, _ = command(capsys, tmp_path / "some")
    assert code == 0
    assert lines[0].startswith("later        run: it is being trained")
