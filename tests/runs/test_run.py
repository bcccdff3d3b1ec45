"""Run folders: names, whole writes, identity, rows."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alexnet_pl import ROOT, files
from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs import launch, local
from alexnet_pl.runs import provenance, run
from alexnet_pl.runs.metrics import append_row, read_rows, write_rows
from alexnet_pl.runs.naming import config_differences, job_folder_name
from alexnet_pl.runs.run import Run, find_runs, write
from alexnet_pl.runs.sweep import read_sweep, record_sweep
from tests.helpers.fuzz import untouched
from tests.helpers.reports import settings

CONFIG = settings(seed=3, lr=0.1)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "seed=2"),
        (["seed=2", "model.activation=tanh"], "model.activation=tanh,seed=2"),
        (["model.activation=tanh", "+seed=2"], "model.activation=tanh,seed=2"),
        (["model.activation=tanh"], "model.activation=tanh,seed=2"),
        (["seed=1", "seed=2"], "seed=2"),
        (
            ["sweep=figure1", "name=a", "data.root=/x/y", "logger=csv", "logger.mode=online", "data=cifar10"],
            "data=cifar10,seed=2",
        ),
        (["trainer.max_time='00:01:00:00'"], "seed=2,trainer.max_time=_00_01_00_00_"),
    ],
)
def test_a_folder_is_named_by_what_is_trained(overrides: list[str], name: str):
    assert job_folder_name(overrides, 2) == name


def test_long_names_fit_a_file_system_and_stay_apart():
    a, b = ([f"model.very_long_key_{i}={i * factor}" for i in range(30)] for factor in (1, 2))
    assert len(job_folder_name(a, 1)) <= 255
    assert job_folder_name(a, 1) != job_folder_name(b, 1)


def test_bytes_are_counted_and_nothing_that_tells_jobs_apart_is_lost():
    long = [[f"model.name={'ü' * 150}{end}"] for end in "ab"]
    one, other = (job_folder_name(overrides, 1) for overrides in long)
    assert one != other
    assert max(len(name.encode()) for name in (one, other)) <= 255
    assert job_folder_name(["pretrained=runs/a_b"], 1) != job_folder_name(["pretrained=runs/a/b"], 1)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "a.json"
    files.write(file, "old")

    def full_disk(self: Path, text: str, encoding: str) -> int:
        with self.open("w") as half:
            half.write(text[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.write(file, "new contents")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == "old"


def test_a_started_run_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["/home/ada/bin/alexnet-train", "optim.lr=0.1"])
    run = Run(tmp_path / "r")
    assert run.status == "missing"
    run.start(CONFIG, ["optim.lr=0.1"])
    identity = run.identity
    assert run.status == "unfinished"
    assert identity["seed"] == 3
    assert identity["overrides"] == ["optim.lr=0.1"]
    assert identity["command"] == ["alexnet-train", "optim.lr=0.1"], "without a folder of this machine"
    assert {"python", "torch", "pytorch-lightning", "alexnet-pl"} <= set(identity["versions"])
    assert run.config == CONFIG
    run.fail("no more electricity")
    assert (run.status, run.failure) == ("failed", "no more electricity")
    moved = settings(seed=3, lr=0.1, data__root="/b", logger__mode="online")  # where, not what
    run.start(moved, [])
    assert run.status == "unfinished"
    (continued,) = run.identity["continued"]
    assert set(continued) == {"started", "git", "versions", "machine"}, "what it went on with"
    assert run.identity | {"continued": 0} == identity | {"continued": 0}, "the W&B id and all else stay"
    run.finish({"val/error": 0.2}, 1.26)
    assert run.status == "done"
    assert run.done == {"metrics": {"val/error": 0.2}, "seconds": 1.3}


def test_another_configuration_is_refused_by_its_keys(tmp_path: Path):
    run = Run(tmp_path / "r")
    run.start(CONFIG, [])
    with pytest.raises(ConfigError, match=r"optim\.lr was 0\.1 and is now 0\.2.*name="):
        run.start(settings(seed=3, lr=0.2), [])
    assert run.config == CONFIG


@pytest.mark.parametrize("text", ["mine: 1\n", "words", "- 1\n"])
def test_a_config_that_is_no_runs_stays(text: str, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml "), untouched(tmp_path):
        Run(tmp_path).start(CONFIG, [])


def test_a_run_that_was_killed_as_it_began_is_taken_up(tmp_path: Path):
    Run(tmp_path).record(CONFIG)
    with pytest.raises(ConfigError, match=r"optim\.lr was 0\.1 and is now 0\.2"):
        Run(tmp_path).start(settings(seed=3, lr=0.2), [])
    run = Run(tmp_path)
    run.start(CONFIG, [])
    run.release()
    assert run.identity


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        Run(tmp_path / "file" / "r").start(CONFIG, [])


def test_rows(tmp_path: Path):
    """Columns may appear late; a whole rewrite changes no byte; csv reads what was meant; a cut line is dropped."""
    path = tmp_path / "metrics.csv"
    rows: list[dict[str, float]] = [
        {"step": 1, "epoch": 0.5, "images_seen": 4, "train/error": 1 / 3},
        {"step": 2.0, "epoch": 1.0, "images_seen": 8, "val/error": 0.25},
        {"step": 3, "epoch": 1.5, "images_seen": 12, "train/error": 1e-9},
    ]
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == rows
    with path.open() as file:
        assert [dict(r) for r in csv.DictReader(file)] == [
            {"step": "1", "epoch": "0.5", "images_seen": "4", "train/error": str(1 / 3), "val/error": ""},
            {"step": "2", "epoch": "1", "images_seen": "8", "train/error": "", "val/error": "0.25"},
            {"step": "3", "epoch": "1.5", "images_seen": "12", "train/error": "1e-09", "val/error": ""},
        ]
    text = path.read_text()
    write_rows(path, read_rows(path), ["step", "epoch", "images_seen", "train/error", "val/error"])
    assert path.read_text() == text
    path.write_text(text + "4,2,0.1")
    assert read_rows(path) == rows
    assert read_rows(tmp_path / "none.csv") == []


def test_find_lists_what_was_asked_for_and_what_is_there(tmp_path: Path):
    with pytest.raises(ConfigError, match="is not a folder"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no run"):
        find_runs(tmp_path)
    record_sweep(tmp_path, {"b": ["x=2"], "a": ["x=1"]})
    record_sweep(tmp_path, {"c": ["x=3"]})
    Run(tmp_path / "a").start(CONFIG, [])
    Run(tmp_path / "extra").start(CONFIG, [])
    assert [(r.folder.name, r.status) for r in find_runs(tmp_path)] == [
        ("b", "missing"),
        ("a", "unfinished"),
        ("c", "missing"),
        ("extra", "unfinished"),
    ]
    assert [r.folder for r in find_runs(tmp_path / "a")] == [tmp_path / "a"]


def test_sweeps_that_begin_at_once_are_all_listed(tmp_path: Path):
    """Each adds its jobs to those that it finds, and no other does meanwhile."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: record_sweep(tmp_path, {f"job {number}": [f"seed={number}"]}), range(40)))
    assert read_sweep(tmp_path) == {f"job {number}": [f"seed={number}"] for number in range(40)}


