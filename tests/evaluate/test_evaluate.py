"""Evaluating runs and ensembles: figures against float64 NumPy over stored logits, files, refusals."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib import image
from rich.console import Console
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from alexnet_pl import export
from alexnet_pl.config.schema import as_dict
from alexnet_pl.data import datamodule, datasets, shapes
from alexnet_pl.data.datasets import SHAPES_CLASSES as CLASSES
from alexnet_pl.evaluate import cli, evaluate, plots, predictions
from alexnet_pl.prepare.options import Options
from alexnet_pl.prepare.prepare import prepare
from alexnet_pl.runs import provenance, trained
from alexnet_pl.runs.run import Run, find_runs
from tests.helpers.commands import environment, train_command
from tests.helpers.runs import TINY
from tests.helpers.sources import draw_source, write_folders

VAL = 250
QUICK = (
    *TINY,
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=1.0",
    "model.init=fan_in",
    "data.pixel_scale=64",
    "optim.lr=0.03",
    "model.width=0.25",
)
VIEWED = ("data.resize=36", "data.crop_size=32")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """A folder with runs: pair/ has two that differ in all that members may differ in; whole, and one on a store."""
    folder = tmp_path_factory.mktemp("evaluate")
    for name, train, val in (("packed", 60, 11), ("blind", 30, 0)):
        source = write_folders(folder / f"{name}_source", draw_source(train, val, seed=train))
        prepare(source, folder / name, Options(size=24, workers=2), Console(file=io.StringIO()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "SHAPES_SPLITS", {"train": (1200, 1), "val": (VAL, 2)})
        patch.setattr(provenance, "git_state", lambda: {"commit": "0123456789abcdef", "dirty": False})
        train = train_command(folder, patch)
        for overrides in (
            ("name=pair", "seed=1", *VIEWED),
            ("name=pair", "seed=2", "data.resize=40", "data.crop_size=28", "data.pixel_scale=32"),
            ("name=whole",),
            ("name=store", "data=imagenet", f"data.root={folder / 'packed'}"),
        ):
            done = train(*QUICK, *overrides)
            assert done.returncode == 0, done.stderr
        yield folder


Command = Callable[..., str]


@pytest.fixture
def command(place: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`command("runs/pair", ...)`: what alexnet-evaluate prints, there; or, where it ends with an error, that."""
    monkeypatch.chdir(place)

    def call(*args: str) -> str:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["alexnet-evaluate", "--device", "cpu", *args])
        with (
            mock.patch.dict(os.environ, environment(place), clear=True),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                cli.main()
            except SystemExit:
                return err.getvalue().removesuffix("\n")
        return out.getvalue()

    return call


def members(place: Path) -> list[Run]:
    return find_runs(place / "runs/pair")


def alone(place: Path, name: str) -> str:
    (run,) = find_runs(place / "runs" / name)
    return str(run.folder)


def truth(logits: list[np.ndarray], labels: np.ndarray, by: str) -> tuple[np.ndarray, dict[str, float]]:
    """Probabilities (n, classes) of members' logits (n, views, classes), and the figures, all in float64."""

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    of = [each.astype(np.float64) for each in logits]
    if by == "logits":
        p = softmax(np.mean([each.mean(1) for each in of], 0))
    else:
        p = np.mean([softmax(each).mean(1) for each in of], 0)
    right = p[np.arange(len(p)), labels]
    rank = (p > right[:, None]).sum(1)
    return p, {"error": (rank > 0).mean(), "top5_error": (rank > 4).mean(), "nll": -np.log(right).mean()}


def results(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


@pytest.mark.parametrize(
    ("views", "by"),
    [(1, "probabilities"), pytest.param(10, "probabilities", marks=pytest.mark.slow), (10, "logits")],
)
def test_an_ensemble_equals_numpy_over_the_members_logits(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch, views: int, by: str
):
    monkeypatch.setattr(datamodule, "EVAL_PIXELS", 63 * 32**2)  # batches of 64 or 7 images: the last is short
    said = command("runs/pair", "--views", str(views), "--average", by, "--keep-logits")
    folder = place / "runs/ensembles/pair" / f"{views}-{by}"
    logits = [np.load(folder / f"logits-{i}.npy") for i in (1, 2)]
    labels = shapes.draw_shapes(CLASSES, *datasets.SHAPES_SPLITS["val"])[1].numpy()
    assert [each.shape for each in logits] == [(VAL, views, 10)] * 2
    p, expected = truth(logits, labels, by)
    found = results(folder)
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9)
    assert 0.2 < found["error"] < 0.85
    assert [member["id"] for member in found["members"]] == [run.identity["id"] for run in members(place)]
    for member, own in zip(found["members"], logits, strict=True):
        _, expected = truth([own], labels, by)
        assert {key: member[key] for key in expected} == pytest.approx(expected, rel=1e-9)
    rows = pq.read_table(folder / "predictions.parquet").to_pydict()
    assert rows["name"] == [str(i) for i in range(VAL)]
    np.testing.assert_array_equal(rows["label"], labels)
    np.testing.assert_array_equal(rows["predicted"], p.argmax(1))
    np.testing.assert_allclose(rows["probability"], p.max(1), rtol=1e-9)
    np.testing.assert_allclose(rows["right_probability"], p[np.arange(VAL), labels], rtol=1e-9)
    np.testing.assert_array_equal(rows["top5"], np.argsort(-p)[:, :5])
    np.testing.assert_allclose(rows["top5_probabilities"], -np.sort(-p)[:, :5], rtol=1e-9)
    assert rows["top5_classes"][3] == [CLASSES[label] for label in rows["top5"][3]]
    assert [r == 1 for r in rows["rank"]] == rows["correct"]
    (printed,) = re.findall(r"ensemble +(\S+) %", said)
    assert float(printed) == pytest.approx(100 * (1 - np.mean(rows["correct"])), abs=0.005)


@pytest.mark.slow
def test_batches_change_nothing(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch):
    """The logits are those of the net asked for all images at once; an ensemble of one net twice is that net."""
    run = str(members(place)[0].folder)
    twin = str(shutil.copytree(run, place / "twin"))
    monkeypatch.setattr(datamodule, "EVAL_PIXELS", 63 * 32**2)
    for out, given in (("one", [run]), ("two", [run, twin])):
        command(*given, "--views", "10", "--keep-logits", "--out", out)
    net = trained.load(run)
    expected = net.logits(shapes.draw_shapes(CLASSES, *datasets.SHAPES_SPLITS["val"])[0], 10).numpy()
    np.testing.assert_allclose(np.load(place / "one/logits.npy"), expected, atol=1e-5)
    one, two = (results(place / name) for name in ("one", "two"))
    figures = ("error", "top5_error", "nll", "calibration_error")
    assert {key: two[key] for key in figures} == pytest.approx({key: one[key] for key in figures}, abs=1e-12)
    assert [{key: own[key] for key in figures} for own in two["members"]] == [{key: one[key] for key in figures}] * 2


@pytest.mark.parametrize("name", ["whole", "store"])
def test_one_view_gives_the_validation_error_of_training(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """The W&B run is told the same."""
    sent = []
    monkeypatch.setattr(evaluate, "attach_results", lambda run, summary, images: sent.append((run.folder, summary)))
    command(alone(place, name))
    (run,) = find_runs(place / "runs" / name)
    last = [row for row in run.metrics if "val/error" in row][-1]
    found = results(run.folder / "evaluation/1-probabilities")
    assert found["error"] == pytest.approx(last["val/error"], abs=1e-9)
    assert found["nll"] == pytest.approx(last["val/loss"], rel=1e-4)
    figures = ("error", "top5_error", "nll", "calibration_error")
    assert sent == [(run.folder, {f"evaluate/1-probabilities/{key}": found[key] for key in figures})]
    assert found["git"]["commit"] == "0123456789abcdef"
    assert found["members"][0]["checkpoints"] == [str(run.last)]


def test_a_packed_store_gives_names(command: Command, place: Path):
    run = alone(place, "store")
    said = command(run, "--split", "train", "--weights", "best", "--data", "packed")
    folder = Path(run) / "evaluation/1-probabilities-best-train"
    rows = pq.read_table(folder / "predictions.parquet").to_pydict()
    assert sorted(rows["name"]) == [file.name for file in draw_source(60, 11, seed=60)["train"]]
    assert all(name.startswith(f"{named}/") for name, named in zip(rows["name"], rows["class"], strict=True))
    per_class = list(csv.DictReader((folder / "classes.csv").open()))
    right = Counter(label for label, correct in zip(rows["class"], rows["correct"], strict=True) if correct)
    assert {row["class"]: (row["images"], int(row["correct"])) for row in per_class} == {
        name: ("20", right[name]) for name in ("n00", "n01", "n02")
    }
    assert str(folder / "confusion.png") in said
    for name in ("confusion.png", "calibration.png"):
        assert image.imread(folder / name).std() > 0.05


def test_calibration_and_confusion_against_torchmetrics():
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(500, 60, dtype=torch.float64), torch.randint(60, (500,))
    labels = torch.where(torch.rand(500) < 0.5, logits.argmax(1), labels)
    found = predictions.concatenate([predictions.make_predictions(part.log_softmax(1), of) for part, of in
                            zip(logits.split(150), labels.split(150), strict=True)])  # fmt: skip
    expected = multiclass_calibration_error(logits.softmax(1), labels, 60, n_bins=15, norm="l1")
    assert predictions.calibration(found).error == pytest.approx(expected.item(), abs=1e-6)
    counts = multiclass_confusion_matrix(logits, labels, 60).numpy()
    np.testing.assert_array_equal(predictions.confusion(found, 60), counts)
    pairs = predictions.confused_pairs(found)
    assert {(a, b): n for a, b, n in pairs} == {(a, b): counts[a, b] for a, b in np.argwhere(counts) if a != b}
    assert [n for *_, n in pairs] == sorted((n for *_, n in pairs), reverse=True)


def test_what_is_very_unlikely_keeps_its_rank():
    """Probabilities of e^-200 and e^-300, which are both 0 in float32."""
    logits = torch.tensor([[[0.0, -300, -200, -400, -500, -600, -700]]])
    found = predictions.make_predictions(predictions.average(logits, "probabilities"), torch.tensor([2]))
    assert found.rank.tolist() == [2]
    assert found.right.tolist() == [-200]


def test_many_classes_are_drawn_as_pairs(tmp_path: Path):
    """Without any confusion too."""
    labels = torch.arange(50).repeat(2)
    for name, wrong in (("none", 0), ("some", 30)):
        scores = torch.nn.functional.one_hot((labels + (torch.arange(100) < wrong)) % 50, 50).double().log_softmax(1)
        names = [f"class ${i}, also called otherwise" for i in range(50)]
        plots.draw_confusion(
            predictions.make_predictions(scores, labels), names, "a title " * 20, tmp_path / f"{name}.png"
        )
    assert image.imread(tmp_path / "some.png").shape[0] > image.imread(tmp_path / "none.png").shape[0] + 500


def test_published_weights_are_evaluated_on_a_store(command: Command, place: Path, tmp_path: Path):
    """A run's export, as if somebody else had published it, gives the run's figures; an ensemble of both too."""
    run, folder = alone(place, "store"), tmp_path / "net"
    export.export(trained.load(run), folder, "safetensors")
    command(run, "--out", str(tmp_path / "run"))
    said = command(str(folder), "--data", "packed")
    assert "net on 11 images (packed" in said
    there = place / "runs/published/net/evaluation/1-probabilities-packed"
    own, expected = (results(each) for each in (there, tmp_path / "run"))
    assert [own[key] for key in ("error", "top5_error")] == [expected[key] for key in ("error", "top5_error")]
    assert own["nll"] == pytest.approx(expected["nll"], rel=1e-5)
    assert own["members"][0]["folder"] == str(folder)
    command(str(folder), run, "--data", "packed", "--out", str(tmp_path / "both"))
    assert results(tmp_path / "both")["nll"] == pytest.approx(expected["nll"], rel=1e-5)
    assert "say with --data" in command(str(folder))
    assert "--weights chooses a run's checkpoints" in command(str(folder), "--data", "packed", "--weights", "best")


def test_what_cannot_be_evaluated_is_named_in_one_sentence(command: Command, place: Path, tmp_path: Path):
    first, second = (str(run.folder) for run in members(place))
    whole, stored = alone(place, "whole"), alone(place, "store")
    begun = Run(place / "runs/begun/it")
    plain = as_dict(trained.load(whole).cfg)
    begun.start(plain, [])
    other = tmp_path / "other"  # the store's run, as if on another store
    shutil.copytree(stored, other)
    checkpoint = torch.load(other / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["config"]["data"]["store"] = "another"
    torch.save(checkpoint, other / "checkpoints/last.ckpt")
    checkpoint["state_dict"] = {key: value * torch.nan for key, value in checkpoint["state_dict"].items()}
    torch.save(checkpoint, tmp_path / "broken.ckpt")
    renamed = tmp_path / "renamed"
    shutil.copytree(place / "packed", renamed)
    (renamed / "store.json").write_text((renamed / "store.json").read_text().replace('"n00"', '"x00"'))
    for args, expected in {
        ("runs/nowhere",): "runs/nowhere is not a folder",
        ("runs/begun",): "no run in runs/begun is done",
        ("runs/begun/it",): "runs/begun/it has no checkpoint",
        (
            whole,
            "--weights",
            "bset",
        ): "--weights bset is neither a file nor the name of a checkpoint: did you mean best?",
        (first, second, "--weights", str(other / "checkpoints/last.ckpt")): "a file of weights belongs to one run",
        (
            whole,
            "--views",
            "10",
        ): f"--views 10 needs images larger than their crops, but those of {whole} both have 32",
        (first, stored): f"{stored} has other classes than {first}",
        (stored, str(other)): f"{other} was trained on other data than {stored}",
        (stored, "--data", "blind"): "blind holds no images in its val split",
        (stored, "--data", "away"): "should be in away, which is no folder",
        (stored, "--data", str(renamed)): "are of other classes than those",
        (stored, "--weights", str(tmp_path / "broken.ckpt")): "gives outputs that are not finite",
        (whole, "--data", "packed"): "which are drawn, not read: leave out --data",
        **{(whole, "--device", name): f"--device {name} is not here" for name in ("gpu7", "meta", "hpu", "xla")},
        (whole, whole): f"{Path(whole).resolve()} is named twice",
        (str(Path(first).parent), first): f"{Path(first).resolve()} is named twice",
    }.items():
        said = command(*args)
        assert said.startswith("error: "), args
        assert expected in said
        assert "\n" not in said
    assert not list((place / "runs").glob("*/*/evaluation/**/*.tmp"))
    assert "on 11 images" in command(stored, str(other), "--data", "packed", "--out", str(tmp_path / "out"))