def test_the_reason_of_a_run_whose_folder_is_gone_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = Run(tmp_path / "run")
    run.start(CONFIG, [])
    shutil.rmtree(run.folder)
    assert local.failure_reason(launch.Ending(1, ""), run, 0) == "exit code 1"
    said = capsys.readouterr().err
    assert f"the run folder {run.folder} is gone" in said
    assert "exit code 1" in said
    assert list(tmp_path.iterdir()) == []


def test_a_mangled_file_is_named(tmp_path: Path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json is damaged: it is not JSON"):
        _ = Run(tmp_path).identity


def test_git_state_tells_this_checkouts_commit():
    import subprocess

    state = provenance.git_state()
    if not state:
        pytest.skip("the package does not run from a git checkout with a commit")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert state["commit"] == head.strip()
    assert json.dumps(state)


def test_whoever_sees_an_identity_finds_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Other processes of the run may look at any moment."""
    written: list[str] = []
    true = write
    monkeypatch.setattr(run, "write", lambda path, text: (written.append(path.name), true(path, text)))
    Run(tmp_path).start({"seed": 1}, [])
    assert written == ["config.yaml", "run.json"]


def test_a_key_that_is_newer_than_a_run_counts_as_its_default():
    old = {"model": {"name": "convnet"}, "data": {"batch_size": 64}}
    assert config_differences(old, old | {"scale": "paper", "model": {"name": "convnet", "width": 1.0}}) == {}
    assert config_differences(old, old | {"model": {"name": "convnet", "width": 0.5}}) == {"model.width": (1.0, 0.5)}
